"""FP32, FP16 and INT8 side by side: what each costs and answers, as far as can be told here."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from trt_qat import artifact
from trt_qat.engine.build.typed import typed_onnx
from trt_qat.engine.machine import why_not_run
from trt_qat.errors import GraphError, InputError, first_line
from trt_qat.files import read_manifest
from trt_qat.lint.preflight import preflight
from trt_qat.pipeline.answers import answered
from trt_qat.pipeline.stage import Metrics, Run
from trt_qat.runners.ort import OrtRunner

NAME = "precisions.json"
FILES = {"FP32": "fp32.onnx", "FP16": "fp16.onnx", "INT8": "model.onnx"}

SAMPLES = 512
"""Of the test set, the first ones: enough to see that a precision answers otherwise."""

CPU_SENTENCE = (
    "these are onnxruntime's times on this CPU: they say nothing of TensorRT's, neither how fast "
    "an engine is nor which precision is faster there"
)


def precisions(run: Run) -> Metrics:
    """Write ``precisions.json``: size, census of layers, floor on the target and score of each.

    ``fp16.onnx`` is the float model with its weights and layers cast, where FP16 can hold it.
    """
    why = _write_fp16(run)
    rows = [_row(run, name) for name in FILES if run.path(FILES[name]).is_file()]
    document = {
        "target": run.recipe.spec.target,
        "samples": min(SAMPLES, len(run.data.test)),
        "rows": rows,
        "not_made": {} if why is None else {"FP16": why},
        "cpu": CPU_SENTENCE,
    }
    artifact.write_json(run.path(NAME), document)
    return {}


def _write_fp16(run: Run) -> str | None:
    """Write the float model in FP16; return why it cannot be."""
    keep = run.recipe.spec.build.keep_fp32
    try:
        typed_onnx(run.path("fp32.onnx"), run.path("fp16.onnx"), keep)
    except (GraphError, InputError) as error:
        run.path("fp16.onnx").unlink(missing_ok=True)
        return first_line(error)
    return None


def _row(run: Run, name: str) -> dict[str, Any]:
    path = run.path(FILES[name])
    found = preflight(path, run.recipe.spec.target).to_dict()
    with OrtRunner(path) as runner:
        entry = answered(run, runner, SAMPLES).entry
    layers = Counter(layer["precision"] for layer in found["layers"])
    return {
        "precision": name,
        "file": FILES[name],
        "sha256": artifact.sha256_file(path),
        "bytes": path.stat().st_size,
        "layers": dict(sorted(layers.items())),
        "int8_in_int8_out": found["summary"]["int8_in_int8_out"],
        "floor_us": found.get("roofline", {}).get("floor_us"),
        "score": entry,
    }


@artifact.reads_run
def specs_of(folder: Path) -> tuple[list[str], str | None]:
    """Return SPECs of a run's float, FP16 and INT8 model, and the sentence that is due.

    Engines where TensorRT and a GPU are, each to be built for the benchmark; else onnxruntime.

    Raises:
        InputError: the folder has none of them.
    """
    document = read_manifest(folder / "manifest.json", "give the folder of a run, or SPECs")
    made = document.get("artifacts", {}) if isinstance(document, dict) else {}
    have = [name for name in FILES.values() if (folder / name).is_file()]
    if "model.onnx" not in made or len(have) < 2:
        message = f"{folder}: has no fp32.onnx beside its model.onnx; run the recipe again"
        raise InputError(message)
    if why_not_run() is None:
        return [f"trt:{folder / name}" for name in have], None
    kinds = {"model.onnx": "ort-int8"}
    return [f"{kinds.get(name, 'ort')}:{folder / name}" for name in have], CPU_SENTENCE
