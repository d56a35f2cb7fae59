"""Which 2:4 layers preflight expects nothing of: there sparsity costs accuracy alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from trt_qat.qat import ranks
from trt_qat.qat.predicted import by_module, predict
from trt_qat.qat.quantize import quantize
from trt_qat.recipe.specs import QuantizeSpec
from trt_qat.targets import Target

_SAID = "2:4 found, a sparse kernel is unlikely: "


def without_gain(
    model: nn.Module,
    example: Any,
    target: str | Target | None,
    spec: QuantizeSpec,
    paths: Iterable[str],
) -> dict[str, str]:
    """Return the layers for which a sparse kernel is not expected to win, and why.

    It is preflight's own word on the model as it would be deployed: quantized where the recipe
    says, exported, and judged for the target, at one sample at once as in a run.

    Args:
        model: float, with masks; a copy that may be used up.
        example: one batch of inputs.
        target: a device; None: what no device is needed for, the sizes and the INT8 epilogue.
        spec: where Q/DQ will go.
        paths: of the layers that hold masks. One that preflight does not know by its name is not
            returned: nothing speaks against it.
    """
    with ranks.alone():
        model = quantize(model, [example], spec=spec, calibration={"algorithm": "max"})
        report = predict(model, example, target)
    found = by_module(report, paths)
    return {
        path: _why(each.fates[0].why, report.target)
        for path, each in found.items()
        if not any(fate.sparse_likely for fate in each.fates)
    }


def _why(whys: tuple[str, ...], target: str | None) -> str:
    reasons = [why.removeprefix(_SAID) for why in whys if why.startswith(_SAID)]
    on = "" if target is None else f" on {target}"
    return f"no gain expected{on}: {'; '.join(reasons) or 'preflight finds no 2:4 in it'}"
