"""HTML as strings, escaped once, where a value becomes text."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


class Markup(str):
    """Text that is HTML already; everything else is escaped when it is put into a tag."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """Return a value as HTML text, unless it is HTML already."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value), quote=True))


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """Return an element; ``class_`` and ``stroke_width`` are written class and stroke-width."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{shown}>{join(children)}</{name}>")


def join(parts: Iterable[object]) -> Markup:
    """Return parts one after the other."""
    return Markup("".join(escape(part) for part in parts))


def table(
    caption: str,
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    numeric: set[int],
    wide: int | None = None,
) -> Markup:
    """Return a table that scrolls sideways in itself where the page is narrow.

    Args:
        caption: read out by screen readers, and shown.
        head: one title per column.
        rows: cells; the first of each row is its header.
        numeric: columns that are aligned to the right.
        wide: column of sentences, which keeps a readable width on a narrow page.
    """

    def kind(column: int) -> str | None:
        return "number" if column in numeric else "wide" if column == wide else None

    titles = [tag("th", cell, scope="col", class_=kind(i)) for i, cell in enumerate(head)]
    lines = []
    for row in rows:
        cells = [tag("th", row[0], scope="row", class_=kind(0))]
        cells += [tag("td", cell, class_=kind(i)) for i, cell in enumerate(row) if i]
        lines.append(tag("tr", *cells))
    whole = tag(
        "table",
        tag("caption", tag("span", caption)),
        tag("thead", tag("tr", *titles)),
        tag("tbody", *lines),
    )
    # Focusable, so that it can be scrolled with the keyboard.
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def section(title: str, *children: object) -> Markup:
    """Return a section with its heading."""
    return tag("section", tag("h2", title), *children)


def note(text: object) -> Markup:
    """Return a paragraph in the quieter colour."""
    return tag("p", text, class_="note")
