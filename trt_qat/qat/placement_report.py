"""What placement decided, in the words of the report; and why a model has no layer to quantize."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from trt_qat.qat import placement
from trt_qat.qat.placement.layers import READS_FLOAT
from trt_qat.qat.quantizers.formats import FORMATS, INT8
from trt_qat.qat.reports import LayerNote, report_of
from trt_qat.recipe.specs import QuantizeSpec


def write_report(model: nn.Module, plan: placement.Plan) -> None:
    """Write into a model's report what is quantized, to what, and what is not, and why."""
    report = report_of(model)
    # INT8 goes without saying.
    titles = {kind.name: kind.title for kind in FORMATS.values() if kind is not INT8}
    report.quantized = tuple(
        LayerNote(v.path, titles.get(plan.weight_format(v), ""))
        for v in (*plan.weighted, *plan.matmuls, *plan.weight_only)
    )
    report.float_layers = (
        *(LayerNote(v.path, why) for v, why in plan.float_layers.items() if why != READS_FLOAT),
        *(LayerNote(path, why) for path, why in plan.unread.items()),
    )
    for note in report.untraced:
        report.warnings.append(_cost_of_untraced(note, plan))
    report.unsigned = tuple(v.path for v in plan.sites if v in plan.unsigned)
    report.float_outputs = tuple(LayerNote(v.path, why) for v, why in plan.notes.items())


def _cost_of_untraced(note: LayerNote, plan: placement.Plan) -> str:
    """Say what it costs that a part was left as Python: what crosses its code is float."""
    inside = f"{note.name}." if note.name else ""
    layers = [v for v in plan.notes if v.path.startswith(inside)]
    return (
        f"{note.name or 'the model'} was not traced whole ({note.why}): it is placed in parts, and "
        f"{len(layers)} of its INT8 layers write float"
    )


def no_layer(
    model: nn.Module, spec: QuantizeSpec, plan: placement.Plan, untraced: Mapping[str, str]
) -> str:
    """Return the message for a model without a quantized layer: every reason, with its layers."""
    layers: dict[str, list[str]] = {}
    for vertex, why in plan.float_layers.items():
        layers.setdefault(why, []).append(vertex.path)
    reasons = [f"{', '.join(paths)}: {why}" for why, paths in layers.items()]
    reasons += [f"{path or 'the model'} not traced: {why}" for path, why in untraced.items()]
    found = "; ".join(reasons) or "it holds no Conv, ConvTranspose or Linear"
    asked = dict.fromkeys(
        FORMATS[k].title for k in (spec.format, *spec.layers.values()) if k in FORMATS
    )
    kinds = " or ".join(asked)
    return f"quantize: no layer of {type(model).__name__} can be {kinds} ({found})"
