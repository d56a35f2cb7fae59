"""Engines as tables for people; the stable form is ``--json``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from trt_qat.cli.tables.log import facts_line, performance_line
from trt_qat.cli.tables.names import Name
from trt_qat.cli.tables.times import layer_times_table
from trt_qat.engine.evidence.layer_info import (
    BUILD_LOG,
    INSPECTORS,
    METADATA,
    PLAN_HEADER,
    PROFILE,
)
from trt_qat.engine.evidence.sides import MB, moved, sentence
from trt_qat.wording import counted

MIB = 1 << 20


def census_table(document: dict[str, Any]) -> Group:
    """Return the counts of an engine, and what its build log proves."""
    table = Table("", "layers", box=None, pad_edge=False)
    for title, counts in _counts(document["census"]).items():
        if counts:
            table.add_row(title, counts)
    lines = Text("\n".join(_sentences(document)))
    return Group(table, Text(), lines) if table.rows else Group(lines)


def _counts(census: dict[str, Any]) -> dict[str, str]:
    """Return what is counted by its title, empty where it is not told."""
    return {
        "all, profile 0": _number(census["layers"]),
        "by purpose": _joined(census["purpose"]),
        "computing in": _joined(census["precision"]),
        "INT8 in, INT8 out": _number(census["int8_in_int8_out"]),
        "INT8 in, float out": _number(census["int8_in_float_out"]),
        "INT8, in and out not told": _number(census.get("int8_not_told") or None),
        "kernels": _joined(census["sparse"]),
        "with 2:4 weights": _number(census["sparse_weights"]),
    }


def _moved(document: dict[str, Any]) -> list[str]:
    """Return sentences on what a listing tells beside layers: bytes, memory, agreement."""
    lines = []
    traffic = document.get("traffic")
    if traffic and traffic["bytes_read"] is not None:
        moved = (traffic["bytes_read"] + traffic["bytes_written"]) / 1e6
        at = document["source"].get("shapes") or {}
        shapes = ", ".join(f"{name} {'x'.join(map(str, dims))}" for name, dims in at.items())
        lines.append(
            f"{counted(traffic['kernels'], 'kernel')} that read and write {moved:.3g} MB of "
            f"activations an inference{f' ({shapes})' if shapes else ''}"
        )
    if sides := document.get("against_fp16"):
        lines.append(sentence(sides))
    agreed = document.get("agreement")
    if agreed:
        known = agreed.get("foreseen", 0)
        lines.append(
            f"preflight predicted the precision of {agreed['precision']} of {agreed['found']} "
            f"weighted layers right{f', and {known} float on this compiler' if known else ''}"
        )
        lines += [_differing(entry) for entry in agreed["differ"]]
    return lines


def _differing(entry: dict[str, Any]) -> str:
    why = f": {entry['why']}" if entry["why"] else ""
    listed = entry["listed"] or "not listed"
    return f"  {entry['name']}: predicted {entry['predicted']}, {listed}{why}"


def _number(count: int | None) -> str:
    return "" if count is None else str(count)


def _joined(counts: dict[str, int] | None) -> str:
    if counts is None:
        return ""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in ordered) or "none"


def _sentences(document: dict[str, Any]) -> list[str]:
    lines = [line for line in (facts_line(document), performance_line(document)) if line]
    lines += [*_about_runs(document), *_about_layers(document)]
    sparsity = document["sparsity"]
    if sparsity is not None:
        lines.append(
            f"sparsity: found {counted(sparsity['found'], 'layer')} with 2:4 weights, chose a "
            f"sparse kernel for {sparsity['chose']}"
        )
    elif not document["log"] and document["inspector"] in INSPECTORS:
        lines.append("sparsity: the build log is not at hand; kernel names alone tell")
    if document["skipped_tactics"]:
        size = document["largest_request_bytes"] / MIB
        lines.append(
            f"memory: {counted(document['skipped_tactics'], 'tactic')} skipped for want of memory, "
            f"the largest wanted {size:.4g} MiB; the engine may be slower than it could be"
        )
    elif document["short_workspace"]:
        lines.append("memory: the workspace limit kept kernels out; raise build.workspace_mib")
    return lines + _moved(document)


def _about_runs(document: dict[str, Any]) -> list[str]:
    """Return what a log that is not of one build mixes."""
    lines = [] if document["inspector"] == PLAN_HEADER else list(document.get("notes", []))
    if "runs" in document:
        lines.append(
            f"the log is of {document['runs']} runs of trtexec: layers, counts and times are of "
            "the last one, messages are explained of all"
        )
    if "engines" in document:
        lines.append(
            f"the builder lists {document['engines']} engines here, and their layers are counted "
            "together; cut the log to see one"
        )
    return lines


def _about_layers(document: dict[str, Any]) -> list[str]:
    """Return what a document without an inspector's details lacks, and how to get it."""
    export = "`trtexec --exportLayerInfo=FILE --profilingVerbosity=detailed` writes"
    if document["inspector"] == PLAN_HEADER:
        return [_plan(document["source"]), *document["notes"]]
    if document["inspector"] == METADATA:
        asked = ", ".join(f"{key}: {value}" for key, value in document["options"].items())
        return [*([asked] if asked else []), f"a run's metadata; its layers are in what {export}"]
    if document["inspector"] == PROFILE:
        runs, total = document["profile"]["runs"], document["profile"]["sum_ms"]
        return [
            f"times of trtexec over {counted(runs, 'run')}, {total:.4g} ms in all layers together; "
            f"give --profile with what {export} for types and kernels"
        ]
    if document["inspector"] == BUILD_LOG:
        if document["detailed"]:
            return [f"a builder's log: it tells types and no kernels, which {export}"]
        grave = any(told["severity"] == "error" for told in document.get("explained", []))
        if not document["layers"] and grave:
            return []  # what failed has no layers to tell
        known = "names the layers" if document["layers"] else "lists no layers"
        return [f"a log: it {known} and tells no types; inspect the engine, or what {export} of it"]
    if not document["detailed"]:
        return [
            "names only: build with build.verbosity = 'detailed' (the default of `trt-qat build`) "
            "for precisions and kernels"
        ]
    return _hidden(document)


def _hidden(document: dict[str, Any]) -> list[str]:
    """Return why INT8 layers do not tell what they read and write."""
    count = document["census"].get("int8_not_told") or 0
    if not count:
        return []
    return [
        f"{counted(count, 'INT8 layer')} without types of inputs and outputs: TensorRT 8 hides "
        "those of dynamic shapes; an engine of one shape (build.batch = [8, 8, 8]) tells them"
    ]


def _plan(source: dict[str, Any]) -> str:
    version = source.get("tensorrt") or source.get("tensorrt_rtx") or "of an unknown version"
    sm = ", for compute capability " + ".".join(map(str, source["sm"])) if "sm" in source else ""
    return f"a plan of {source['backend']} {version}{sm}, {source['bytes'] / MIB:.1f} MiB"


def layer_table(document: dict[str, Any]) -> Table:
    """Return one row for each layer of profile 0."""
    layers = [layer for layer in document["layers"] if not layer["profile"]]
    timed = ["ms"] if any("time_ms" in layer for layer in layers) else []
    if not document["detailed"]:
        table = Table("layer", "type", "kernel", *timed, box=None)
        for layer in layers:
            told = (Text(layer[key]) for key in ("type", "tactic"))
            table.add_row(Name(layer["name"]), *told, *_time(layer, timed))
        return table
    table = Table("layer", "type", "in", "out", "computes", "2:4", "kernel", *timed, box=None)
    for layer in layers:
        table.add_row(
            Name(layer["name"]),
            layer["type"],
            _types(layer["precision_in"]),
            _types(layer["precision_out"]),
            layer["precision"] or layer["purpose"],
            layer["sparse"],
            layer["tactic"],
            *_time(layer, timed),
        )
    return table


def _time(layer: dict[str, Any], timed: list[str]) -> list[str]:
    if not timed:
        return []
    return ["" if layer.get("time_ms") is None else f"{layer['time_ms']:.4f}"]


def _types(types: list[str | None]) -> str:
    return " ".join(kind or "?" for kind in types)


def difference_table(differences: dict[str, Any], first: str, second: str) -> Group:
    """Return the counts of two engines side by side, and the layers that differ."""
    a, b = differences["census"]
    counts = Table("", first, second, box=None, pad_edge=False)
    theirs = _counts(b)
    for title, ours in _counts(a).items():
        if ours or theirs[title]:
            counts.add_row(title, ours, theirs[title])
    for key in ("found", "chose"):
        cells = [str(each[key]) if each else "" for each in differences["sparsity"]]
        if any(cells):
            counts.add_row(f"sparsity {key}", *cells)
    for title, cells in _traffic_rows(differences):
        counts.add_row(title, *cells)
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
    times = differences.get("times")
    if times is None:
        return Group(counts, Text(), changed, Text("\n".join(lines)))
    a_ms, b_ms = times["sum_ms"]
    counts.add_row("sum of the layers' times", f"{a_ms:.4f} ms", f"{b_ms:.4f} ms")
    alone = [f"{each:.4f} ms" for each in times["unpaired_ms"]]
    counts.add_row("of it in layers without a partner", *alone)
    slower = layer_times_table(times["layers"], first, second)
    return Group(counts, Text(), slower, Text(), changed, Text("\n".join(lines)))


def _traffic_rows(differences: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield what both builds run and move, where a compiler's listing tells it."""
    both = differences.get("traffic", [None, None])
    if not all(both):
        return
    yield "kernels that run", [str(each["kernels"]) for each in both]
    sizes = [moved(each) for each in both]
    if None not in sizes:
        yield "MB moved, weights among them", [f"{(size or 0) / MB:.3g}" for size in sizes]


def _cell(value: Any) -> str:
    return _types(list(value)) if isinstance(value, (list, tuple)) else str(value)
