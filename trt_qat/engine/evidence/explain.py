"""What the messages of a log mean: ``explanations.toml``, and which of its entries a log holds."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from trt_qat.data.calibration_cache import unpacked
from trt_qat.engine.evidence.log_text import Message, messages

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PARSING = re.compile(r'While parsing node number \d+ \[(?P<op>\S+)(?: -> "(?P<output>[^"]*)")?')
# From 10 on a parser's error names the node itself.
_IN_NODE = re.compile(r"In node -?\d+(?: with name: (?P<name>.*?) and operator: (?P<op>\S+))? \(")
_NODE_NAME = re.compile(r'^(?:\S+\.cpp:\d+: )?name: "(?P<name>[^"]*)"')
_PARSER = re.compile(r"[Ii]mporter|onnx2trt|^\[\d\] |In node -?\d+")
_FAILING = re.compile(r"[Ee]rror|ERROR|Assertion|[Ff]ailed|Could not")
_RANKS = {"": 0, "V": 0, "I": 1, "W": 2, "E": 3, "F": 3}
_WORDS = {0: "info", 1: "info", 2: "warning", 3: "error"}
_ORDER = ("error", "warning", "info")
_FACTS = ("current", "serialized", "expected", "got")
_MOST = 4000
MOST_NODES = 20
"""Nodes that an explanation names; the count says how many messages there were."""


@dataclass(frozen=True)
class Entry:
    """One row of the table; see its head for what the columns hold."""

    id: str
    pattern: re.Pattern[str]
    means: str
    mend: str
    source: str
    example: str
    rule: str | None = None
    fixed: str | None = None
    affects: str | None = None
    quiet: bool = False


@dataclass
class Explained:
    """An entry that a log holds.

    Attributes:
        entry: of the table.
        severity: error, warning or info: the gravest of its messages.
        count: of its messages.
        nodes: that they name, each once, the first `MOST_NODES`.
        facts: versions that they state.
        line: the first of them.
    """

    entry: Entry
    line: str
    severity: str = "info"
    count: int = 0
    nodes: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the document's ``explained``."""
        own = {"id": self.entry.id, "severity": self.severity, "count": self.count}
        told = {"nodes": self.nodes, "line": self.line, "facts": self.facts}
        keys = ("means", "rule", "mend", "fixed", "affects", "source")
        return own | told | {key: getattr(self.entry, key) for key in keys}


@cache
def table() -> tuple[Entry, ...]:
    """Return the entries, in the order in which they are tried."""
    rows = _document()["entry"]
    return tuple(Entry(**row | {"pattern": re.compile(row["pattern"])}) for row in rows)


@cache
def _document() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("explanations.toml").read_text(encoding="utf-8")
    document: dict[str, Any] = tomllib.loads(text)
    return document


def release_of_tag(tag: str) -> str | None:
    """Return which TensorRT is known to write a serialization version; None: not known."""
    found = _document()["tags"].get(tag)
    return None if found is None else str(found["release"])


@cache
def _quick(*, quiet: bool) -> re.Pattern[str]:
    """Return one pattern that finds whatever any entry would: most lines hold nothing."""
    rows = [row for row in table() if row.quiet or not quiet]
    # A group's name may stand once in a pattern.
    bare = (re.sub(r"\(\?P<\w+>", "(?:", row.pattern.pattern) for row in rows)
    return re.compile("|".join(f"(?:{each})" for each in bare))


def is_explained(text: str) -> bool:
    """Tell whether an entry explains a warning or an error."""
    return bool(_quick(quiet=False).search(_shortened(text)))


def explain(log: Iterable[Message]) -> list[Explained]:
    """Return what a log's messages mean, the gravest first, each entry once.

    Informative and verbose messages are explained where their entry says so (``quiet``); those
    without a severity, which continue another or were printed bare, as warnings would be.
    """
    found: dict[str, Explained] = {}
    place = _Place()
    for message in log:
        line = text = _shortened(message.text)
        quiet = message.severity in ("V", "I")
        if not quiet:
            place.hear(text)
        if not quiet and place.operator and _PARSER.search(text):
            text = f"{text} (op {place.operator})"
        if not _quick(quiet=quiet).search(text):
            continue
        for entry in table():
            if (entry.quiet or not quiet) and (match := entry.pattern.search(text)):
                told = found.setdefault(entry.id, Explained(entry, line.strip()))
                _add(told, message, match, place.node)
                break
    return sorted(found.values(), key=lambda each: _ORDER.index(each.severity))


def _shortened(text: str) -> str:
    """Return a text without its middle where it is long: a name may list thousands of nodes."""
    return text if len(text) <= _MOST else f"{text[: _MOST // 2]} ... {text[-_MOST // 2 :]}"


def cause(lines: Iterable[str]) -> str:
    """Return what the gravest error of a log means and its mend; empty where none is known.

    Args:
        lines: as a logger got them.
    """
    grave = [told for told in explain(messages(lines)) if told.severity == "error"]
    if not grave:
        return ""
    entry = grave[0].entry
    rule = f" ({entry.rule} of preflight)" if entry.rule else ""
    return f"that is, {entry.means}{rule}. Mend: {entry.mend}"


@dataclass
class _Place:
    """Which node the parser speaks of, as its messages say before or with an error."""

    node: str = ""
    operator: str = ""

    def hear(self, text: str) -> None:
        """Take a message of the log."""
        if match := _IN_NODE.search(text):
            self.node, self.operator = match["name"] or "", match["op"] or ""
        elif match := _PARSING.search(text):
            self.node, self.operator = match["output"] or match["op"], match["op"]
        elif match := _NODE_NAME.match(text):
            self.node = match["name"] or self.node


def _add(told: Explained, message: Message, match: re.Match[str], place: str) -> None:
    told.count += 1
    rank = max(_rank(message, told.entry), _RANKS[told.severity[:1].upper()])
    told.severity = _WORDS[rank]
    groups = {key: value for key, value in match.groupdict().items() if value}
    told.facts |= {key: groups.pop(key) for key in _FACTS if key in groups}
    names = list(groups.values()) or ([place] if place and _in_parser(message.text) else [])
    for name in names:
        if name not in told.nodes and len(told.nodes) < MOST_NODES:
            told.nodes.append(name)


def _rank(message: Message, entry: Entry) -> int:
    """Return how grave a message is; one without a severity by its words."""
    if message.severity or entry.quiet:
        return _RANKS[message.severity]
    return 3 if _FAILING.search(message.text) else 2


def _in_parser(text: str) -> bool:
    """Tell whether a message is the parser's, so that it speaks of the node being parsed."""
    return bool(_PARSER.search(text))


@dataclass(frozen=True)
class Facts:
    """What a log states of its making.

    Attributes:
        tensorrt: version; None: not told.
        gpu: name of the device.
        compute_capability: of it, ``8.6``.
        outcome: passed, failed, or unfinished where trtexec's log breaks off; None: not told.
    """

    tensorrt: str | None = None
    gpu: str | None = None
    compute_capability: str | None = None
    outcome: str | None = None

    def to_dict(self) -> dict[str, str]:
        """Return those that are told."""
        return {key: value for key, value in vars(self).items() if value}


_STATED: Sequence[tuple[str, re.Pattern[str]]] = (
    ("tensorrt", re.compile(r"&&&& \w+ .*?\[TensorRT(?:-RTX)? v(?P<packed>\d+)\]")),
    ("tensorrt", re.compile(r"(?:TensorRT|trt) [Vv]ersion: (?P<value>\d+\.\d+(?:\.\d+)*)")),
    ("tensorrt", re.compile(r"with TensorRT (?P<value>\d+\.\d+\.\d+(?:\.\d+)?)")),
    ("tensorrt", re.compile(r"libnvinfer\w*\.so\.(?P<value>\d+\.\d+\.\d+)")),
    ("gpu", re.compile(r"^Selected Device: (?P<value>.+)$")),
    ("compute_capability", re.compile(r"^Compute Capability: (?P<value>[\d.]+)$")),
)
_STATING = re.compile(r"&&&&|[Vv]ersion:|with TensorRT|libnvinfer|Device:|Capability|Engine|ail")
_PASSED = re.compile(r"^&&&& PASSED|Engine built in [\d.]+ sec|Engine generation completed in")
_FAILED = re.compile(
    r"^&&&& FAILED|Engine could not be created|Building engine failed|Engine set up failed|"
    r"Failed to parse onnx file|Parsing model failed|failed to build the TensorRT engine"
)


def facts(log: Iterable[Message]) -> Facts:
    """Return what a log states of its version, device and outcome."""
    told: dict[str, str] = {}
    began = False
    for message in log:
        if not _STATING.search(message.text):
            continue
        began = began or message.text.startswith("&&&& RUNNING")
        for key, pattern in _STATED:
            if key not in told and (match := pattern.search(message.text)):
                groups = match.groupdict()
                value = groups.get("value") or unpacked(groups["packed"])
                told |= {key: value} if value else {}
        if _FAILED.search(message.text):
            told["outcome"] = "failed"
        elif told.get("outcome") != "failed" and _PASSED.search(message.text):
            told["outcome"] = "passed"
    if began and "outcome" not in told:
        told["outcome"] = "unfinished"
    return Facts(**told)
