"""Whoever printed a log, the message and its severity are the same."""

from __future__ import annotations

import json

import pytest

from trt_qat.engine.evidence.log_text import Message, decoded, messages, unwrapped

PRINTED = {
    "trtexec": ("[08/15/2025-19:33:23] [E] [TRT] told", "E"),
    "Python bindings": ("[08/15/2025-19:33:23] [TRT] [E] told", "E"),
    "TensorRT 7 and 8.0": ("[TensorRT] WARNING: told", "W"),
    "Polygraphy": ("[V]     told", "V"),
    "DeepStream": ("ERROR: [TRT]: told", "E"),
    "Triton": ("E0915 01:26:07.509101 1 logging.cc:43] told", "E"),
    "onnxruntime": (
        "[E:onnxruntime:Default, tensorrt_execution_provider.h:51 log] "
        "[2021-12-15 07:23:33   ERROR] told",
        "E",
    ),
    "Torch-TensorRT": ("WARNING: [Torch-TensorRT TorchScript Conversion Context] - told", "W"),
    "Torch-TensorRT, dynamo": ("ERROR:torch_tensorrt [TensorRT Conversion Context]:told", "E"),
    "a Python logger": ("[2022-11-08 06:01:58 WARNING] told", "W"),
    "colours": ("\x1b[31m[08/15/2025-19:33:23] [TRT] [E] told\x1b[0m", "E"),
    "an issue's quotation": ("> [07/28/2024-14:46:37] [TRT] [I] told", "I"),
    "two stamps": ("[07/29/2021-19:44:10] [07/29/2021-19:44:10] [W] [TRT] told", "W"),
    "no printer": ("told", ""),
}


@pytest.mark.parametrize("printer", PRINTED)
def test_what_stands_before_a_message_is_taken_off(printer: str) -> None:
    line, severity = PRINTED[printer]
    assert messages(line) == [Message(severity, "told")]


def test_ends_of_lines_and_progress_bars_part_messages() -> None:
    text = "[I] a\r\n[====>    ] 40 %\r[=========] 100 %\r[I] b\n"
    assert [each.text for each in messages(text)] == [
        "a",
        "[====>    ] 40 %",
        "[=========] 100 %",
        "b",
    ]


def test_two_writers_on_one_line_are_two_messages() -> None:
    """Stdout and stderr of trtexec in one file."""
    line = "Average on 10 runs - GPU[08/15/2025-19:33:23] [W] [TRT] told"
    assert messages(line) == [Message("", "Average on 10 runs - GPU"), Message("W", "told")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_file_of_powershell_is_text(encoding: str) -> None:
    assert decoded("[W] told\r\n".encode(encoding)) == "[W] told\r\n"


def test_a_stray_byte_does_not_make_a_log_binary() -> None:
    text = decoded(b"[W] told by M\xfcller\n" * 20)
    assert text is not None
    assert len(messages(text)) == 20


@pytest.mark.parametrize("raw", [b"ftrt\x00\x00\x00\x00", bytes(range(128, 256))])
def test_a_plan_is_no_text(raw: bytes) -> None:
    assert decoded(raw) is None


@pytest.mark.parametrize(
    "ahead",
    [
        "2024-05-17T17:06:02.351065690Z ",
        "2024-05-17T17:06:02.351065690+02:00 stderr F ",
        "May 17 17:06:02 jetson trtexec[1234]: ",
        "builder-1  | ",
    ],
    ids=["docker", "kubernetes", "journald", "compose"],
)
def test_what_runs_a_program_writes_before_each_line(ahead: str) -> None:
    lines = ("[05/17/2024-17:06:02] [E] [TRT] told", "Layer(Conv): a, Tactic: 1, x -> y")
    found = messages("".join(f"{ahead}{line}\n" for line in lines))
    assert found == [Message("E", "told"), Message("", lines[1])]


@pytest.mark.parametrize("key", ["log", "msg", "message", "MESSAGE"])
def test_a_log_of_json_lines_is_unwrapped(key: str) -> None:
    text = "".join(json.dumps({key: f"[E] {said}\n", "time": 3}) + "\n" for said in "ab")
    assert unwrapped(text) == "[E] a\n[E] b"
    assert unwrapped(text + "[E] c\n") is None
    assert unwrapped('{"Layers": []}') is None


def test_what_a_crash_or_a_serial_line_leaves_is_no_reason_to_refuse() -> None:
    assert decoded(b"[W] told\n" * 20 + b"\0" * 4096) == "[W] told\n" * 20
    assert decoded(b"[W] told\n" * 20 + b"\0[W] told") == "[W] told\n" * 20 + "[W] told"
