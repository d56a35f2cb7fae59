"""``trt-qat bench``: results on stdout, doubts on stderr."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from trt_qat.cli import main

QUICK = ("--seconds", "0.02", "--sessions", "1")


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """Run the command in this process; return its exit code and what it printed."""
    monkeypatch.setattr(sys, "argv", ["trt-qat", "bench", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    printed = capsys.readouterr()
    return int(stop.value.code or 0), printed.out, printed.err


@pytest.fixture
def saved(document: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "saved.json"
    path.write_text(json.dumps(document))
    return path


def test_a_benchmark_is_printed_as_json_and_written(
    linear: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out = tmp_path / "bench.json"
    arguments = (f"ort:{linear}", "--batch", "1,4", "--json", "--out", str(out), *QUICK)
    code, printed, said = call(monkeypatch, capsys, *arguments)
    assert code == 0, said
    document = json.loads(printed)
    assert document == json.loads(out.read_text())
    assert [run["batch"] for run in document["runs"]] == [1, 4]
    for warning in document["warnings"]:
        assert f"warning: {warning}" in said


def test_a_saved_result_is_shown_and_drawn_without_measuring(
    saved: Path,
    document: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    folder = tmp_path / "plots"
    code, printed, said = call(monkeypatch, capsys, "--from", str(saved), "--plot", str(folder))
    assert code == 0, said
    assert "ort-int8:linear.onnx" in printed
    assert f"{document['runs'][0]['latency_ms']['p50']:.4g}" in printed
    assert document["ratios"][0]["verdict"] in printed
    assert "x floor" in printed
    assert (folder / "sweep.svg").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "error: bench: give SPECs to time, or --from bench.json"),
        (["ort:none.onnx"], 2, "error: none.onnx: no such file"),
        (["onnx:m.onnx"], 2, "error: 'onnx:m.onnx' is no SPEC"),
        (["ort:m.onnx", "--batch", "1;2"], 2, "error: --batch 1;2: allowed: numbers with commas"),
        (["ort:m.onnx", "--sessions", "2"], 2, "error: bench: 2 sessions; allowed: 1, or 6"),
        (["ort:m.onnx", "--data", "none.npz"], 2, "error: none.npz: cannot be read as an .npz"),
        (["--from", "none.json"], 2, "error: none.json: cannot be read as JSON"),
        (["ort:m.onnx", "--from", "none.json"], 2, "error: bench: give SPECs to time, or --from"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, printed, said = call(monkeypatch, capsys, *arguments)
    assert (found, printed) == (code, "")
    assert said.startswith(message)
    assert said.count("\n") == 1
