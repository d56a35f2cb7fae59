"""Engines as tables for people; the stable form is ``--json``."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

MIB = 1 << 20


def census_table(document: dict[str, Any]) -> Group:
    """Return the counts of an engine, and what its build log proves."""
    census = document["census"]
    table = Table("", "layers", box=None, pad_edge=False)
    table.add_row("all, profile 0", str(census["layers"]))
    for title, counts in _counts(census):
        table.add_row(title, counts)
    return Group(table, Text(), Text("\n".join(_sentences(document))))


def _counts(census: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("by purpose", _joined(census["purpose"])),
        ("computing in", _joined(census["precision"])),
        ("INT8 in, INT8 out", str(census["int8_in_int8_out"])),
        ("INT8 in, float out", str(census["int8_in_float_out"])),
        ("kernels", _joined(census["sparse"])),
        ("with 2:4 weights", str(census["sparse_weights"])),
    ]


def _joined(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in ordered) or "none"


def _sentences(document: dict[str, Any]) -> list[str]:
    lines = []
    if not document["detailed"]:
        lines.append(
            "names only: build with build.verbosity = 'detailed' (the default of `trt-qat build`) "
            "for precisions and kernels"
        )
    sparsity = document["sparsity"]
    if sparsity is not None:
        lines.append(
            f"sparsity: found {sparsity['found']} layers with 2:4 weights, chose a sparse kernel "
            f"for {sparsity['chose']}"
        )
    elif not document["log"]:
        lines.append("sparsity: the build log is not at hand; kernel names alone tell")
    if document["skipped_tactics"]:
        size = document["largest_request_bytes"] / MIB
        lines.append(
            f"memory: {document['skipped_tactics']} kernels were skipped for want of memory, the "
            f"largest wanted {size:.0f} MiB; the engine may be slower than it could be"
        )
    elif document["short_workspace"]:
        lines.append("memory: the workspace limit kept kernels out; raise build.workspace_mib")
    return lines


def layer_table(document: dict[str, Any]) -> Table:
    """Return one row for each layer of profile 0."""
    table = Table("layer", "type", "in", "out", "computes", "2:4", "kernel", box=None)
    for layer in document["layers"]:
        if layer["profile"]:
            continue
        table.add_row(
            layer["name"],
            layer["type"],
            _types(layer["precision_in"]),
            _types(layer["precision_out"]),
            layer["precision"] or layer["purpose"],
            layer["sparse"],
            layer["tactic"],
        )
    return table


def _types(types: list[str | None]) -> str:
    return " ".join(kind or "?" for kind in types)


def difference_table(differences: dict[str, Any], first: str, second: str) -> Group:
    """Return the counts of two engines side by side, and the layers that differ."""
    a, b = differences["census"]
    counts = Table("", first, second, box=None, pad_edge=False)
    counts.add_row("layers", str(a["layers"]), str(b["layers"]))
    for (title, ours), (_, theirs) in zip(_counts(a), _counts(b), strict=True):
        counts.add_row(title, ours, theirs)
    for key in ("found", "chose"):
        cells = [str(each[key]) if each else "" for each in differences["sparsity"]]
        if any(cells):
            counts.add_row(f"sparsity {key}", *cells)
    changed = Table("layer", "what", first, second, box=None, pad_edge=False)
    for entry in differences["changed"]:
        fields = [key for key in entry if key != "name"]
        for key in fields:
            name = entry["name"] if key == fields[0] else ""
            changed.add_row(name, key, *(_cell(value) for value in entry[key]))
    lines = [f"only in {first}: {name}" for name in differences["only_a"]]
    lines += [f"only in {second}: {name}" for name in differences["only_b"]]
    if not (lines or differences["changed"]):
        lines = ["no layer differs"]
    return Group(counts, Text(), changed, Text("\n".join(lines)))


def _cell(value: Any) -> str:
    return _types(list(value)) if isinstance(value, (list, tuple)) else str(value)
