"""``report.html``: what a run made and proved, on one page that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trt_qat import artifact
from trt_qat.artifact import write_text
from trt_qat.errors import InputError
from trt_qat.files import AGAIN, read_json, read_manifest
from trt_qat.gate import verdict
from trt_qat.gate.answers import RunFolder
from trt_qat.page import bench_charts
from trt_qat.page.page import page
from trt_qat.page.samples import changes_of

__all__ = ["write"]

PARTS = verdict.PARTS | {
    "ranges": "ranges.json",
    "precisions": "precisions.json",
    "train": "train.history.json",
    "finetune": "finetune.history.json",
}


SIZED = ("model.onnx", "model.engine", "fp32.pt")
"""Files whose size the page tells."""

SENSITIVITY = "sensitivity.json"
"""Of ``trt-qat sensitivity``: no stage of a run writes it, so no manifest names it."""


@artifact.reads_run
def write(
    folder: str | Path, *, layer_times: Path | None = None, latencies: Path | None = None
) -> Path:
    """Write the report of a run folder and return its path.

    Only files that the run's manifest names are read: a folder may hold older ones. A study of
    sensitivity is read if it is of the run's float model.

    Args:
        folder: of the run.
        layer_times: of ``trtexec --exportProfile`` on the run's engine, shown beside its layers.
        latencies: of ``trtexec --exportTimes`` on it.

    Raises:
        InputError: the folder holds no run, a file of it is damaged, or times are given that are
            not of its engine.
    """
    folder = Path(folder)
    manifest = read_manifest(
        folder / "manifest.json", "give the folder of a run, such as runs/digits-int8-24"
    )
    made = manifest.get("artifacts")
    if not isinstance(made, dict):
        message = f"{folder / 'manifest.json'}: not the manifest of a run"
        raise InputError(message)
    parts = {key: read_json(folder / name, AGAIN) for key, name in PARTS.items() if name in made}
    if benchmark := bench_charts.of_run(folder, made):
        parts["bench"] = benchmark
    if layer_times is not None or latencies is not None:
        parts["engine"] = _timed(folder, parts, layer_times, latencies)
    parts |= _beside(folder, made)
    studied = folder / SENSITIVITY
    if studied.is_file():
        found = read_json(studied, AGAIN)
        if found.get("fp32") == made.get("fp32.pt"):  # else it is of another float model
            parts["sensitivity"] = found
    return write_text(folder / "report.html", page(manifest, parts))


def _beside(folder: Path, made: dict[str, Any]) -> dict[str, Any]:
    """Return what the page shows of files that are not JSON: sizes, a date, changed samples."""
    found: dict[str, Any] = {
        "sizes": {
            name: (folder / name).stat().st_size
            for name in SIZED
            if name in made and (folder / name).is_file()
        }
    }
    sidecar = artifact.read_sidecar(folder / "model.onnx") if "model.onnx" in made else None
    if sidecar is not None and sidecar.written:
        found["date"] = sidecar.written[:10]
    if "answers.npz" in made and (folder / "answers.npz").is_file():
        found["changes"] = changes_of(RunFolder(folder).answers())
    return found


def _timed(
    folder: Path, parts: dict[str, Any], layer_times: Path | None, latencies: Path | None
) -> dict[str, Any]:
    """Return the engine's layers with trtexec's times beside them."""
    from trt_qat.engine.evidence.timed import inspected

    if "engine" not in parts:
        message = f"{folder}: the run built no engine, so there are no layers for these times"
        raise InputError(message)
    return inspected(folder / PARTS["engine"], layer_times, latencies, trust=False).document
