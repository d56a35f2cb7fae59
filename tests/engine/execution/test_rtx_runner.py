"""Engines of TensorRT for RTX are run by the same runner; what a machine without a GPU can show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.engine.aot.rtx import needs_rtx
from tests.graph.build import int8_chain
from trt_qat import artifact
from trt_qat.engine import machine
from trt_qat.engine.aot import load
from trt_qat.engine.build.build import build
from trt_qat.engine.evidence.trust import check_rtx_home
from trt_qat.engine.execution.runtime_cache import RuntimeCache, default_path
from trt_qat.engine.origin import origin_of
from trt_qat.errors import BackendUnavailable, InputError
from trt_qat.measure import metrics
from trt_qat.recipe.specs import BuildSpec
from trt_qat.runners.open import runner
from trt_qat.runners.ort import OrtRunner

FEED = {"x": np.random.default_rng(0).standard_normal((4, 16, 8, 8)).astype(np.float32)}
WHY_NOT = load.why_not_run()
on_gpu = pytest.mark.skipif(WHY_NOT is not None, reason=f"gpu: {WHY_NOT}")


def built(folder: Path, **given: object) -> tuple[Path, Path]:
    onnx, engine = folder / "model.onnx", folder / "m.engine"
    onnx.write_bytes(int8_chain().model("out_dq_out").SerializeToString())
    spec = BuildSpec.model_validate({"batch": (1, 4, 8), "compare_fp16": False} | given)
    build(onnx, engine, target=None, spec=spec, backend="rtx")
    return onnx, engine


def vouched(folder: Path, **metric: object) -> Path:
    """An engine of which only its sidecar is read."""
    path = folder / "m.engine"
    path.write_bytes(b"plan")
    artifact.write_sidecar(
        path, fingerprint="", parents={}, spec=BuildSpec().model_dump(mode="json"),
        metrics={"sm": None, **metric}, seconds=0.0,
    )  # fmt: skip
    return path


# Where it may run


def test_what_tensorrt_built_is_refused_by_name(tmp_path: Path) -> None:
    path = vouched(tmp_path, tensorrt="10.3.0")
    with pytest.raises(InputError, match=r"TensorRT 10\.3\.0 built it.*give it as trt:"):
        check_rtx_home(path, (8, 9))


@pytest.mark.parametrize(
    ("capabilities", "sm", "message"),
    [
        (["SM89"], (8, 9), None),
        (["SM86", "SM120"], (12, 0), None),
        ([], (8, 6), None),
        (["SM89"], (8, 6), r"compiled for SM89, and this GPU has 8\.6"),
        ([], (7, 5), r"from compute capability 8\.0 on, and this GPU has 7\.5"),
    ],
)
def test_the_gpu_is_one_that_it_was_compiled_for(
    tmp_path: Path, capabilities: list[str], sm: tuple[int, int], message: str | None
) -> None:
    path = vouched(tmp_path, rtx="1.7.1.116", compute_capabilities=capabilities)
    origin = origin_of(path)
    assert origin is not None
    assert list(origin.capabilities) == capabilities
    if message is None:
        check_rtx_home(path, sm)
        return
    with pytest.raises(InputError, match=message):
        check_rtx_home(path, sm)


@pytest.mark.skipif(WHY_NOT is None, reason="it runs here")
def test_where_it_does_not_run_one_sentence_says_what_is_missing(tmp_path: Path) -> None:
    path = vouched(tmp_path, rtx="1.7.1.116", compute_capabilities=[])
    with pytest.raises(BackendUnavailable, match="engines of TensorRT for RTX do not run here: "):
        runner(f"trt-rtx:{path}")


def test_without_a_sidecar_it_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "m.engine").write_bytes(b"plan")
    with pytest.raises(InputError, match="no sidecar"):
        runner(f"trt-rtx:{tmp_path / 'm.engine'}")


# Its header, read by NVIDIA's own code


@needs_rtx
def test_what_is_no_plan_is_told_by_its_header(tmp_path: Path) -> None:
    """In a process of its own; of a good plan nothing is said where there is no GPU."""
    _, engine = built(tmp_path)
    code = (
        "import json, sys; from pathlib import Path; from trt_qat.engine import log; "
        "from trt_qat.engine.aot import load; "
        "from trt_qat.engine.execution.rtx_runner import why_invalid; "
        "trt = load.import_module(); runtime = trt.Runtime(log.make_log(trt)); "
        "print(json.dumps([why_invalid(trt, runtime, plan) "
        "for plan in (bytes(4096), Path(sys.argv[1]).read_bytes())]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, engine], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    junk, good = json.loads(done.stdout.splitlines()[-1])
    assert "its bytes are damaged" in junk
    if not machine.gpus()[0]:
        assert good is None


# The cache of compiled kernels


class Kernels:
    """What the cache object of the library is asked for; the real one needs an engine on a GPU."""

    def __init__(self, *, fits: bool = True) -> None:
        self.fits, self.content = fits, b""

    def create_runtime_cache(self) -> Kernels:
        return self

    def set_runtime_cache(self, cache: object) -> bool:
        return cache is self

    def deserialize(self, blob: bytes) -> bool:
        self.content = blob if self.fits else b""
        return self.fits

    def serialize(self) -> bytes:
        return self.content


def used(path: Path | None, kernels: Kernels, compiled: bytes = b"") -> RuntimeCache:
    cache = RuntimeCache(path)
    cache.attach(kernels)
    kernels.content += compiled
    cache.save()
    return cache


def test_what_is_compiled_is_there_for_the_next_runner(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "m.cache"
    assert not used(path, Kernels(), b"one").taken
    assert path.read_bytes() == b"one"
    assert used(path, Kernels()).taken
    assert path.read_bytes() == b"one"


def test_a_cache_that_does_not_fit_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "m.cache"
    path.write_bytes(b"of another driver")
    assert not used(path, Kernels(fits=False), b"fresh").taken
    assert path.read_bytes() == b"fresh"


def test_without_a_file_or_a_place_for_it_the_engine_runs_all_the_same(tmp_path: Path) -> None:
    used(None, Kernels(), b"one")
    (tmp_path / "file").write_text("no folder")
    used(tmp_path / "file" / "m.cache", Kernels(), b"one")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_each_plan_gpu_and_version_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    path = default_path("nvidia-l4", (8, 9), "1.7.1.116", "ab" * 32)
    assert path.parent == Path("/cache/trt-qat/runtime")
    assert path.name == "nvidia-l4-sm89-rtx1.7.1.116-abababababababab.cache"


# Polygraphy's switch


@needs_rtx
def test_polygraphy_builds_our_files_by_its_switch(tmp_path: Path) -> None:
    """Its name for both wheels is made here as NVIDIA's own package makes it: an import of all."""
    onnx, _ = built(tmp_path)
    if load.module_name() != "tensorrt_rtx":
        shim = (
            "from tensorrt_rtx_bindings import *\nfrom tensorrt_rtx_bindings import __version__\n"
        )
        (tmp_path / "tensorrt_rtx.py").write_text(shim)
    out = tmp_path / "theirs.engine"
    tool = str(Path(sys.executable).with_name("polygraphy"))
    done = subprocess.run(
        [tool, "convert", onnx, "--convert-to", "trt", "--compute-capabilities", "8.9", "-o", out],
        capture_output=True, text=True, timeout=300,
        env=os.environ | {load.POLYGRAPHY_SWITCH: "1", "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert out.stat().st_size > 1000


# On a GPU


@pytest.mark.gpu
@on_gpu
def test_it_computes_what_its_onnx_does_and_keeps_its_kernels(tmp_path: Path) -> None:
    onnx, engine = built(tmp_path)
    with OrtRunner(onnx) as reference:
        (wanted,) = reference.infer(FEED).values()
    with runner(f"trt-rtx:{engine}") as first:
        (got,) = first.infer(FEED).values()
        cache = first.cache.path  # type: ignore[attr-defined]
    assert (metrics.sqnr_db(wanted, got) or np.inf) > 20
    assert cache.is_file()
    with runner(f"trt-rtx:{engine}") as again:
        assert again.cache.taken  # type: ignore[attr-defined]
        (same,) = again.infer(FEED).values()
    assert np.array_equal(same, got)
