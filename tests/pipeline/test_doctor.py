"""``trt-qat doctor``: what this machine has for engines, and what each stage lacks."""

from __future__ import annotations

import ctypes
import json
import re
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path

import pytest

from tests.runs import command_line
from trt_qat import backends
from trt_qat.engine import machine
from trt_qat.engine.build.backend import why_not
from trt_qat.engine.machine import Gpu
from trt_qat.pipeline import doctor
from trt_qat.pipeline.plan import STAGES

L4 = Gpu("NVIDIA L4", (8, 9), 23034, 58, (12, 4))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    machine.gpus.cache_clear()
    yield
    machine.gpus.cache_clear()


def test_the_machine_is_described_for_engines() -> None:
    document = json.loads(command_line("doctor", "--json").stdout)
    found = document["machine"]
    assert set(found["bindings"]) == {"pycuda", "cuda-python"}
    assert bool(found["gpus"]) == (found["why_no_gpu"] is None)
    stages = {stage["stage"]: stage for stage in document["stages"]}
    assert list(stages) == list(STAGES)
    assert stages["build"]["why"] == why_not("auto", None)
    assert (found["rtx"] is None) == ("not installed" in (found["why_not_rtx"] or ""))
    if not found["gpus"]:
        assert "of TensorRT for RTX do not run here: " in found["why_not_run_rtx"]
        assert "there is no GPU" in found["why_not_run_rtx"]


def test_every_stage_that_does_not_run_says_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backends, "missing_modules", lambda *names: list(names))
    for stage in doctor.examine()["stages"]:
        if stage["runs"]:
            assert stage["install"] is None
            continue
        extras = re.findall(r"trt-qat\[([\w,]+)\]", stage["install"])
        assert extras, stage
        for extra in ",".join(extras).split(","):
            assert extra in (metadata("trt-qat").get_all("Provides-Extra") or ()), stage
    assert {each["install"] for each in doctor.examine()["stages"]} >= {
        "pip install 'trt-qat[train]'"
    }


def test_people_are_told_the_driver_the_gpu_and_the_bindings() -> None:
    out = command_line("doctor").stdout
    for word in ("NVIDIA driver", "GPU", "TensorRT", "pycuda", "cuda-python", "for RTX"):
        assert word in out


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_LIBCUDA", "libcuda-that-is-not-there.so.1")
    assert machine.gpus() == ((), "no NVIDIA driver (libcuda.so.1) is installed")
    assert "there is no GPU: no NVIDIA driver" in (machine.why_no_engines() or "")


@pytest.mark.parametrize(
    ("status", "reason"), [(100, "shows no device"), (3, r"does not start \(cuInit returns 3\)")]
)
def test_a_driver_without_a_device_is_told_from_one_that_fails(
    monkeypatch: pytest.MonkeyPatch, status: int, reason: str
) -> None:
    class Driver:
        @staticmethod
        def cuInit(flags: int) -> int:  # noqa: N802  (the name of CUDA's function)
            return status

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    _, why = machine.gpus()
    assert why is not None
    assert re.search(reason, why)


def test_a_gpu_without_tensorrt_lacks_tensorrt_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: ((L4,), None))
    monkeypatch.setattr(machine, "missing_modules", lambda *names: list(names))
    why = machine.why_no_engines()
    assert why is not None
    assert "TensorRT is not installed" in why
    assert "no GPU" not in why


def test_tensorrt_and_a_gpu_without_a_binding_build_and_do_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: ((L4,), None))
    here = {"tensorrt"}
    monkeypatch.setattr(
        machine, "missing_modules", lambda *names: [name for name in names if name not in here]
    )
    assert machine.why_no_engines() is None
    assert "pip install 'trt-qat[gpu]'" in (machine.why_not_run() or "")
    assert any("built but not run" in note for note in doctor.examine()["notes"])
    here.add("pycuda")
    assert machine.why_not_run() is None
    assert any("CUDA graphs need cuda-python" in note for note in doctor.examine()["notes"])


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\n", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release\n",
         "550.54.15"),
    ],
)  # fmt: skip
def test_the_drivers_version_is_read_from_the_kernel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, version: str
) -> None:
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr(machine, "_DRIVER_FILE", tmp_path / "version")
    assert machine.driver_version() == version


def test_a_jetson_tells_its_release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    release = tmp_path / "release"
    release.write_text("# R36 (release), REVISION: 4.7, GCID: 42, BOARD: generic\n")
    monkeypatch.setattr(machine, "_DRIVER_FILE", tmp_path / "none")
    monkeypatch.setattr(machine, "_TEGRA_FILE", release)
    assert machine.driver_version() == "R36 (release), REVISION: 4.7"
