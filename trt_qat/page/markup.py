"""HTML as strings, escaped once, where a value becomes text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_VOID = ("input", "meta")


class Markup(str):
    """Text that is HTML already; everything else is escaped when it is put into a tag."""

    __slots__ = ()


@dataclass(frozen=True)
class Cell:
    """A cell of a table whose rows are sorted by something else than its text.

    Attributes:
        shown: what stands in it.
        value: what it is sorted by; None: it sorts last.
    """

    shown: object
    value: object


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
    end = "" if name in _VOID else f"</{name}>"
    return Markup(f"<{name}{shown}>{join(children)}{end}")


def join(parts: Iterable[object]) -> Markup:
    """Return parts one after the other."""
    return Markup("".join(escape(part) for part in parts))


def table(
    caption: str,
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    numeric: set[int],
    wide: int | None = None,
    *,
    kinds: Sequence[str] = (),
    sortable: bool = False,
    id_: str | None = None,
) -> Markup:
    """Return a table; on a narrow page each row of it is a card, with the titles in it.

    Args:
        caption: read out by screen readers, and shown.
        head: one title per column.
        rows: cells, `Cell` among them; the first of each row is its header.
        numeric: columns that are aligned to the right.
        wide: column of sentences, which keeps a readable width.
        kinds: words of each row, to filter by.
        sortable: a click on a title sorts by it.
        id_: of the table.
    """

    def kind(column: int) -> str | None:
        return "number" if column in numeric else "wide" if column == wide else None

    def title(cell: object) -> object:
        return tag("button", cell, type="button") if sortable and cell != "" else cell

    titles = [tag("th", title(cell), scope="col", class_=kind(i)) for i, cell in enumerate(head)]
    lines = []
    for number, row in enumerate(rows):
        cells = [_cell("th", row[0], None, kind(0))]
        cells += [_cell("td", cell, head[i], kind(i)) for i, cell in enumerate(row) if i]
        lines.append(tag("tr", *cells, data_kind=kinds[number] if kinds else None))
    whole = tag(
        "table",
        tag("caption", tag("span", caption)),
        tag("thead", tag("tr", *titles)),
        tag("tbody", *lines),
        class_="sortable" if sortable else None,
        id=id_,
    )
    # Focusable, so that it can be scrolled with the keyboard.
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _cell(name: str, cell: object, title: object, kind: str | None) -> Markup:
    shown, value = (cell.shown, cell.value) if isinstance(cell, Cell) else (cell, None)
    sorts = None if not isinstance(cell, Cell) else "" if value is None else value
    label = title if isinstance(title, str) and not isinstance(title, Markup) else None
    scope = "row" if name == "th" else None
    empty = shown == "" or None
    return tag(name, shown, scope=scope, class_=kind, data_v=sorts,
               data_label=label or None, data_empty=empty and "")  # fmt: skip


def anchor(title: str) -> str:
    """Return the id of a section."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def section(title: str, *children: object) -> Markup:
    """Return a section with its heading, which links to itself."""
    name = anchor(title)
    link = tag("a", "#", href=f"#{name}", class_="anchor", aria_label=f"Link to {title}")
    return tag("section", tag("h2", title, " ", link), *children, id=name)


def note(text: object) -> Markup:
    """Return a paragraph in the quieter colour."""
    return tag("p", text, class_="note")


def folded(title: str, *children: object) -> Markup:
    """Return a part that is closed until it is asked for."""
    return tag("details", tag("summary", title), join(children))
