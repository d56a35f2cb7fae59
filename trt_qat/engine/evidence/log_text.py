"""The messages of any log that TensorRT wrote, whoever printed it.

trtexec puts ``[08/15/2025-14:21:11] [E]`` before a message, the Python bindings ``[TRT] [E]`` or
``[TensorRT] ERROR:``, Polygraphy ``[E]``, DeepStream ``ERROR: [TRT]:``, onnxruntime and
Torch-TensorRT words of their own, Triton those of glog. Terminals add colours and progress bars,
Windows its line ends and UTF-16, and stdout and stderr into one file put two messages on one line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_LINE_END = re.compile(r"\r\n|[\r\n]")
_STAMP = r"\[\d{1,2}/\d{1,2}/\d{4}-\d{1,2}:\d\d:\d\d\]"
_WORDS = r"VERBOSE|DEBUG|INFO|NOTICE|WARNING|WARN|ERROR|INTERNAL[ _]ERROR|FATAL|CRITICAL"
# A second message on the same line: two writers, one file.
_SECOND = re.compile(rf"(?<=[^\s\]])\s*(?={_STAMP} (?:\[TRT\] )?\[[VIWEF]\])")
_QUOTE = re.compile(r"^(?:>\s?)+(?=\[)")  # of an issue
_PREFIXES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_STAMP}",
        r"\[(?:TRT|TensorRT|TRT-RTX|TensorRT-RTX)\](?! (?:" + _WORDS + r")):?",
        r"\[(?P<letter>[VIWEFX!])\]",
        rf"\[TensorRT\] (?P<word>{_WORDS}):",
        rf"TensorRT (?P<word>{_WORDS}):?(?= )",
        rf"(?P<word>{_WORDS}): ?\[(?:TRT|Torch-TensorRT[^\]]*)\](?::| -)",
        rf"(?P<word>{_WORDS}):torch_tensorrt \[[^\]]*\]:",
        rf"\[\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d[.,]?\d*\s+(?P<word>{_WORDS})\]",
        rf"\[\d\d:\d\d:\d\d[.,]?\d*\] ?\[(?P<word>{_WORDS})\]",
        r"\[(?P<letter>[VIWEF]):onnxruntime:[^\]]*\]",
        r"(?P<letter>[IWEF])\d{4} \d\d:\d\d:\d\d\.\d+\s+\d+ [^\]]*\]",
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[.,]\d+: (?P<letter>[IWEF]) [^\]]*\] (?:DefaultLogger )?",
        r"\[[\w.]+-\d+\](?= \[?)",  # a ROS launch file names the process
        r"(?P<word>ERROR|WARNING): (?=[\w./]+\.(?:cpp|h|cu):\d+)",
    )
)
# What runs a container or a service puts before every line: Docker, Kubernetes, journald, compose.
_RUNNER = re.compile(
    r"(?:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[\d.]*(?:Z|[+-]\d\d:?\d\d)(?: std(?:out|err) [FP])?|"
    r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ [\w./-]+(?:\[\d+\])?:|"
    r"[\w.-]+ +\|(?= (?:\[|Layer\(|Name: |&&&&))) "
)
# What nearly every line of a long log begins with, in one step.
_USUAL = re.compile(rf"{_STAMP} (?:\[TRT\] )?\[(?P<letter>[VIWEF])\] (?:\[TRT\] )?(?=[^\[ ])")
_FEW = 100  # one NUL in as many bytes is a serial line's, more are a binary's
_WRAPPED = ("log", "msg", "message", "MESSAGE", "text")
_LETTERS = {"D": "V", "N": "I", "C": "F", "X": "V", "!": "F"}
_LEVELS = "VIWEF"


@dataclass(frozen=True)
class Message:
    """One message of a log, without what its printer put before it.

    Attributes:
        severity: V, I, W, E or F; empty where the line tells none, as in a message's second line.
        text: what is said.
    """

    severity: str
    text: str

    @property
    def is_problem(self) -> bool:
        """Whether it is a warning or worse."""
        return self.severity in ("W", "E", "F")


def decoded(raw: bytes) -> str | None:
    """Return the text of a file that a terminal or PowerShell wrote; None: it is no text."""
    encoding = _encoding(raw)
    if encoding == "utf-8-sig" and b"\0" in raw:
        raw = raw.rstrip(b"\0")  # what a crash leaves behind the last block
        if b"\n" not in raw or raw.count(b"\0") * _FEW > len(raw):
            return None
        raw = raw.replace(b"\0", b"")
    text = raw.decode(encoding, errors="replace")
    # A log may hold a stray byte of another code page; what is no text is full of them.
    return text if text.count("\ufffd") * 10 <= len(text) else None


def _encoding(raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    for encoding, zeros, letters in (("utf-16-le", 1, 0), ("utf-16-be", 0, 1)):  # without a mark
        if raw[zeros:8:2] == b"\0\0\0\0" and b"\0" not in raw[letters:8:2]:
            return encoding
    return "utf-8-sig"


def unwrapped(text: str) -> str | None:
    """Return the lines in a log of JSON objects, one a line, as Docker keeps one; None: it is none.

    The message is under ``log`` (Docker), ``MESSAGE`` (journald), ``msg`` or ``message``.
    """
    said = []
    for line in filter(str.strip, text.splitlines()):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            return None
        told = next((entry[k] for k in _WRAPPED if k in entry), None) if _is_object(entry) else None
        if not isinstance(told, str):
            return None
        said.append(told.rstrip("\r\n"))
    return "\n".join(said) if said else None


def _is_object(entry: object) -> bool:
    return isinstance(entry, dict)


def messages(lines: str | Iterable[str]) -> list[Message]:
    """Return the messages of a log in order, blank lines left out.

    Args:
        lines: the whole text, or its lines as a logger got them; one may hold several.
    """
    chunks = [lines] if isinstance(lines, str) else lines
    return [_message(line) for chunk in chunks for line in _split(chunk) if line.strip()]


def plain(text: str) -> str:
    """Return a log as `trt_qat.engine.log` keeps one: ``[W] text``, whoever printed it."""
    said = map(_message, _split(text))  # blank lines too: one ends a list of names
    return "\n".join(
        f"[{each.severity}] {each.text}" if each.severity else each.text for each in said
    )


def _split(text: str) -> Iterator[str]:
    for line in _LINE_END.split(_ESCAPE.sub("", text)):
        unquoted = _QUOTE.sub("", line) if line.startswith(">") else line
        if unquoted[:1].isalnum() and (runner := _RUNNER.match(unquoted)):
            unquoted = unquoted[runner.end() :]
        # The year of a second stamp: splitting every line of a long log would take seconds.
        yield from _SECOND.split(unquoted) if "/20" in unquoted[8:] else (unquoted,)


def _message(line: str) -> Message:
    if usual := _USUAL.match(line):
        return Message(usual["letter"], line[usual.end() :].rstrip())
    rest, severity = line, ""
    while match := next((m for each in _PREFIXES if (m := each.match(rest))), None):
        groups = match.groupdict()
        told = groups.get("letter") or (groups.get("word") or "")[:1]
        severity = max(severity, _LETTERS.get(told, told), key=_rank)
        rest = rest[match.end() :].lstrip(" ")
    return Message(severity, rest.rstrip())


def _rank(severity: str) -> int:
    return _LEVELS.index(severity) if severity else -1
