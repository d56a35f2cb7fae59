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
    failed = {item["check"] for item in manifest["failures"]}
    items = []
    for check, text in _said(manifest, parts):
        mark, kind = ("✗", "bad") if check in failed else ("✓", "good")
        items.append(tag("li", tag("b", mark, class_=kind), text))
    known = {check for check, _ in _said(manifest, parts)}
    items += [
        tag("li", tag("b", "✗", class_="bad"), item["message"])
        for item in manifest["failures"]
        if item["check"] not in known
    ]
    yield section("Checks", tag("ul", *items, class_="checks"))


def _said(manifest: Document, parts: Document) -> Iterator[tuple[str, str]]:
    """Yield each check with its sentence; what does not apply to the run is not said."""
    compare = parts["compare"]
    allowed = manifest["recipe"]["spec"]["tolerances"]
    output, accuracy = compare["outputs"][0], compare.get("accuracy")
    if output["argmax_agreement"] is None:
        yield "outputs", f"onnxruntime and torch differ {output.get('asked', '')}"
    else:
        asked = output.get("asked") or f"at least {percent(allowed['argmax_agreement'])}"
        yield (
            "argmax_agreement",
            f"onnxruntime and torch agree on {percent(output['argmax_agreement'])} of the test "
            f"samples ({asked})",
        )
    if accuracy:
        gap = percent(abs(accuracy["ref"] - accuracy["cand"]))
        yield (
            "accuracy_gap",
            f"their accuracies differ by {gap} (at most {percent(allowed['accuracy_gap'])}, or no "
            "more than chance makes)",
        )
    yield "accuracy_loss", accuracy_kept(parts.get("metrics", {}), allowed["accuracy_loss"])
    known = compare.get("chance")
    if known and known["above"] is not None:
        yield (
            "chance",
            "its answers know more than chance: "
            f"{known['kappa']:.3f} of the way from there to right",
        )
    if sparse := compare["sparsity"]:
        held = sum(layer["holds_2_4"] for layer in sparse)
        text = f"2:4 in the exported weights: {held} of {counted(len(sparse), 'sparse layer')}"
        yield "sparsity", text
