"""The deployed form of a fake-quantized model: codes instead of weights, BatchNorm folded.

`deployed` swaps each quantized layer for one that dequantizes INT8 codes, and each quantizer for
one explicit quantize-dequantize pair, both as custom operators that the exporter translates to
QuantizeLinear and DequantizeLinear. The model is put back as it was afterwards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import nn

from trt_qat.qat.fake_quant import channel_axis, scale_of
from trt_qat.qat.int8 import ACTIVATION_MIN, CODE_MAX, WEIGHT_MIN
from trt_qat.qat.placement.kinds import TRANSPOSED_MODULES, WEIGHTED_MODULES
from trt_qat.qat.quantize import Quantized, float_weight, quantized, weight_quantizers

WeightForm = Literal["int8", "fp32"]

PER_TENSOR = -1  # as an operator's axis


def _along(scale: torch.Tensor, axis: int, rank: int) -> torch.Tensor:
    return (
        scale
        if axis == PER_TENSOR
        else scale.reshape([-1 if i == axis else 1 for i in range(rank)])
    )


def _quantize_dequantize(x: torch.Tensor, scale: torch.Tensor, axis: int) -> torch.Tensor:
    scale = _along(scale, axis, x.dim())
    return torch.round(x / scale).clamp(ACTIVATION_MIN, CODE_MAX) * scale


def _dequantize(codes: torch.Tensor, scale: torch.Tensor, axis: int) -> torch.Tensor:
    return codes.to(scale.dtype) * _along(scale, axis, codes.dim())


def _register_operators() -> None:
    library: Any = torch.library
    for name, schema, kernel in (
        (
            "quantize_dequantize",
            "(Tensor x, Tensor scale, int axis) -> Tensor",
            _quantize_dequantize,
        ),
        ("dequantize", "(Tensor codes, Tensor scale, int axis) -> Tensor", _dequantize),
    ):
        library.define(f"trt_qat::{name}", schema)
        library.impl(f"trt_qat::{name}", "CompositeExplicitAutograd", kernel)
    library.register_fake("trt_qat::quantize_dequantize", lambda x, scale, axis: x.clone())
    library.register_fake(
        "trt_qat::dequantize",
        lambda codes, scale, axis: torch.empty_like(codes, dtype=scale.dtype),
    )


_register_operators()


class QuantizeDequantize(nn.Module):
    """One explicit pair of an activation."""

    def __init__(self, scale: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` on the grid."""
        return cast(
            "torch.Tensor", torch.ops.trt_qat.quantize_dequantize(x, self.scale, PER_TENSOR)
        )


class Codes(nn.Module):
    """A weight as INT8 codes and scale, or as float values behind a Q/DQ pair."""

    def __init__(
        self, codes: torch.Tensor, scale: torch.Tensor, axis: int | None, form: WeightForm
    ) -> None:
        super().__init__()
        self.axis = PER_TENSOR if axis is None else axis
        values = codes if form == "int8" else _dequantize(codes, scale, self.axis)
        self.form = form
        self.register_buffer("weight", values)
        self.register_buffer("weight_scale", scale)

    def forward(self, _: torch.Tensor | None = None) -> torch.Tensor:
        """Return the dequantized weight; a float weight given is ignored."""
        operator = torch.ops.trt_qat.dequantize
        if self.form == "fp32":
            operator = torch.ops.trt_qat.quantize_dequantize
        return cast("torch.Tensor", operator(self.weight, self.weight_scale, self.axis))


class DeployedLayer(nn.Module):
    """A Conv, ConvTranspose or Linear whose weight comes from ``codes``, or stays float."""

    def __init__(
        self, layer: nn.Module, weight: torch.Tensor | Codes, bias: torch.Tensor | None
    ) -> None:
        super().__init__()
        self.like = [layer]  # in a list: its attributes are read, its parameters not exported
        if isinstance(weight, Codes):
            self.codes: Codes | None = weight
        else:
            self.codes = None
            self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.input_pair: nn.Module = nn.Identity()
        self.output_pair: nn.Module = nn.Identity()

    def forward(self, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """Run the layer on its dequantized weight."""
        weight = self.codes() if self.codes is not None else cast("torch.Tensor", self.weight)
        return cast("torch.Tensor", self.output_pair(self._call(self.input_pair(x), weight)))

    def _call(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        layer, bias = self.like[0], cast("torch.Tensor | None", self.bias)
        if isinstance(layer, nn.Linear):
            return F.linear(x, weight, bias)
        options: Any = layer
        if isinstance(layer, TRANSPOSED_MODULES):
            transposed: Any = _TRANSPOSED[weight.dim()]
            output: torch.Tensor = transposed(
                x, weight, bias, options.stride, options.padding,
                options.output_padding, options.groups, options.dilation,
            )  # fmt: skip
            return output
        padding = options.padding
        if options.padding_mode != "zeros":
            x = F.pad(x, options._reversed_padding_repeated_twice, mode=options.padding_mode)
            padding = 0
        conv: Any = _CONVOLUTIONS[weight.dim()]
        out: torch.Tensor = conv(
            x, weight, bias, options.stride, padding, options.dilation, options.groups
        )
        return out


_CONVOLUTIONS = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
_TRANSPOSED = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}


def weight_codes(weight: torch.Tensor, scale: torch.Tensor, axis: int | None) -> torch.Tensor:
    """Return the INT8 codes of a float weight, symmetric in -127..127."""
    divisor = _along(scale, PER_TENSOR if axis is None else axis, weight.dim())
    return torch.round(weight / divisor).clamp(WEIGHT_MIN, CODE_MAX).to(torch.int8)


def fold_norm(
    norm: nn.Module, scale: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fold a BatchNorm in evaluation mode into the layer before it.

    Args:
        norm: the BatchNorm.
        scale: weight scale, scalar or ``(K,)``.
        bias: the layer's bias ``(K,)`` or None.

    Returns:
        ``(factor, scale, bias)`` of shape ``(K,)``: codes are multiplied by the sign of ``factor``
        alone, so that no code changes but for that sign; the scale takes its magnitude.
    """
    mean, var = cast("torch.Tensor", norm.running_mean), cast("torch.Tensor", norm.running_var)
    inverse = torch.rsqrt(var + cast("float", norm.eps))
    gamma = cast("torch.Tensor | None", norm.weight)
    beta = cast("torch.Tensor | None", norm.bias)
    factor = inverse if gamma is None else gamma.detach() * inverse
    shift = torch.zeros_like(mean) if beta is None else beta.detach()
    base = torch.zeros_like(mean) if bias is None else bias.detach()
    folded = scale * factor.abs()
    # A dead channel (factor 0) has codes 0: any positive scale is right, and E2 asks for one.
    return (
        factor,
        torch.where(folded > 0, folded, scale.expand_as(folded)),
        shift + (base - mean) * factor,
    )


@contextlib.contextmanager
def deployed(model: nn.Module, form: WeightForm) -> Iterator[nn.Module]:
    """Turn a quantized model into its deployed form for the time of the context.

    Args:
        model: from `quantize`, fine-tuned or not; put back as it was at the end.
        form: ``int8`` codes behind DequantizeLinear, or ``fp32`` values behind a Q/DQ pair.
    """
    state = quantized(model)
    was_training = model.training
    model.eval()
    swaps = _swaps(model, state, form)
    undo = [
        (parent, key, child)
        for parent in model.modules()
        for key, child in parent._modules.items()
        if child is not None and child in swaps
    ]
    try:
        for parent, key, child in undo:
            parent._modules[key] = swaps[child]
        yield model
    finally:
        for parent, key, child in undo:
            parent._modules[key] = child
        model.train(was_training)


def _swaps(model: nn.Module, state: Quantized, form: WeightForm) -> dict[nn.Module, nn.Module]:
    """Return module -> what stands in for it in the deployed form."""
    swaps: dict[nn.Module, nn.Module] = {}
    placed = state.placed
    for quantizer in placed.activations.values():
        swaps[quantizer] = QuantizeDequantize(scale_of(quantizer))
    for echo in placed.echoes.values():
        swaps[echo] = QuantizeDequantize(scale_of(echo.of[0]))
    for of_weight, parameter, axis in state.functional_weights.values():
        scale = scale_of(of_weight)
        codes = weight_codes(parameter.detach(), scale, axis)
        swaps[of_weight] = Codes(codes, scale, axis, form)
    quantizers = {layer: q for _, layer, q in weight_quantizers(model)}
    for layer in model.modules():
        if not isinstance(layer, WEIGHTED_MODULES) or layer in swaps:
            continue
        norm = placed.norms.get(layer)
        weight_quantizer = quantizers.get(layer)
        if (
            weight_quantizer is None
            and norm is None
            and getattr(layer, "_weight_mask", None) is None
        ):
            continue
        if norm is not None and _cannot_fold(layer, norm, weight_quantizer):
            norm = None
        swaps[layer] = _deploy_layer(layer, weight_quantizer, norm, form)
        if norm is not None:
            swaps[norm] = nn.Identity()
    for layer, side, quantizer in placed.closed:
        if layer in swaps:
            setattr(swaps[layer], side.replace("quantizer", "pair"), swaps[quantizer])
    return swaps


def _cannot_fold(layer: nn.Module, norm: nn.Module, quantizer: nn.Module | None) -> bool:
    """Tell whether a BatchNorm must stay behind a transposed convolution, or has no statistics.

    Its factor would give an INT8 weight a scale for each output channel, which TensorRT has no
    ConvTranspose for (E3); a grouped one has no single axis of its output channels to scale.
    """
    transposed = isinstance(layer, TRANSPOSED_MODULES)
    return norm.running_mean is None or (
        transposed and (quantizer is not None or cast("int", layer.groups) > 1)
    )


def _deploy_layer(
    layer: nn.Module, quantizer: nn.Module | None, norm: nn.Module | None, form: WeightForm
) -> DeployedLayer:
    weight = float_weight(layer)
    bias = cast("torch.Tensor | None", layer.bias)
    bias = None if bias is None else bias.detach()
    output_axis = 1 if isinstance(layer, TRANSPOSED_MODULES) else 0
    if quantizer is None:
        if norm is not None:
            factor, _, bias = fold_norm(norm, torch.ones(()), bias)
            weight = weight * _along(factor, output_axis, weight.dim())
        return DeployedLayer(layer, weight, bias)
    scale = scale_of(quantizer)
    axis = channel_axis(quantizer, scale)
    codes = weight_codes(weight, scale, axis)
    if norm is not None:
        factor, scale, bias = fold_norm(norm, scale, bias)
        axis = output_axis
        codes = codes * _along(factor.sign().to(torch.int8), axis, codes.dim())
    return DeployedLayer(layer, Codes(codes, scale, axis, form), bias)
