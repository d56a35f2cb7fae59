"""A small recipe on real digits, which trains for seconds, and the command line on it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from unittest import mock

from trt_qat import artifact
from trt_qat.cli.app import main

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

WIDE = {"COLUMNS": "200", "NO_COLOR": "1"}
"""The terminal: wide, so that help and tables are not cut where a test looks for words."""


def write_engine(folder: Path, text: str = ENGINE) -> Path:
    path = folder / "small.toml"
    path.write_text(text)
    return path


def wait_for_checkpoint(child: subprocess.Popen[Any], folder: Path) -> None:
    """Wait until a run in another process keeps what it trained, or has ended."""
    deadline = time.monotonic() + 300
    while not list(folder.glob("checkpoints/*/*.pt")) and child.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def command_line(*arguments: str | Path, cwd: Path | None = None) -> CompletedProcess[str]:
    """Run ``trt-qat`` in this process; exit code, results and words are those of its own.

    `own_process` is for what only that has: descriptors that are closed, signals, and what a
    command imports. It costs a hundred times as much.
    """
    words = ["trt-qat", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    code, before = 0, Path.cwd()
    with (
        mock.patch.multiple(sys, argv=words, stdin=io.StringIO()),
        mock.patch.dict(os.environ, WIDE),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        os.chdir(cwd or before)
        try:
            main()
        except SystemExit as left:
            code = int(left.code or 0)
        except Exception:  # as Python ends a process
            traceback.print_exc()
            code = 1
        finally:
            os.chdir(before)
    return CompletedProcess(words, code, out.getvalue(), err.getvalue())


def own_process(*arguments: str | Path, cwd: Path | None = None) -> CompletedProcess[str]:
    """Run ``trt-qat`` as a user does, in a process of its own."""
    return run_by(sys.executable, *arguments, cwd=cwd, environment=os.environ, timeout=120)


def run_by(
    python: str | Path,
    *arguments: str | Path,
    cwd: Path | None,
    environment: Mapping[str, str],
    timeout: float,
) -> CompletedProcess[str]:
    """Run ``trt-qat`` by a Python; its words are returned."""
    return subprocess.run(
        [python, "-m", "trt_qat", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**environment, **WIDE},
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
