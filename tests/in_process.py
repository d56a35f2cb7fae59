"""The command line in this process, which is much quicker than a process of its own."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from trt_qat.cli.app import main


def command_line(
    words: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of a command, ``trt-qat`` being its first word."""
    monkeypatch.setattr("sys.argv", list(words))
    code = 0
    try:
        main()
    except SystemExit as left:
        code = int(left.code or 0)
    told = capsys.readouterr()
    return code, told.out, told.err
