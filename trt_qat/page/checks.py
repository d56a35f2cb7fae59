"""The section that says which tolerances of the recipe held, with what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trt_qat.measure.metrics import accuracy_kept
from trt_qat.page.charts import percent
from trt_qat.page.markup import Markup, section, tag
from trt_qat.wording import counted

Document = Mapping[str, Any]


def checks(manifest: Document, parts: Document) -> Iterator[Markup]:
    """Yield the section; nothing where the ONNX was not compared."""
    if "compare" not in parts:
        return
    compare, failed = parts["compare"], {item["check"] for item in manifest["failures"]}
    allowed = manifest["recipe"]["spec"]["tolerances"]
    output, accuracy = compare["outputs"][0], compare["accuracy"]
    sparse = compare["sparsity"]
    held = sum(layer["holds_2_4"] for layer in sparse)
    said = [
        (
            "argmax_agreement",
            f"onnxruntime and torch agree on {percent(output['argmax_agreement'])} of the images "
            f"(at least {percent(allowed['argmax_agreement'])})",
        ),
        (
            "accuracy_gap",
            f"their accuracies differ by {percent(abs(accuracy['ref'] - accuracy['cand']))} "
            f"(at most {percent(allowed['accuracy_gap'])})",
        ),
        ("accuracy_loss", accuracy_kept(parts.get("metrics", {}), allowed["accuracy_loss"])),
        (
            "sparsity",
            f"2:4 in the exported weights: {held} of {counted(len(sparse), 'sparse layer')}",
        ),
    ]
    items = []
    for check, text in said:
        mark, kind = ("✗", "bad") if check in failed else ("✓", "good")
        items.append(tag("li", tag("b", mark, class_=kind), text))
    yield section("Checks", tag("ul", *items, class_="checks"))
