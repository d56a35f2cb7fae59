"""``report.html``: what a run made and proved, on one page that needs nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trt_qat.artifact import write_text
from trt_qat.errors import InputError
from trt_qat.files import reason
from trt_qat.page import bench_charts
from trt_qat.page.page import page

__all__ = ["write"]

PARTS = {
    "metrics": "metrics.json",
    "compare": "compare.json",
    "preflight": "preflight.json",
    "sparsity": "sparsity.json",
    "placement": "placement.json",
    "ranges": "ranges.json",
    "train": "train.history.json",
    "finetune": "finetune.history.json",
}


SENSITIVITY = "sensitivity.json"
"""Of ``trt-qat sensitivity``: no stage of a run writes it, so no manifest names it."""


def write(folder: str | Path) -> Path:
    """Write the report of a run folder and return its path.

    Only files that the run's manifest names are read: a folder may hold older ones. A study of
    sensitivity is read if it is of the run's float model.

    Raises:
        InputError: the folder holds no run, or a file of it is damaged.
    """
    folder = Path(folder)
    manifest = _read(folder / "manifest.json")
    made = manifest.get("artifacts")
    if not isinstance(made, dict):
        message = f"{folder / 'manifest.json'}: not the manifest of a run"
        raise InputError(message)
    parts = {key: _read(folder / name) for key, name in PARTS.items() if name in made}
    if benchmark := bench_charts.of_run(folder, made):
        parts["bench"] = benchmark
    studied = folder / SENSITIVITY
    if studied.is_file():
        found = _read(studied)
        if found.get("fp32") == made.get("fp32.pt"):  # else it is of another float model
            parts["sensitivity"] = found
    return write_text(folder / "report.html", page(manifest, parts))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = f"{path}: no such file; give the folder of a run, such as runs/digits-int8-24"
        raise InputError(message) from error
    except (OSError, ValueError) as error:
        message = f"{path}: cannot be read ({reason(error)}); run the recipe again"
        raise InputError(message) from error
