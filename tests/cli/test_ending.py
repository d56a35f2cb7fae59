"""SIGTERM ends a command with a sentence, exit code 143 and nothing half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runners.test_ort import linear_onnx
from trt_qat.cli.ending import Terminated, sigterm_raises


def test_sigterm_raises_what_no_handler_of_errors_catches() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert not issubclass(Terminated, Exception)
    with pytest.raises(Terminated), sigterm_raises():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_handler_of_the_callers_is_left_alone() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with sigterm_raises():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_a_command_that_is_terminated_ends_with_143(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    spec = f"ort:{linear_onnx(tmp_path)}"
    command = ["-m", "trt_qat", "bench", spec, "--seconds", "60", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, *command],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"NO_COLOR": "1"},
    )
    assert process.stderr is not None
    process.stderr.readline()  # measuring has begun
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert said.splitlines()[-1] == "ended by SIGTERM: nothing half-written is left"
    assert [path.name for path in tmp_path.iterdir()] == ["linear.onnx"]
