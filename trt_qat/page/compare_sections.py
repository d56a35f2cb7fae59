"""The sections that compare: PTQ with QAT, layer with layer, float with INT8."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trt_qat.gate.verdict import summary_of
from trt_qat.measure.metrics import is_sparse
from trt_qat.page.charts import percent
from trt_qat.page.layer_charts import dot_rows, error_chart, graph_section
from trt_qat.page.markup import Markup, note, section, table, tag
from trt_qat.wording import counted, format_title

Document = Mapping[str, Any]

MOST_SENSITIVE = 20


def ptq_against_qat(manifest: Document, parts: Document) -> Iterator[Markup]:
    """Yield what calibration alone reaches and costs, and what training does, side by side."""
    scores = parts.get("metrics", {})
    ptq, qat = scores.get("sparse_ptq") or scores.get("ptq"), scores.get("qat")
    if not ptq or not qat:
        return
    seconds = {stage["name"]: stage["seconds"] for stage in manifest["stages"]}
    spec = manifest["recipe"]["spec"]
    calibrated = parts.get("ranges", {}).get("samples", spec["calibration"]["samples"])
    train = manifest["data"].get("train")
    trained, epochs = ("by a loop of its own", "") if train is None else (
        f"{train['samples']:,}", f"{spec['finetune']['epochs']:g}"
    )  # fmt: skip
    points = 100 * (qat["accuracy"] - ptq["accuracy"])
    rows = [
        ("accuracy", *(percent(entry["accuracy"]) for entry in (ptq, qat))),
        ("95 % interval", *(_interval(entry) for entry in (ptq, qat))),
        ("points against PTQ", "", f"{points:+.2f}"),
        ("test images", f"{ptq['samples']:,}", f"{qat['samples']:,}"),
        ("calibration", _seconds(seconds.get("quantize")), "as PTQ"),
        ("training", "none", _seconds(seconds.get("finetune"))),
        ("images calibrated on", f"{calibrated:,}", f"{calibrated:,}"),
        ("images trained on", "none", trained),
        ("epochs", "none", epochs),
    ]
    title = format_title(summary_of(parts))
    kind = f"2:4 and {title}" if is_sparse(scores) else title
    yield section(
        "PTQ against QAT",
        tag(
            "div",
            table(f"{kind} by calibration alone, and fine-tuned", ("", "PTQ", "QAT"), rows, {1, 2}),
            class_="two",
        ),
        note("The time of calibration holds the evaluation of the calibrated networks too."),
    )


def layer_errors(parts: Document) -> Iterator[Markup]:
    """Yield the errors of ONNX against torch layer by layer, and where they begin."""
    found = parts.get("compare", {})
    layers = [dict(layer) | {"own": layer["local_sqnr_db"]} for layer in found.get("layers", ())]
    if not layers:
        return
    first = found["first_divergence"]
    limit = found.get("min_local_sqnr_db", 60.0)
    tensor = None if first is None else first["cand_tensor"]
    rows = [
        (
            tag("code", layer["name"]),
            layer["op"],
            _db(layer["sqnr_db"]),
            _db(layer["own"]),
            f"{layer['max_abs']:.2g}",
            "" if layer["steps"] is None else f"{layer['steps']:.2g}",
            "" if layer["saturated"] is None else percent(layer["saturated"]),
        )
        for layer in layers
    ]
    head = ("layer", "op", "SQNR dB", "own dB", "max abs", "steps", "saturated")
    parts_shown = [
        tag("p", _where(first, len(layers))),
        *_worst(layers, first),
        error_chart(layers, tensor, limit),
        *_around(found, first),
        tag("details", tag("summary", "Every layer as a table"),
            table("ONNX against torch, layer by layer", head, rows, {2, 3, 4, 5, 6})),
    ]  # fmt: skip
    yield section("Error, layer by layer", *parts_shown)


def sensitivity(parts: Document) -> Iterator[Markup]:
    """Yield what INT8 costs each layer, the most sensitive first."""
    found = parts.get("sensitivity")
    if not found:
        return
    layers = found["layers"][:MOST_SENSITIVE]
    top = max(max(row["alone_db"], min(row["without_db"], 100.0)) for row in layers) * 1.05
    rows = [(row["name"], row["alone_db"], row["without_db"]) for row in layers]
    shown = [
        note(
            f"SQNR of the outputs against FP32, in decibel, with one layer alone in INT8 (bar) and "
            f"with all but it (dot); all in INT8: {found['full_db']:.1f}. Lower is worse. "
            f"{len(layers)} of {counted(len(found['layers']), 'layer')}."
        ),
        dot_rows(rows, "dB", top),
    ]
    wanted = found.get("suggestion")
    if wanted and not wanted["exclude"]:
        shown.append(tag("p", "Nothing need be kept float for the budget that was asked for."))
    elif wanted:
        shown.append(tag("p", "For the budget that was asked for, keep float:"))
        shown.append(tag("pre", tag("code", wanted["recipe"])))
    yield section("Sensitivity to INT8", *shown)


def _where(first: Document | None, count: int) -> Markup | str:
    if first is None:
        return f"None of {counted(count, 'layer')} makes an error of its own beyond rounding."
    return tag(
        "span",
        tag("b", "First divergence: ", class_="bad"),
        f"{first['op']} ",
        tag("code", first["name"]),
        f", {_db(first['local_sqnr_db'])} dB from equal inputs; the layers before it are "
        "explained by rounding.",
    )


def _worst(layers: Sequence[Document], first: Document | None) -> Iterator[Markup]:
    """Yield which layer makes the largest error of its own, where it is not the first one."""
    told = [layer for layer in layers if layer["own"] is not None]
    worst = min(told, key=lambda layer: float(layer["own"]), default=None)
    if first is not None and worst is not None and worst["cand_tensor"] != first["cand_tensor"]:
        name = tag("code", worst["name"])
        yield tag("p", "Worst layer: ", f"{worst['op']} ", name, f", {_db(worst['own'])} dB.")


def _around(found: Document, first: Document | None) -> Iterator[Markup]:
    if first is not None and found.get("section"):
        yield tag("h3", "The graph around it")
        yield graph_section(found["section"], first["name"])


def _interval(entry: Document) -> str:
    low, high = entry["interval95"]
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def _db(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f}"
