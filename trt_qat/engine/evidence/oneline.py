"""The inspector's text form (``LayerInformationFormat.ONELINE``) as the objects of its JSON form.

A layer is one line: ``Name: conv1 + relu1, LayerType: CaskConvolution, Inputs: [ { Name: x, ...``.
Names hold brackets and commas of their own, so a comma parts two entries only outside brackets and
where a key follows it.
"""

from __future__ import annotations

import re
from typing import Any

_KEY = re.compile(r"[A-Z][A-Za-z/]*:(?: |$)")
_OPEN, _CLOSE = "[{(", "]})"


def parse(text: str) -> dict[str, Any] | None:
    """Return ``{"Layers": [...], "Bindings": [...]}``, or None if the text is not of this form."""
    lines = text.splitlines()
    layers = [_fields(line) for line in lines if line.startswith("Name: ")]
    if not layers or "Layers:" not in (line.strip() for line in lines):
        return None
    document: dict[str, Any] = {"Layers": layers}
    for header in ("Bindings:", "I/O Tensors:"):
        if header in lines:
            rest = lines[lines.index(header) + 1 :]
            names = rest[: rest.index("")] if "" in rest else rest
            document[header[:-1]] = _io(names)
    return document


def _io(lines: list[str]) -> list[Any]:
    # TensorRT for RTX indents these lines.
    return [_fields(line) if line.startswith("Name: ") else line for line in map(str.strip, lines)]


def _fields(line: str) -> dict[str, Any]:
    entries = {}
    for part in _split(line):
        key, _, value = part.partition(":")
        entries[key.strip()] = _value(value.strip())
    return entries


def _value(text: str) -> Any:
    if text.startswith("["):
        inner = text[1 : text.rfind("]")].strip()
        if inner.startswith("{"):
            return [_fields(group[1:-1].strip()) for group in _groups(inner)]
        if text.startswith("[ONNX"):
            return text  # metadata: not a list, though it begins like one
        return [int(size) for size in re.findall(r"-?\d+", inner)]
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def _split(line: str) -> list[str]:
    """Part a line at the commas that a key follows, outside brackets."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(line):
        depth += (character in _OPEN) - (character in _CLOSE)
        if character == "," and depth == 0 and _KEY.match(line, at + 2):
            parts.append(line[start:at])
            start = at + 2
    return [*parts, line[start:]]


def _groups(text: str) -> list[str]:
    """Return the outermost ``{ ... }`` of a text."""
    groups, depth, start = [], 0, 0
    for at, character in enumerate(text):
        if character == "{":
            start = at if depth == 0 else start
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                groups.append(text[start : at + 1])
    return groups
