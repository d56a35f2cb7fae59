"""What preflight found, with the mend of each, and what the builder said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trt_qat.page.markup import Cell, Markup, note, section, table, tag
from trt_qat.wording import counted

Document = Mapping[str, Any]

_RANK = {"error": 0, "warning": 1, "info": 2}
_STYLE = {"error": "bad", "warning": "warn", "info": "quiet"}


def findings(parts: Document) -> Iterator[Markup]:
    """Yield the section; nothing where preflight has not run."""
    document = parts.get("preflight")
    if not document:
        return
    counts = document["summary"]
    named = document.get("target")
    target = f"For {named}" if named else "For no target in particular"
    told = document.get("confirmation") or {}
    rows = [
        (
            Cell(tag("b", item["severity"], class_=_STYLE[item["severity"]]),
                 _RANK[item["severity"]]),
            tag("code", item["rule"]),
            tag("code", item["node"]) if item["node"] else "",
            item["message"],
            item.get("mend", ""),
            {True: "confirmed", False: "contradicted"}.get(item.get("confirmed"), ""),
        )
        for item in document["findings"]
    ]  # fmt: skip
    head = ["severity", "rule", "node", "finding", "mend", "NVIDIA's code"]
    if not any(row[5] for row in rows):
        head, rows = head[:5], [row[:5] for row in rows]  # type: ignore[misc]
    shown = (
        table("Findings, the weightiest first", head, rows, set(), wide=3, sortable=True)
        if rows
        else note("No findings.")
    )
    by = f" {told['by']} {'parsed' if told.get('parsed') else 'refused'} it." if told else ""
    yield section(
        "Findings",
        tag(
            "p",
            f"{target}: {counted(counts['errors'], 'error')}, "
            f"{counted(counts['warnings'], 'warning')}.{by}",
        ),
        shown,
        *_of_placement(parts.get("placement") or {}),
        *_warnings(parts.get("engine", {})),
    )


def _of_placement(placement: Document) -> Iterator[Markup]:
    """Yield what quantizing the model warned of: parts left as Python, ranges of nothing."""
    if told := placement.get("warnings"):
        yield tag("h3", "What placement warned of")
        yield tag("ul", *(tag("li", text) for text in told))


def _warnings(engine: Document) -> Iterator[Markup]:
    """Yield what the builder's log says that is known, with its mend."""
    told = [item for item in engine.get("explained", ()) if item.get("severity") != "info"]
    if told:
        rows = [(item["severity"], item["means"], item.get("mend") or "") for item in told]
        yield table("What the builder said", ("severity", "means", "mend"), rows, set(), wide=1)
