"""Where results and files cannot be written: one sentence and exit code 2, or silence and 141."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.runners.test_ort import linear_onnx


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return linear_onnx(tmp_path_factory.mktemp("onnx"))


def ended(*arguments: str | Path, **given: Any) -> tuple[int, str]:
    """Return exit code and words of a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "trt_qat", *map(str, arguments)],
        stderr=given.pop("stderr", subprocess.PIPE),
        text=True,
        check=False,
        timeout=120,
        env=given.pop("env", os.environ) | {"NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        **given,
    )
    return done.returncode, done.stderr or ""


def pipe_without_a_reader() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.parametrize("arguments", [["--version"], ["preflight", "ONNX", "--json"]])
def test_who_reads_stdout_may_go_and_nothing_is_said(onnx: Path, arguments: list[str]) -> None:
    given = [str(onnx) if each == "ONNX" else each for each in arguments]
    pipe = pipe_without_a_reader()
    try:
        assert ended(*given, stdout=pipe) == (141, "")
    finally:
        os.close(pipe)


def test_a_full_stdout_is_one_sentence_and_no_failed_check(onnx: Path) -> None:
    with Path("/dev/full").open("w") as full:
        code, said = ended("preflight", onnx, "--json", stdout=full)
    assert (code, said) == (2, "error: stdout: cannot be written: No space left on device\n")


def test_a_closed_stdout_is_one_sentence(onnx: Path) -> None:
    code, said = ended("preflight", onnx, "--json", preexec_fn=lambda: os.close(1))
    assert (code, said) == (2, "error: stdout: cannot be written: Bad file descriptor\n")


def test_words_that_cannot_be_said_change_no_exit_code(onnx: Path) -> None:
    with Path("/dev/full").open("w") as full:
        assert ended("preflight", onnx, stdout=subprocess.DEVNULL, stderr=full)[0] == 0
    closed = ended("preflight", onnx, stdout=subprocess.DEVNULL, preexec_fn=lambda: os.close(2))
    assert closed[0] == 0


def test_sarif_goes_to_stdout_between_the_results(onnx: Path) -> None:
    command = [sys.executable, "-m", "trt_qat", "preflight", str(onnx), "--sarif", "/dev/stdout"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert '"$schema"' in done.stdout
    assert "layer" in done.stdout


def no_room() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["preflight", "ONNX", "--sarif", "OUT/a.sarif"], "a.sarif"),
        (["preflight", "ONNX", "--fix", "OUT/a.onnx", "--fp16"], "a.onnx"),
        (["compare", "--ref", "ort:ONNX", "--cand", "ort:ONNX", "--save-outputs", "OUT/a.json"],
         "a.json"),
        (["bundle", "ONNX", "--out", "OUT/b"], "config.pbtxt"),
        (["init", "OUT/project"], "model.py"),
    ],
)  # fmt: skip
def test_a_full_disk_is_one_sentence_that_names_the_file_and_leaves_nothing(
    onnx: Path, tmp_path: Path, arguments: list[str], named: str
) -> None:
    given = [each.replace("ONNX", str(onnx)).replace("OUT", str(tmp_path)) for each in arguments]
    # Under `make coverage` the file of the lines that ran would find no room either.
    unmeasured = {key: value for key, value in os.environ.items() if "COVERAGE" not in key}
    code, said = ended(*given, stdout=subprocess.DEVNULL, preexec_fn=no_room, env=unmeasured)
    last = said.splitlines()[-1]
    assert code == 2
    assert named in last
    assert "File too large" in last
    assert "Traceback" not in said
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
