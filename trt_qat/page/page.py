"""The page: sections from what the run folder holds; a part that is absent is left out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trt_qat.measure.metrics import SCORE_TITLES
from trt_qat.page import bench_charts
from trt_qat.page.charts import Series, bar, interval_chart, line_chart, percent
from trt_qat.page.checks import checks
from trt_qat.page.compare_sections import layer_errors, ptq_against_qat, sensitivity
from trt_qat.page.engine_section import engine
from trt_qat.page.markup import Markup, join, note, section, table, tag
from trt_qat.page.style import STYLE
from trt_qat.wording import counted

INT8_LEVELS = 127

Document = Mapping[str, Any]


def page(manifest: Document, parts: Document) -> str:
    """Return the whole page.

    Args:
        manifest: of the run.
        parts: the other files of the run by what they hold; any may be absent.
    """
    scores = parts.get("metrics", {})
    sections = [
        *_accuracy(scores),
        *ptq_against_qat(manifest, parts),
        *checks(manifest, parts),
        *_training(parts),
        *_layers(parts),
        *_ranges(parts),
        *_parity(parts),
        *layer_errors(parts),
        *sensitivity(parts),
        *engine(parts),
        *bench_charts.sections(parts.get("bench")),
        *_preflight(parts),
        _data(manifest["data"]),
        _provenance(manifest),
    ]
    head = tag(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", f"{manifest['name']}: trt-qat report"),
        tag("style", Markup(STYLE)),
    )
    body = tag(
        "body",
        tag("a", "To the content", href="#content", class_="skip"),
        tag("header", tag("h1", manifest["name"]), _verdict(manifest), _lead(scores)),
        tag("main", *sections, id="content", tabindex="-1"),
        tag("footer", f"trt-qat {manifest['versions']['trt-qat']}"),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _verdict(manifest: Document) -> Markup:
    if manifest["passed"]:
        return tag("span", "✓ every check passed", class_="verdict good")
    return tag("span", "✗ not good enough", class_="verdict bad")


def _lead(scores: Document) -> Markup:
    if "fp32" not in scores or "qat" not in scores:
        return Markup("")
    fp32, qat = scores["fp32"], scores["qat"]
    points = 100 * (qat["accuracy"] - fp32["accuracy"])
    text = (
        f"The 2:4-sparse INT8 network answers {percent(qat['accuracy'])} of {qat['samples']:,} "
        f"test images rightly, {points:+.2f} points against FP32 ({percent(fp32['accuracy'])})."
    )
    return tag("p", text, class_="lead")


def _accuracy(scores: Document) -> Iterator[Markup]:
    rows = [(title, scores[key]) for key, title in SCORE_TITLES.items() if scores.get(key)]
    if not rows:
        return
    cells = [
        (
            title,
            percent(entry["accuracy"]),
            f"{percent(entry['interval95'][0])} to {percent(entry['interval95'][1])}",
            f"{entry['correct']:,} of {entry['samples']:,}",
            f"{entry['seconds']:.2f}",
        )
        for title, entry in rows
    ]
    head = ("model", "accuracy", "95 % interval", "right", "seconds")
    yield section(
        "Accuracy on the test set",
        interval_chart(rows),
        note(
            "Dots are accuracies, bars Wilson's 95 % intervals. All models answer the same images, "
            "so two intervals that overlap may still differ."
        ),
        tag("details", tag("summary", "As a table"), table("Accuracy", head, cells, {1, 2, 3, 4})),
    )


def _training(parts: Document) -> Iterator[Markup]:
    figures = [
        *_curves("FP32 training", parts.get("train", ())),
        *_curves("QAT", parts.get("finetune", ())),
    ]
    if figures:
        yield section("Training", tag("div", *figures, class_="curves"))


def _curves(title: str, history: Sequence[Document]) -> Iterator[Markup]:
    def points(key: str) -> list[tuple[float, float]]:
        return [(row["epoch"], row[key]) for row in history if row.get(key) is not None]

    for name, key, as_percent in (("loss", "loss", False), ("accuracy", "accuracy", True)):
        series = [
            Series("training", points(key), "first"),
            Series("validation", points(f"validation_{key}"), "second"),
        ]
        if any(line.points for line in series):
            yield line_chart(f"{title}: {name}", series, as_percent=as_percent)


def _layers(parts: Document) -> Iterator[Markup]:
    if "sparsity" not in parts:
        return
    proven = {layer["module"]: layer for layer in parts.get("compare", {}).get("sparsity", ())}
    skipped = {item["name"]: item["why"] for item in parts["sparsity"]["skipped"]}
    placed = parts.get("placement", {"quantized": [], "float_layers": []})
    int8 = {item["name"] for item in placed["quantized"]}
    floats = {item["name"]: item["why"] for item in placed["float_layers"]}
    names = [item["name"] for item in parts["sparsity"]["sparse"]]
    rows = []
    for name in [*names, *skipped, *(n for n in floats if n not in skipped)]:
        layer = proven.get(name)
        zeros: object = ""
        if layer is not None:
            zeros = bar(layer["zero_fraction"], f"{percent(layer['zero_fraction'], 1)} zeros")
        held = "lost" if layer and not layer["holds_2_4"] else "2:4"
        why = "; ".join(text for text in (skipped.get(name), floats.get(name)) if text)
        rows.append(
            (
                tag("code", name),
                held if name in names else "dense",
                zeros,
                "" if layer is None else percent(layer["zero_fraction"], 1),
                "INT8" if name in int8 else "float",
                "x".join(str(size) for size in layer["shape"]) if layer else "",
                why,
            )
        )
    head = ("layer", "weights", "zeros", "", "precision", "shape", "why")
    caption = "Layers, and what their exported INT8 weights hold"
    yield section("Layers", table(caption, head, rows, {3}, wide=6))


def _ranges(parts: Document) -> Iterator[Markup]:
    if "ranges" not in parts:
        return
    ranges = parts["ranges"]
    largest = max(ranges["amax"].values(), default=1.0)
    rows = [
        (
            tag("code", name),
            f"{amax:.4g}",
            f"{amax / INT8_LEVELS:.4g}",
            bar(amax / largest, f"{amax:.4g} of {largest:.4g}"),
        )
        for name, amax in ranges["amax"].items()
    ]
    yield section(
        "Activation scales",
        note(
            f"Measured by {ranges['algorithm']} on {ranges['samples']} images of the training "
            f"split that are trained on by no stage. A scale is the range divided by {INT8_LEVELS}."
        ),
        table("Ranges before QAT", ("tensor", "range ±", "scale", ""), rows, {1, 2}),
    )


def _parity(parts: Document) -> Iterator[Markup]:
    if "compare" not in parts:
        return
    rows = []
    for found in (parts["compare"], parts["compare"]["fused"]):
        output = found["outputs"][0]
        sqnr = "equal" if output["sqnr_db"] is None else f"{output['sqnr_db']:.1f}"
        rows.append(
            (
                found["cand"],
                percent(output["argmax_agreement"]),
                f"{output['max_abs']:.2g}",
                f"{output['mean_abs']:.2g}",
                sqnr,
                found["session"],
            )
        )
    head = ("runner", "same argmax", "max abs", "mean abs", "SQNR dB", "session")
    yield section(
        "ONNX against torch fake-quant",
        table("Logits on the whole test set", head, rows, {1, 2, 3, 4}, wide=5),
    )


def _preflight(parts: Document) -> Iterator[Markup]:
    document = parts.get("preflight")
    if not document:
        return
    counts = document["summary"]
    target = f"For {document['target']}: " if document.get("target") else ""
    summary = (
        f"{target}{counted(counts['layers'], 'layer')}, {counts['quantizable']} of them "
        f"quantizable; {counts['int8']} in INT8, {counts['int8_in_int8_out']} with INT8 in and "
        f"out; 2:4 weights in {counts['sparse_found']}, a sparse kernel likely in "
        f"{counts['sparse_likely']}. "
        f"Errors: {counts['errors']}, warnings: {counts['warnings']}."
    )
    rows = [
        (item["severity"], tag("code", item["rule"]), item["node"] or "", item["message"])
        for item in document["findings"]
    ]
    head = ("severity", "rule", "node", "finding")
    found = table("Findings", head, rows, set(), wide=3) if rows else note("No findings.")
    yield section("Preflight", tag("p", summary), found)


def _data(data: Document) -> Markup:
    rows = [
        (name, f"{part['samples']:,}", tag("span", part["sha256"][:16], class_="digest"))
        for name, part in data.items()
        if isinstance(part, Mapping)
    ]
    dropped = data["train_images_also_in_test_dropped"]
    text = f"{data['source']}: four parts, no image in two of them."
    if dropped:
        text += f" Left out: {counted(dropped, 'training image')} also in the test split."
    return section("Data", tag("p", text), table("Parts", ("part", "images", "sha256"), rows, {1}))


def _provenance(manifest: Document) -> Markup:
    stages = [
        (stage["name"], f"{stage['seconds']:.1f}" if stage["seconds"] else "", stage["why"] or "")
        for stage in manifest["stages"]
        if stage["name"] != "report"  # the page cannot tell of itself, and is the same each time
    ]
    files = [
        (tag("code", name), tag("span", digest, class_="digest"))
        for name, digest in manifest["artifacts"].items()
        if name != "report.html"
    ]
    versions = [(name, version or "absent") for name, version in manifest["versions"].items()]
    recipe = manifest["recipe"]
    overrides = " ".join(f"--set {text}" for text in recipe["overrides"])
    return section(
        "How it was made",
        tag("p", tag("code", f"trt-qat run engines/{recipe['engine']} {overrides}".strip())),
        table("Stages", ("stage", "seconds", "skipped because"), stages, {1}, wide=2),
        _folded("Recipe", tag("pre", tag("code", json.dumps(recipe["spec"], indent=2)))),
        _folded("Files", table("Digests", ("file", "sha256"), files, set())),
        _folded("Versions", table("Versions", ("package", "version"), versions, set())),
        note(", ".join(f"{key} {value}" for key, value in manifest["platform"].items())),
    )


def _folded(title: str, *children: object) -> Markup:
    return tag("details", tag("summary", title), join(children))
