"""A small recipe on real digits, which trains for seconds, for the tests of whole runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trt_qat import artifact

ENGINE = """
name = "small"

[model]
factory = "residual_cnn"
args = { widths = [16, 16], num_classes = 10 }

[data]
source = "digits"

[calibration]
samples = 32

[train]
epochs = 4
batch_size = 64
lr = 1e-2

[finetune]
epochs = 1
batch_size = 64

[build]
backend = "tensorrt" # TensorRT for RTX would build here too: tests/pipeline/test_engine_stage.py

[tolerances]
accuracy_loss = 1.0
"""


def write_engine(folder: Path, text: str = ENGINE) -> Path:
    path = folder / "small.toml"
    path.write_text(text)
    return path


def command_line(
    *arguments: str | Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``trt-qat`` as a user does, in a process of its own."""
    return run_by(sys.executable, *arguments, cwd=cwd, environment=os.environ, timeout=120)


def run_by(
    python: str | Path,
    *arguments: str | Path,
    cwd: Path | None,
    environment: Mapping[str, str],
    timeout: float,
) -> subprocess.CompletedProcess[str]:
    """Run ``trt-qat`` by a Python; its words are returned."""
    return subprocess.run(
        [python, "-m", "trt_qat", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        # A wide terminal, so that help and tables are not cut where a test looks for words.
        env={**environment, "COLUMNS": "200", "NO_COLOR": "1"},
        check=False,
        timeout=timeout,
    )


def edit(run: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change a JSON file of a run as if the run had written it so."""
    document = json.loads((run / name).read_text())
    change(document)
    artifact.write_json(run / name, document)
    if name != "manifest.json":
        digest = artifact.sha256_file(run / name)
        edit(run, "manifest.json", lambda manifest: manifest["artifacts"].update({name: digest}))
