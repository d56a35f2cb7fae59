"""Hostile models through the command line: exit 2 and one sentence, or findings; no traceback."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.graph.hostile import JUDGED, REFUSED
from trt_qat.cli.app import main


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The exit code of ``trt-qat preflight``; anything but ours would escape as it is."""
    monkeypatch.setattr(sys, "argv", ["trt-qat", "preflight", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, reason = REFUSED[name]
    path = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert _run(monkeypatch, path, "--fix", tmp_path / "out.onnx", "--fp16") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert reason in printed.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", JUDGED)
def test_it_is_judged(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, rules = JUDGED[name]
    arguments = (make(tmp_path), "--target", "a100", "--tensorrt", "8.6", "--json")
    assert _run(monkeypatch, *arguments) in (0, 1)
    document = json.loads(capsys.readouterr().out)
    assert rules <= {finding["rule"] for finding in document["findings"]}


@pytest.mark.parametrize("name", JUDGED)
def test_it_is_printed_and_mended_or_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.onnx"
    path = JUDGED[name][0](tmp_path)
    code = _run(monkeypatch, path, "--fix", out, "--fp16", "--junit", tmp_path / "j.xml")
    printed = capsys.readouterr()
    assert code in (0, 1, 2)
    assert out.exists() == (code != 2)
    assert "\x1b" not in printed.out + printed.err
    if code == 2:
        assert printed.err.startswith("error: ")
