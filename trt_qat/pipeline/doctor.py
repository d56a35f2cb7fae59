"""Which stages run on this machine, and what is missing for the rest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from trt_qat import artifact, backends
from trt_qat.engine import machine
from trt_qat.engine.aot import load
from trt_qat.pipeline.plan import PLAN
from trt_qat.pipeline.stage import Stage


@dataclass(frozen=True)
class StageHealth:
    """Whether a stage runs here; if not, ``why`` and the command that installs what it needs."""

    stage: str
    runs: bool
    why: str | None
    install: str | None


_EXTRAS = {
    "build": "pip install 'trt-qat[rtx]', or 'trt-qat[tensorrt]' where a GPU is",
    "score": "where a GPU is: pip install 'trt-qat[tensorrt,gpu]'",
    "bench": "where a GPU is: pip install 'trt-qat[tensorrt,gpu]'",
}
"""Of stages that an engine is made or run in; the others need torch, or nothing."""


def _health(stage: Stage) -> StageHealth:
    why = stage.why_not()
    install = None if why is None else _EXTRAS.get(stage.name, "pip install 'trt-qat[train]'")
    return StageHealth(stage.name, why is None, why, install)


def examine() -> dict[str, Any]:
    """Return the document of ``trt-qat doctor --json``.

    Nothing heavy is imported: packages are looked up, the GPU is a device node.
    """
    stages = [_health(stage) for stage in PLAN]
    return {
        "stages": [asdict(stage) for stage in stages],
        "versions": artifact.versions(),
        "platform": artifact.platform_facts(),
        "gpu": backends.has_gpu(),
        "machine": machine.facts()
        | {
            "rtx": load.version(),
            "why_not_rtx": load.why_not(),
            "why_not_run_rtx": load.why_not_run(),
        },
        "notes": _notes(),
    }


def _notes() -> list[str]:
    notes = _engine_notes()
    if reason := load.why_not_polygraphy():
        notes.append(reason)
    if backends.cpu_has_vnni() is False:
        notes.append(
            "this CPU has no VNNI: onnxruntime's fused INT8 kernels may saturate at 16 bits, so "
            "parity is judged with Q and DQ as float operators (ort:), not with ort-int8:"
        )
    if backends.missing_modules("sklearn"):
        notes.append("the digits data set comes with scikit-learn: pip install 'trt-qat[train]'")
    if not backends.FASHION_FOLDER.is_dir():
        notes.append(
            "Fashion-MNIST is not installed: apt install dataset-fashion-mnist, or set data.path"
        )
    return notes


def _engine_notes() -> list[str]:
    if machine.why_no_engines() is not None:
        return []
    found = machine.bindings()
    if not any(found.values()):
        return ["engines can be built but not run: pip install 'trt-qat[gpu]'"]
    if not found["cuda-python"]:
        return ["CUDA graphs need cuda-python beside pycuda: pip install cuda-python"]
    return []
