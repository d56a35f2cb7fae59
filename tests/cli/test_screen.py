"""What is printed does nothing to a terminal, whatever a model's parts are called."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, save_model
from rich.table import Table
from rich.text import Text

from tests.runs import command_line
from trt_qat.cli.screen import complain, results

EVIL = "a\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def hostile() -> ModelProto:
    """A network of two layers whose names are commands of a terminal."""
    one = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], [f"t{EVIL}"], name=f"m{EVIL}"),
        helper.make_node("Relu", [f"t{EVIL}"], [f"y{EVIL}"], name=f"r{EVIL}"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info(f"y{EVIL}", TensorProto.FLOAT, [1, 4])],
        [one],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def controls(text: str) -> set[str]:
    return {c for c in text if not c.isprintable() and c != "\n"}


def test_a_name_moves_no_cursor_and_colours_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    table = Table(EVIL)
    table.add_row(EVIL)
    results().print(table, Text(EVIL, style="bold red"))
    printed = screen.getvalue()
    assert "\x1b[1;31m" in printed, "rich's own"
    assert controls(printed) == {"\x1b"}
    assert "\x1b]" not in printed
    assert "\x1b[2J" not in printed
    assert r"\x1b[2J\x9b31m\u202e" in printed


def test_words_are_harmless_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    complain(f"warning: {EVIL}")
    assert controls(screen.getvalue()) == set()


def test_a_long_sentence_stays_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen := io.StringIO())
    complain("word " * 60 + "end")
    assert screen.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["preflight", "PATH"],
        ["compare", "--ref", "ort:PATH", "--cand", "ort:PATH"],
        ["bench", "ort:PATH", "--layers", "--seconds", "0.05", "--sessions", "1"],
    ],
)
def test_no_command_hands_a_name_to_the_terminal(
    tmp_path_factory: pytest.TempPathFactory, arguments: list[str]
) -> None:
    path = tmp_path_factory.mktemp("evil") / "m.onnx"
    save_model(hostile(), path)
    done = command_line(*(each.replace("PATH", str(path)) for each in arguments))
    assert "Traceback" not in done.stderr
    assert "owned" in done.stdout
    assert controls(done.stdout + done.stderr) == set()
