"""``trt-qat bench``: results on stdout, doubts on stderr."""

from __future__ import annotations

import errno
import gc
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from trt_qat.backends import has_gpu
from trt_qat.benching.timing import Stopwatch
from trt_qat.cli.app import main

QUICK = ("--seconds", "0.02", "--sessions", "1")
LAYERS = "linear.onnx, batch 8: layers that "


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
    assert LAYERS in printed
    assert "not valid" in printed, "a latency under two streams"
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
        (["ort:m.onnx", "--streams", "two"], 2, "error: --streams two: allowed: numbers with com"),
        (["ort:m.onnx", "--streams", "0"], 2, "error: bench: 0 streams; allowed: 1 to 64"),
        (["ort:m.onnx", "--rebuilds", "1"], 2, "error: bench: 1 rebuilds; allowed: 2 and more"),
        (["ort:m.onnx", "--accuracy", "93"], 2, "error: --accuracy 93: allowed: 1 numbers from 0"),
        (["ort:m.onnx", "--accuracy", "a"], 2, "error: --accuracy a: allowed: 1 numbers from 0 t"),
        (["ort:m.onnx", "--accuracy", ".9,.8"], 2, "error: --accuracy .9,.8: allowed: 1 numbers"),
        (["ort:m.onnx", "--out", "."], 2, "error: .: cannot be written: is a folder"),
        (["ort:m.onnx", "--out", "/proc/x/b.json"], 2, "error: /proc/x/b.json: cannot be written"),
        (["ort:m.onnx", "--plot", "/proc/x"], 2, "error: /proc/x/ratio.svg: cannot be wri"),
        (["--from", "none.json"], 2, "error: none.json: no such file"),
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


def test_without_a_gpu_rebuilding_an_engine_is_exit_code_3(
    linear: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    if has_gpu():
        pytest.skip("for machines without a GPU")
    arguments = (f"ort:{linear}", f"trt:{linear}", "--rebuilds", "2")
    code, printed, said = call(monkeypatch, capsys, *arguments)
    assert (code, printed) == (3, "")
    assert said.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in said


def test_an_interrupt_leaves_nothing_behind(
    linear: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """After ten blocks of the timing."""
    count = itertools.count()
    latencies_ms = Stopwatch.latencies_ms

    def interrupted(self: Stopwatch, iterations: int) -> Any:
        if next(count) == 10:
            raise KeyboardInterrupt
        return latencies_ms(self, iterations)

    monkeypatch.setattr(Stopwatch, "latencies_ms", interrupted)
    out, folder = tmp_path / "made" / "bench.json", tmp_path / "plots"
    arguments = (f"ort:{linear}", "--out", str(out), "--plot", str(folder))
    code, printed, said = call(monkeypatch, capsys, *arguments)
    assert (code, printed) == (130, "")
    assert said.splitlines()[-1] == "interrupted: nothing was written"
    assert list(tmp_path.iterdir()) == []
    assert gc.isenabled(), "the collector works again"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_told_before_anything_is_timed(
    linear: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    tmp_path.chmod(0o500)
    code, _, said = call(monkeypatch, capsys, f"ort:{linear}", "--out", str(tmp_path / "b.json"))
    tmp_path.chmod(0o700)
    assert code == 2
    assert "b.json: cannot be written" in said


def test_a_disk_that_fills_meanwhile_is_one_sentence(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    out = tmp_path / "b.json"
    code, _, said = call(monkeypatch, capsys, "--from", str(saved), "--out", str(out))
    assert code == 2
    assert said.startswith(f"error: {out}: cannot be written: No space left on device")
    assert not out.exists()
    assert list(tmp_path.glob(".*")) == []
