"""Plans of others: what their first bytes tell, and what a file is that is no plan.

The layout is that of ``printPlanVersion`` in trtexec's ``sampleEngines.cpp``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs import command_line
from trt_qat.engine import machine
from trt_qat.engine.evidence.plan_header import NO_GPU, PlanHeader, is_plan, read_header
from trt_qat.engine.evidence.trust import inspect_file
from trt_qat.errors import InputError

HERE = machine.tensorrt_version()


def plan(
    version: tuple[int, int, int, int] = (8, 6, 1, 6),
    tag: bytes = b"ftrt",
    serialization: int = 0,
    announced: int | None = None,
    body: int = 200,
) -> bytes:
    size = 28 + body if announced is None else announced
    head = tag + serialization.to_bytes(4, "little") + bytes(8) + size.to_bytes(8, "little")
    return head + bytes(version) + bytes(body)


def header_of(folder: Path, content: bytes) -> PlanHeader:
    path = folder / "x.engine"
    path.write_bytes(content)
    return read_header(path)


@pytest.mark.parametrize("version", [(8, 6, 1, 6), (10, 3, 0, 26), (10, 16, 1, 11), (11, 2, 1, 2)])
def test_the_version_is_told(tmp_path: Path, version: tuple[int, int, int, int]) -> None:
    found = header_of(tmp_path, plan(version))
    assert found.title == "TensorRT " + ".".join(map(str, version))
    assert found.notes == ()


def test_a_plan_of_tensorrt_for_rtx_is_told_apart(tmp_path: Path) -> None:
    found = header_of(tmp_path, plan((1, 7, 1, 116), b"vtrt"))
    assert found.title == "TensorRT for RTX 1.7.1.116"
    document = inspect_file(tmp_path / "x.engine")
    assert document["source"]["tensorrt_rtx"] == "1.7.1.116"
    assert "tensorrt" not in document["source"]


def test_metadata_of_ultralytics_are_read_and_their_harm_is_said(tmp_path: Path) -> None:
    told = json.dumps({"task": "detect", "imgsz": [640, 640], "names": {"0": "person"}}).encode()
    found = header_of(tmp_path, len(told).to_bytes(4, "little") + told + plan((10, 15, 1, 29)))
    assert found.version == "10.15.1.29"
    assert found.metadata["imgsz"] == [640, 640]
    assert f"begins at byte {4 + len(told)}" in found.notes[0]


def test_a_plan_that_was_cut_off_is_seen_by_its_own_size(tmp_path: Path) -> None:
    found = header_of(tmp_path, plan(announced=5_000_000))
    assert "speaks of 5000000 bytes and 228 are there" in found.notes[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (plan()[:20], "20 bytes, cut off in the header"),
        (b"", "the file is empty"),
        (b"PK\x03\x04 and more", "a zip archive, as PyTorch saves"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"\x08\x08\x12\x07pytorch\x1a\x05", "an ONNX model by its first bytes"),
        (b"TRT-8601-EntropyCalibration2\nx: 3c\n", "a calibration cache"),
        (b"\x00" * 64, "something else or damaged"),
    ],
    ids=["cut", "empty", "zip", "lfs", "onnx", "cache", "zeros"],
)
def test_what_is_no_plan_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        header_of(tmp_path, content)


def test_another_serialization_does_not_tell_its_release(tmp_path: Path) -> None:
    found = header_of(tmp_path, plan(serialization=239))
    assert found.version is None
    assert "239" in found.notes[0]


@pytest.mark.skipif(machine.why_no_engines() is None, reason="TensorRT and a GPU are here")
def test_the_command_says_who_built_it_and_how_to_see_its_layers(tmp_path: Path) -> None:
    (tmp_path / "x.engine").write_bytes(plan((10, 3, 0, 26)))
    done = command_line("inspect", tmp_path / "x.engine")
    assert done.returncode == 0, done.stderr
    assert "a plan of TensorRT 10.3.0.26" in done.stdout
    assert "--exportLayerInfo=FILE" in done.stdout
    assert "no layer differs" not in done.stdout


def test_another_version_than_the_one_here_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question alone is replaced: which version is installed here."""
    monkeypatch.setattr(machine, "tensorrt_version", lambda: "10.16.1.11")
    (tmp_path / "x.engine").write_bytes(plan((8, 6, 1, 6)))
    *_, note = inspect_file(tmp_path / "x.engine")["notes"]
    assert "TensorRT 8.6.1.6 built it and this is 10.16.1.11" in note
    assert "build.version_compatible" in note


def test_headers_alone_are_not_set_against_each_other(tmp_path: Path) -> None:
    for name in ("a.engine", "b.engine"):
        (tmp_path / name).write_bytes(plan((1, 7, 1, 116), b"vtrt"))
    done = command_line("inspect", tmp_path / "a.engine", "--diff", tmp_path / "b.engine")
    assert done.returncode == 2
    assert "a.engine: TensorRT for RTX alone loads it" in done.stderr


@pytest.mark.parametrize("name", ["model.bin", "model", "engine.trtmodel", "cached.cache"])
def test_a_plan_is_known_by_its_bytes_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(plan((10, 3, 0, 26)))
    assert inspect_file(tmp_path / name)["source"]["tensorrt"] == "10.3.0.26"


@pytest.mark.skipif(machine.why_no_engines() is None, reason="TensorRT and a GPU are here")
def test_the_gpu_is_said_not_to_stand_in_the_header(tmp_path: Path) -> None:
    (tmp_path / "x.plan").write_bytes(plan())
    assert inspect_file(tmp_path / "x.plan")["notes"][0] == NO_GPU


@pytest.mark.parametrize(("name", "said"), [("sm86", "8.6,"), ("sm80+", "8.0 and newer,")])
def test_onnxruntimes_name_tells_the_gpu(tmp_path: Path, name: str, said: str) -> None:
    path = tmp_path / f"TensorrtExecutionProvider_TRTKernel_graph_main_1_0_fp16_{name}.engine"
    path.write_bytes(plan())
    assert f"compute capability {said}" in read_header(path).notes[0]


def test_a_plan_of_an_older_release_says_that_it_does_not_say_which(tmp_path: Path) -> None:
    found = header_of(tmp_path, plan(tag=b"ptrt"))
    assert found.version is None
    assert "plans of older releases do, which do not say of which" in found.notes[-1]


def test_metadata_that_are_no_json_are_passed_by(tmp_path: Path) -> None:
    found = header_of(tmp_path, (4).to_bytes(4, "little") + b"{no}" + plan((10, 3, 0, 26)))
    assert found.version == "10.3.0.26"
    assert found.metadata == {}


def test_what_cannot_be_read_is_no_plan(tmp_path: Path) -> None:
    assert not is_plan(tmp_path)
    with pytest.raises(InputError, match="cannot be read: "):
        read_header(tmp_path)
