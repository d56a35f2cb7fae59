"""Every layer in one table: what it is, what becomes of it, why, what it costs, how long it takes.

Rows come from preflight, which reads the exported graph; the other files of the run are joined to
them by the node's name. A column that no row fills is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trt_qat.page.charts import percent
from trt_qat.page.markup import Cell, Markup, note, section, table, tag

Document = Mapping[str, Any]
Row = dict[str, Cell]

_TABLE = "layer-table"
_KINDS = (
    ("", "every layer"),
    ("int8", "INT8"),
    ("float", "float"),
    ("sparse", "2:4"),
    ("dense", "dense"),
    ("reason", "with a reason"),
)
_ORDER = (
    *("layer", "op", "weight", "computes", "in", "out", "scale in", "own dB", "SQNR dB"),
    *("alone dB", "2:4", "zeros", "kernel", "ms", "why"),
)
_NUMERIC = {"scale in", "own dB", "SQNR dB", "alone dB", "zeros", "ms"}


def layers(parts: Document) -> Iterator[Markup]:
    """Yield the section; nothing where no file of the run knows a layer."""
    found = list(_rows(parts))
    if not found:
        return
    rows = [row for row, _ in found]
    columns = [name for name in _ORDER if any(row[name].shown != "" for row in rows)]
    numeric = {at for at, name in enumerate(columns) if name in _NUMERIC}
    wide = columns.index("why") if "why" in columns else None
    yield section(
        "Layers",
        _filters(),
        table(
            f"{len(rows)} layers with weights, in the order of the network",
            columns,
            [[row[name] for name in columns] for row in rows],
            numeric,
            wide,
            kinds=[kind for _, kind in found],
            sortable=True,
            id_=_TABLE,
        ),
        note(_legend(columns)),
    )


def _filters() -> Markup:
    options = [tag("option", words, value=value) for value, words in _KINDS]
    return tag(
        "div",
        tag("label", "Filter ", tag("input", type="search", placeholder="name, op, reason")),
        tag("label", "Show ", tag("select", *options)),
        tag("output"),
        class_="filters",
        data_filters=_TABLE,
        hidden="",
    )


def _legend(columns: Sequence[str]) -> str:
    told = {
        "scale in": "scale in: of the INT8 grid that the input comes from",
        "own dB": "own dB: what ONNX and torch differ by in this layer alone, from equal inputs",
        "SQNR dB": "SQNR dB: what has grown up to it",
        "alone dB": "alone dB: SQNR of the outputs against FP32 with this layer alone in INT8",
        "2:4": "2:4: read off the exported weights, and whether a sparse kernel is likely",
        "kernel": "kernel: what the compiler lists for it",
        "ms": "ms: by trtexec's profiler, of the kernels that hold the layer",
    }
    return "; ".join(text for name, text in told.items() if name in columns) + "."


def _rows(parts: Document) -> Iterator[tuple[Row, str]]:
    facts = {item["name"]: item for item in parts.get("compare", {}).get("weights", ())}
    errors = {item["name"]: item for item in parts.get("compare", {}).get("layers", ())}
    alone = {item["name"]: item for item in parts.get("sensitivity", {}).get("layers", ())}
    reasons = _reasons(parts)
    claimed = {item["name"] for item in parts.get("sparsity", {}).get("sparse", ())}
    kernels = _kernels(parts.get("engine", {}))
    for layer in _layers(parts):
        name = layer["name"]
        fact, error = facts.get(name, {}), errors.get(name)
        why = list(dict.fromkeys([*layer.get("why", ()), *reasons.get(name, ())]))
        sparse = _sparse(layer, fact, claimed=name in claimed)
        row = {
            "layer": Cell(tag("code", name), name),
            "op": _text(layer["op"]),
            "weight": _shape(fact.get("shape")),
            "computes": _text(layer["precision"]),
            "in": _text(_code(layer["input_int8"], layer["precision"])),
            "out": _text(_code(layer["output_int8"], layer["precision"])),
            "scale in": _number(fact.get("scale"), "{:.4g}"),
            "own dB": _db(error, "local_sqnr_db"),
            "SQNR dB": _db(error, "sqnr_db"),
            "alone dB": _number(alone.get(name, {}).get("alone_db"), "{:.1f}"),
            "2:4": sparse,
            "zeros": _zeros(fact.get("zero_fraction")),
            "kernel": _text(kernels[name][0] if name in kernels else ""),
            "ms": _number(kernels[name][1] if name in kernels else None, "{:.4f}"),
            "why": _text(_joined(why)),
        }
        yield row, " ".join(_words(layer, sparse, why))


def _layers(parts: Document) -> list[Document]:
    """Return preflight's layers, or what quantize and sparsify noted where it has not run."""
    judged = (parts.get("preflight") or {}).get("layers")
    if judged:
        return list(judged)
    placed = parts.get("placement", {})
    int8 = {item["name"] for item in placed.get("quantized", ())}
    noted = parts.get("sparsity", {})
    names = dict.fromkeys(
        item["name"]
        for item in (*placed.get("quantized", ()), *placed.get("float_layers", ()),
                     *noted.get("sparse", ()), *noted.get("skipped", ()))
    )  # fmt: skip
    claimed = {item["name"] for item in noted.get("sparse", ())}
    return [
        {"name": name, "op": "", "precision": "int8" if name in int8 else "float",
         "input_int8": name in int8, "output_int8": None, "sparse_likely": False,
         "sparse": "found" if name in claimed else "dense"}
        for name in names
    ]  # fmt: skip


def _reasons(parts: Document) -> dict[str, list[str]]:
    """Return why each layer was left float or dense, as quantize and sparsify noted it."""
    found: dict[str, list[str]] = {}
    placed = parts.get("placement", {})
    for item in (
        *placed.get("float_layers", ()),
        *placed.get("float_outputs", ()),
        *parts.get("sparsity", {}).get("skipped", ()),
    ):
        found.setdefault(item["name"], []).append(item["why"])
    return found


def _kernels(engine: Document) -> dict[str, tuple[str, float | None]]:
    """Return what the compiler lists for each node, and the time of it."""
    found: dict[str, tuple[str, float | None]] = {}
    # Where several kernels name a node, the one that multiplies is it; the others move its tensors.
    ordered = sorted(engine.get("layers", ()), key=lambda layer: layer.get("sparse") == "n/a")
    for layer in ordered:
        kind = layer.get("tactic")
        words = [layer.get("precision"), None if kind in (None, "unknown") else kind]
        words.append("2:4" if layer.get("sparse") == "sparse" else None)
        text = " ".join(word for word in words if word) or layer.get("type") or ""
        # Before TensorRT 10 a layer's nodes are told by its name alone.
        for name in layer.get("onnx") or layer["name"].split(" + "):
            if layer.get("purpose", "compute") == "compute":
                found.setdefault(name, (text, layer.get("time_ms")))
    return found


def _joined(why: Sequence[str]) -> str:
    """Return reasons as one sentence; what several begin with is said once."""
    groups: dict[str, list[str]] = {}
    for text in why:
        head, colon, rest = text.partition(": ")
        groups.setdefault(head + colon, []).append(rest)
    return "; ".join(head + ", and ".join(rest) for head, rest in groups.items())


def _words(layer: Document, sparse: Cell, why: Sequence[str]) -> Iterator[str]:
    low = layer["precision"] in ("int8", "fp8") or layer.get("weight_only")
    yield "int8" if low else "float"
    yield "sparse" if str(sparse.shown).startswith("2:4") else "dense"
    if why:
        yield "reason"


def _sparse(layer: Document, fact: Document, *, claimed: bool) -> Cell:
    held = fact.get("holds_2_4", layer["sparse"] == "found")
    if claimed and not held:
        return Cell(tag("b", "lost", class_="bad"), 3)
    if layer["sparse"] != "found":
        return Cell("dense" if layer["sparse"] == "dense" else "", 0)
    return Cell("2:4, kernel likely", 2) if layer["sparse_likely"] else Cell("2:4, no kernel", 1)


def _zeros(part: float | None) -> Cell:
    return Cell("", None) if part is None else Cell(percent(part, 1), part)


def _shape(shape: Sequence[int] | None) -> Cell:
    if shape is None:
        return Cell("", None)
    size = 1
    for length in shape:
        size *= length
    return Cell("x".join(map(str, shape)), size)


def _code(int8: bool | None, precision: str) -> str:
    if int8 is None:
        return "unknown"
    return "int8" if int8 else "float" if precision == "int8" else precision


def _text(text: str) -> Cell:
    return Cell(text, text or None)


def _number(value: float | None, form: str) -> Cell:
    return Cell("", None) if value is None else Cell(form.format(value), value)


def _db(layer: Document | None, key: str) -> Cell:
    if layer is None:
        return Cell("", None)
    value = layer[key]
    return Cell("equal", 999) if value is None else Cell(f"{value:.1f}", value)
