"""The page: sections from what the run folder holds; a part that is absent is left out."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trt_qat.gate.verdict import OWN_LOOP, verdict
from trt_qat.measure.metrics import score_titles
from trt_qat.page import bench_charts
from trt_qat.page.charts import Series, interval_chart, line_chart, percent
from trt_qat.page.checks import checks
from trt_qat.page.compare_sections import layer_errors, ptq_against_qat, sensitivity
from trt_qat.page.engine_section import engine
from trt_qat.page.facts import first_screen
from trt_qat.page.findings import findings
from trt_qat.page.histogram_charts import ranges
from trt_qat.page.layer_table import layers
from trt_qat.page.markup import Markup, anchor, folded, note, section, table, tag
from trt_qat.page.precision_section import precisions
from trt_qat.page.samples import samples
from trt_qat.page.script import POLICY, SCRIPT
from trt_qat.page.style import STYLE
from trt_qat.wording import counted

Document = Mapping[str, Any]

_TITLE = re.compile(r"<h2>(.*?) <a")


def page(manifest: Document, parts: Document) -> str:
    """Return the whole page.

    Args:
        manifest: of the run.
        parts: the other files of the run by what they hold; any may be absent.
    """
    found = verdict(manifest, parts)
    sections = [
        *layers(parts),
        *_accuracy(parts.get("metrics", {})),
        *samples(parts.get("changes")),
        *ptq_against_qat(manifest, parts),
        *_training(parts),
        *checks(manifest, parts),
        *precisions(parts.get("precisions")),
        *engine(parts, found),
        *bench_charts.sections(parts.get("bench")),
        *findings(parts),
        *_parity(parts),
        *layer_errors(parts),
        *sensitivity(parts),
        *ranges(parts),
        _data(manifest["data"]),
        _provenance(manifest),
    ]
    head = tag(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", f"{manifest['name']}: trt-qat report"),
        tag("style", Markup(STYLE)),
    )
    body = tag(
        "body",
        tag("a", "To the content", href="#content", class_="skip"),
        first_screen(manifest, parts, found),
        _contents(sections),
        tag("main", *sections, id="content", tabindex="-1"),
        tag("footer", f"trt-qat {manifest['versions']['trt-qat']}"),
        tag("script", Markup(SCRIPT)),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _contents(sections: Sequence[Markup]) -> Markup:
    """Return links to the sections, by the titles that they have."""
    heads = [found for part in sections if (found := _TITLE.search(part))]
    titles = [html.unescape(found[1]) for found in heads]
    links = [tag("a", title, href=f"#{anchor(title)}") for title in titles]
    return tag("nav", *links, aria_label="Sections")


def _accuracy(scores: Document) -> Iterator[Markup]:
    rows = [(title, scores[key]) for key, title in score_titles(scores).items()]
    if not rows:
        return
    cells = [
        (
            title,
            percent(entry["accuracy"]),
            f"{percent(entry['interval95'][0])} to {percent(entry['interval95'][1])}",
            f"{entry['correct']:,} of {entry['samples']:,}"
            if "correct" in entry
            else f"{entry['metric']} of {entry['samples']:,} samples",
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
                "" if output["argmax_agreement"] is None else percent(output["argmax_agreement"]),
                f"{output['max_abs']:.2g}",
                f"{output['mean_abs']:.2g}",
                sqnr,
                found["session"],
            )
        )
    head = ("runner", "same answer", "max abs", "mean abs", "SQNR dB", "session")
    yield section(
        "ONNX against torch fake-quant",
        table("Logits on the whole test set", head, rows, {1, 2, 3, 4}, wide=5),
    )


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
        _made_by(recipe, overrides),
        table("Stages", ("stage", "seconds", "skipped because"), stages, {1}, wide=2),
        folded("Recipe", tag("pre", tag("code", json.dumps(recipe["spec"], indent=2)))),
        folded("Files", table("Digests", ("file", "sha256"), files, set())),
        folded("Versions", table("Versions", ("package", "version"), versions, set())),
        note(", ".join(f"{key} {value}" for key, value in manifest["platform"].items())),
    )


def _made_by(recipe: Document, overrides: str) -> Markup:
    if recipe["spec"]["model"]["factory"] == OWN_LOOP:
        return tag("p", "A loop of its own, which tq.Run recorded.")
    return tag("p", tag("code", f"trt-qat run {recipe['engine']} {overrides}".strip()))
