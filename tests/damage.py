"""Damage done at random to a file of text, JSON, an archive or bytes: what readers are fed."""

from __future__ import annotations

import io
import json
import zipfile
from random import Random
from typing import Any

from tests.graph.mutations import bytes_damaged

_ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 1e308, -1e-308, 10**30, float("nan"), float("inf"), "", "x",
    "nan", "\x00", "\x1b[31m", "é\ud800", "../../etc/passwd", "a" * 5000, [], {}, [[]], [None],
    {"": ""}, {"a": {"b": []}}, [1, 2, 3], ["x"], "2026-01-01", "-0", "0x10", [-1, 2**63],
)  # fmt: skip
_TEXT = ("\x00", "\r", "\u2028", "\x1b[2J", '"', "{", "]", "=", "#", "NaN", "1e999", "-", "\ufeff")
_DEEP = 100_000


def damaged(content: bytes, draw: Random) -> bytes:
    """Return a file's content with one to three random damages of its kind."""
    for _ in range(draw.randint(1, 3)):
        content = _once(content, draw)
    return content


def _once(content: bytes, draw: Random) -> bytes:
    if draw.random() < 0.15:
        return _bytes(content, draw)
    if content[:2] == b"PK":
        return _archive(content, draw)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return _bytes(content, draw)
    if text.lstrip()[:1] in ("{", "["):
        try:
            return _json(json.loads(text), draw)
        except (ValueError, RecursionError):
            pass
    return _lines(text, draw)


def _bytes(content: bytes, draw: Random) -> bytes:
    if not content:
        return draw.randbytes(9)
    at, end = draw.randrange(len(content)), draw.randrange(len(content) + 1)
    kind = draw.randrange(6)
    if kind == 4:
        return draw.choice((b"", b"\xff\xfe" + content, content[::-1], b"PK\x03\x04", b"\x80\x04."))
    return bytes_damaged(content, min(kind, 4), at, end, draw)


def _json(document: Any, draw: Random) -> bytes:
    if draw.random() < 0.02:
        return b"[" * _DEEP + b"]" * _DEEP
    places = list(_places(document))
    if not places or draw.random() < 0.05:
        document = draw.choice(_ODD)
    else:
        holder, key = draw.choice(places)
        _change(holder, key, draw)
    return json.dumps(document, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Return every place in a document: what holds it, and its key; a few of long lists."""
    found: list[tuple[Any, Any]] = []
    open_ = [document]
    while open_ and len(found) < 20_000:
        holder = open_.pop()
        keys: Any = holder if isinstance(holder, dict) else range(min(len(holder), 20))
        for key in keys:
            found.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                open_.append(holder[key])
    return found


def _change(holder: Any, key: Any, draw: Random) -> None:
    kind = draw.randrange(4)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[draw.choice(("x", "", "name", f"{key}s"))] = holder.pop(key)
    elif kind == 2 and isinstance(holder, list):
        holder.append(holder[key])
    else:
        holder[key] = draw.choice(_ODD)


def _lines(text: str, draw: Random) -> bytes:
    lines = text.splitlines(keepends=True)
    at = draw.randrange(len(lines)) if lines else 0
    kind = draw.randrange(6)
    if kind == 0 and lines:
        del lines[at]
    elif kind == 1 and lines:
        lines.insert(at, lines[draw.randrange(len(lines))])
    elif kind == 2 and lines:
        lines[at] = lines[at][: draw.randrange(len(lines[at]) + 1)]
    elif kind == 3 and lines:
        words = lines[at].split(" ")
        words[draw.randrange(len(words))] = str(draw.choice(_ODD))
        lines[at] = " ".join(words)
    elif kind == 4:
        lines = lines[:at]
    else:
        lines.insert(at, draw.choice(_TEXT) * draw.choice((1, 1, 40)))
    return "".join(lines).encode("utf-8", "surrogatepass")


def _archive(content: bytes, draw: Random) -> bytes:
    """Damage one member of an archive, or what the archive says of it."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(info, archive.read(info)) for info in archive.infolist()]
    except Exception:  # an archive that is damaged already may raise almost anything
        return _bytes(content, draw)
    if not members:
        return _bytes(content, draw)
    chosen, kind = draw.randrange(len(members)), draw.randrange(5)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for place, (info, held) in enumerate(members):
            name, data = info.filename, held
            if place == chosen:
                if kind == 0:
                    continue
                if kind == 1:
                    name = draw.choice(("../up", "/etc/x", "", "a/" * 300, name + "x", "é\x01"))
                else:
                    data = _once(held, draw) if held[:2] != b"PK" else _bytes(held, draw)
            archive.writestr(name or "-", data)
    return written.getvalue()
