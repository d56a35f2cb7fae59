"""Which code each weight gets: up or down by what the layer's output loses, not by what is nearer.

The objective is AdaRound's (Nagel et al., 2004.10568), the squared error of the layer's output on
calibration inputs. It is a quadratic form of the codes, so it is descended exactly, one column of
the weight after the other, all output channels at once (coordinate descent, 2406.17542); no step
can raise it, and no rate has to be chosen. What is left of a bias is taken out of it at the end
(Nagel et al., 1906.04721, section 4.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from trt_qat.qat.clip import clipped
from trt_qat.qat.gptq import gptq
from trt_qat.qat.moments import Known, Moments, input_moments
from trt_qat.qat.quantizers.fake_quant import spread_scale
from trt_qat.qat.quantizers.formats import INT8, Format, block_of, format_of
from trt_qat.recipe.accuracy import PtqSpec
from trt_qat.recipe.quantizing import Method

if TYPE_CHECKING:
    from modelopt.torch.quantization.nn import TensorQuantizer


@dataclass
class Rounded:
    """A weight that is to be rounded, and the quantizer that does it.

    Attributes:
        weight: the parameter.
        quantizer: of the weight.
        mask: of 2:4, None: dense.
        transposed: whether its output channels come last, as in ``x @ weight``, and not first.
    """

    weight: nn.Parameter
    quantizer: TensorQuantizer
    mask: Tensor | None = None
    transposed: bool = False

    def turned(self, values: Tensor) -> Tensor:
        """Return a view with output channels first; of such a one, what it was made of."""
        return values.T if self.transposed else values

    @property
    def columns(self) -> int:
        """Weights of each output channel."""
        return self.turned(self.weight)[0].numel()


def refine(
    model: nn.Module,
    weights: dict[str, Rounded],
    batches: Iterable[Any],
    spec: PtqSpec,
    methods: Mapping[str, Method],
) -> None:
    """Choose codes and correct biases of a quantized and calibrated model, in place.

    A weight that is rounded becomes the values of its codes, so that every later rounding, in
    training and in export, gives the same ones.

    Args:
        model: quantized; ranges of its activations stay, and those of weights but by a method.
        weights: of its layers, by any names.
        batches: calibration inputs; can be read again.
        spec: ``rounding``, ``rounding_steps``, ``bias_correction``.
        methods: of formats of weights alone, by their names: GPTQ, or AWQ's search for ranges.
    """
    if not methods and spec.rounding == "nearest" and not spec.bias_correction:
        return
    known = {name: Known(w.quantizer, w.columns, w.transposed) for name, w in weights.items()}
    seen = input_moments(model, known, batches)
    with torch.no_grad():
        for name, moments in seen.items():
            _refine(weights[name], moments, spec, methods)


def _refine(
    rounded: Rounded, moments: Moments, spec: PtqSpec, methods: Mapping[str, Method]
) -> None:
    """Choose the codes of one weight, and correct the bias behind it."""
    kind, turned = format_of(rounded.quantizer), rounded.turned
    method = methods.get(kind.name)
    before = turned(_masked(rounded)).float().clone()
    mask = None if rounded.mask is None else turned(rounded.mask)
    amax = cast("Tensor", rounded.quantizer.amax)
    chosen = None  # values of codes that are not the nearest ones
    if method == "awq":
        amax = turned(clipped(before, moments, turned(amax), kind))
    elif method == "gptq":
        block = block_of(before, turned(amax), 1)
        chosen, ends = gptq(before, moments, mask, block, kind)
        amax = turned(ends)
    if method is not None:
        rounded.quantizer.amax = amax.contiguous()
    scale = turned(spread_scale(rounded.quantizer, rounded.weight.float()))
    if chosen is None and spec.rounding == "learned":
        chosen = learned(before, scale, moments, mask, spec.rounding_steps, kind)
    written = chosen
    if chosen is None and method == "awq":  # beyond its range a weight would not train
        written = before.clamp(-kind.largest * scale, kind.largest * scale)
    if written is not None:
        rounded.weight.copy_(_with_pruned(rounded, turned(written)))
    if spec.bias_correction:
        if chosen is None:
            chosen = kind.rounded(before / scale, of_weight=True) * scale
        _correct(before - chosen, moments)


def _masked(rounded: Rounded) -> Tensor:
    weight = rounded.weight.detach()
    return weight if rounded.mask is None else weight * rounded.mask


def _with_pruned(rounded: Rounded, values: Tensor) -> Tensor:
    """Leave what a mask hides what it is: a later mask may show it."""
    if rounded.mask is None:
        return values
    return torch.where(rounded.mask.bool(), values, rounded.weight.detach().float())


def learned(
    weight: Tensor,
    scale: Tensor,
    moments: Moments,
    mask: Tensor | None,
    steps: int,
    kind: Format = INT8,
) -> Tensor:
    """Return the values of a weight on its grid that lose least of the layer's output.

    Args:
        weight: float, ``(out, ...)``.
        scale: of each output channel, or of all.
        moments: of the layer's inputs.
        mask: where codes may be other than 0.
        steps: passes over the columns at most; fewer where nothing moves any more.
        kind: of number; of any grid the point nearest to a column's optimum is best for it.
    """
    groups, columns = moments.mean.shape
    flat = weight.reshape(groups, -1, columns)
    steps_of = scale.expand_as(weight).reshape(flat.shape)
    free = torch.ones_like(flat) if mask is None else mask.reshape(flat.shape).to(flat)
    products = moments.damped()
    values = kind.rounded(flat / steps_of, of_weight=True) * steps_of
    slope = torch.bmm(values - flat, products)  # half the gradient
    own = products.diagonal(dim1=1, dim2=2)
    for _ in range(steps):
        moved = False
        for at in range(columns):
            step, now = steps_of[:, :, at], values[:, :, at]
            wanted = now - slope[:, :, at] / own[:, at, None]
            new = kind.rounded(wanted / step, of_weight=True) * step * free[:, :, at]
            change = new - now
            if bool(change.any()):
                moved = True
                values[:, :, at] = new
                slope += change[:, :, None] * products[:, at, None, :]
        if not moved:
            break
    return values.reshape(weight.shape)


def _correct(lost: Tensor, moments: Moments) -> None:
    """Add the mean of what a layer's output lost to its bias, or to the norm behind it."""
    groups, columns = moments.mean.shape
    mean = torch.einsum("gok,gk->go", lost.reshape(groups, -1, columns), moments.mean).flatten()
    if moments.norm_mean is not None:
        moments.norm_mean.sub_(mean.to(moments.norm_mean))
    elif moments.bias is not None:
        moments.bias.data.add_(mean.to(moments.bias))
