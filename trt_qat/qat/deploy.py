"""The deployed form of a fake-quantized model: codes instead of weights, explicit Q/DQ pairs.

Every module stays where it is and runs its own code: hooks, a subclass's forward and what others
read off a layer are in the exported graph because they ran. Only quantizers are replaced, by
custom operators that the exporter translates to QuantizeLinear and DequantizeLinear. BatchNorm is
folded on the exported graph (`trt_qat.qat.fold_norms`). The model is put back as it was afterwards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, cast

import torch
from modelopt.torch.quantization.nn import TensorQuantizer
from torch import nn

from trt_qat.qat.layer_weights import float_weight, functional_weights, weight_quantizers
from trt_qat.qat.masked import masked_layers
from trt_qat.qat.placement.calls import mode
from trt_qat.qat.placement.kinds import BATCH_NORMS
from trt_qat.qat.placement.stock import stock_class
from trt_qat.qat.quantize import Quantized, quantized
from trt_qat.qat.quantizers.axes import along_axis, channel_axis
from trt_qat.qat.quantizers.fake_quant import scale_of
from trt_qat.qat.quantizers.formats import (
    FP8,
    INT8,
    NVFP4,
    UNSIGNED,
    Format,
    block_of,
    format_of,
    two_levels,
)

WeightForm = Literal["int8", "fp32"]

HALVES = 2
"""Codes of E2M1, which torch has no type for, are held as integers: halves."""

PER_TENSOR = -1  # as an operator's axis


def _along(scale: torch.Tensor, axis: int, rank: int) -> torch.Tensor:
    return along_axis(scale, None if axis == PER_TENSOR else axis, rank)


def _pair(kind: Format) -> Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]:
    def quantize_dequantize(x: torch.Tensor, scale: torch.Tensor, axis: int) -> torch.Tensor:
        scale = _along(scale, axis, x.dim())
        return kind.rounded(x / scale, of_weight=False) * scale

    return quantize_dequantize


def _dequantize(codes: torch.Tensor, scale: torch.Tensor, axis: int) -> torch.Tensor:
    return codes.to(scale.dtype) * _along(scale, axis, codes.dim())


def _dequantize_blocks(codes: torch.Tensor, scale: torch.Tensor, axis: int) -> torch.Tensor:
    block = block_of(codes, scale, axis)
    return codes.to(scale.dtype) * scale.repeat_interleave(block, axis)


def _dequantize_two_levels(
    codes: torch.Tensor, scale: torch.Tensor, axis: int, blocks: torch.Tensor
) -> torch.Tensor:
    return _dequantize_blocks(codes, blocks.to(scale.dtype) * scale, axis) / HALVES


def _register_operators() -> None:
    library: Any = torch.library
    pair = "(Tensor x, Tensor scale, int axis) -> Tensor"
    dequantize = "(Tensor codes, Tensor scale, int axis) -> Tensor"
    two_levels_of = "(Tensor codes, Tensor scale, int axis, Tensor blocks) -> Tensor"
    for name, schema, kernel in (
        ("quantize_dequantize", pair, _pair(INT8)),
        ("quantize_dequantize_unsigned", pair, _pair(UNSIGNED)),
        ("quantize_dequantize_fp8", pair, _pair(FP8)),
        ("dequantize", dequantize, _dequantize),
        ("dequantize_blocks", dequantize, _dequantize_blocks),
        ("dequantize_two_levels", two_levels_of, _dequantize_two_levels),
    ):
        library.define(f"trt_qat::{name}", schema)
        library.impl(f"trt_qat::{name}", "CompositeExplicitAutograd", kernel)
        if schema is pair:
            library.register_fake(f"trt_qat::{name}", lambda x, scale, axis: x.clone())
        else:
            library.register_fake(
                f"trt_qat::{name}",
                lambda codes, scale, *_: torch.empty_like(codes, dtype=scale.dtype),
            )


_register_operators()

PAIRS = {
    INT8: torch.ops.trt_qat.quantize_dequantize.default,
    UNSIGNED: torch.ops.trt_qat.quantize_dequantize_unsigned.default,
    FP8: torch.ops.trt_qat.quantize_dequantize_fp8.default,
}
"""The pair of each format."""

OPERATORS = (
    *PAIRS.values(),
    torch.ops.trt_qat.dequantize.default,
    torch.ops.trt_qat.dequantize_blocks.default,
    torch.ops.trt_qat.dequantize_two_levels.default,
)
"""What stands for QuantizeLinear and DequantizeLinear in a deployed form."""


class _Stand(nn.Module):
    """What stands in for a quantizer of ModelOpt's; its layers ask them for these (Conv3d does)."""

    num_bits, block_sizes, is_enabled = 8, None, False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` as it is, as a quantizer that is off does."""
        return x


class QuantizeDequantize(_Stand):
    """One explicit pair of an activation."""

    def __init__(self, quantizer: nn.Module) -> None:
        super().__init__()
        self.pair = PAIRS[format_of(quantizer)]
        self.register_buffer("scale", scale_of(quantizer).clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` on the grid; Q and DQ want the scale in its type."""
        # A cast to its own type is two more nodes to trace, at every pair.
        scale = self.scale if self.scale.dtype == x.dtype else self.scale.to(x.dtype)
        return cast("torch.Tensor", self.pair(x, scale, PER_TENSOR))


class Codes(_Stand):
    """A weight as codes and scale, or as float values behind a Q/DQ pair."""

    def __init__(
        self,
        codes: torch.Tensor,
        scale: torch.Tensor,
        axis: int | None,
        form: WeightForm,
        kind: Format,
        blocks: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("weight_block_scale", blocks)
        self.axis = PER_TENSOR if axis is None else axis
        values = codes if form == "int8" or kind.blocked else _dequantize(codes, scale, self.axis)
        self.form = form
        self.register_buffer("weight", values)
        self.register_buffer("weight_scale", scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the dequantized weight in place of ``x``, the float weight."""
        operator: Any = torch.ops.trt_qat.dequantize
        if self.weight_block_scale is not None:
            both = torch.ops.trt_qat.dequantize_two_levels
            blocks = self.weight_block_scale
            return cast("torch.Tensor", both(self.weight, self.weight_scale, self.axis, blocks))
        if self.kind.blocked:
            operator = torch.ops.trt_qat.dequantize_blocks
        elif self.form == "fp32":
            operator = PAIRS[self.kind]
        return cast("torch.Tensor", operator(self.weight, self.weight_scale, self.axis))


def weight_codes(
    weight: torch.Tensor,
    scale: torch.Tensor,
    axis: int | None,
    kind: Format = INT8,
    *,
    narrow: bool = True,
) -> torch.Tensor:
    """Return the codes of a float weight; of INT8 symmetric in -127..127 unless not ``narrow``."""
    if kind.blocked and axis is not None:
        spread = scale.repeat_interleave(block_of(weight, scale, axis), axis)
    else:
        spread = along_axis(scale, axis, weight.dim())
    quotient = weight / spread
    codes = kind.rounded(quotient, of_weight=narrow)
    return (codes * HALVES if kind is NVFP4 else codes).to(kind.codes)


@contextlib.contextmanager
def deployed(model: nn.Module, form: WeightForm) -> Iterator[nn.Module]:
    """Turn a quantized model into its deployed form for the time of the context.

    Args:
        model: from `quantize`, fine-tuned or not; put back as it was at the end.
        form: ``int8``: codes behind DequantizeLinear, or ``fp32`` values behind a Q/DQ pair.
    """
    swaps = _swaps(model, quantized(model), form)
    undo = [
        (parent, key, child)
        for parent in model.modules()
        for key, child in parent._modules.items()
        if child is not None and child in swaps
    ]
    with mode(model, training=False), masks_applied(model), _no_counters(model):
        try:
            for parent, key, child in undo:
                parent._modules[key] = swaps[child]
            yield model
        finally:
            for parent, key, child in undo:
                parent._modules[key] = child


def _swaps(model: nn.Module, state: Quantized, form: WeightForm) -> dict[nn.Module, nn.Module]:
    """Return quantizer -> what stands in for it in the deployed form."""
    placed = state.placed
    swaps: dict[nn.Module, nn.Module] = {
        module: _Stand()
        for module in model.modules()
        if isinstance(module, TensorQuantizer) and not module.is_enabled
    }
    for quantizer in placed.activations.values():
        swaps[quantizer] = QuantizeDequantize(quantizer)
    for echo in placed.echoes.values():
        swaps[echo] = QuantizeDequantize(echo.of[0])
    for of_weight, weight, axis in functional_weights(model, placed):
        swaps[of_weight] = _codes(of_weight, weight, axis, form)
    for _, layer, weight_quantizer in weight_quantizers(model):
        weight = float_weight(layer)
        axis = channel_axis(weight_quantizer, scale_of(weight_quantizer))
        swaps[weight_quantizer] = _codes(weight_quantizer, weight, axis, form)
    return swaps


def _codes(
    quantizer: TensorQuantizer, weight: torch.Tensor, axis: int | None, form: WeightForm
) -> Codes:
    scale = scale_of(quantizer).to(weight.dtype)
    kind, narrow = format_of(quantizer), bool(quantizer.narrow_range)
    codes = weight_codes(weight, scale, axis, kind, narrow=narrow)
    if kind is NVFP4:
        blocks, scale = two_levels(cast("torch.Tensor", quantizer.amax))
        return Codes(codes, scale.to(weight.dtype), axis, form, kind, blocks)
    return Codes(codes, scale, axis, form, kind)


@contextlib.contextmanager
def _no_counters(model: nn.Module) -> Iterator[None]:
    """Leave out what BatchNorm counts in training: one more constant of the graph, read by none."""
    name = "num_batches_tracked"
    kept = [(m, m._buffers[name]) for m in model.modules() if _counts_batches(m)]
    try:
        for norm, _ in kept:
            norm._buffers[name] = None
        yield
    finally:
        for norm, counter in kept:
            norm._buffers[name] = counter


def _counts_batches(module: nn.Module) -> bool:
    counts = isinstance(module, BATCH_NORMS) and "num_batches_tracked" in module._buffers
    return counts and stock_class(module) is not None  # code of its own may read it


@contextlib.contextmanager
def masks_applied(model: nn.Module) -> Iterator[None]:
    """Let weights that hold a 2:4 mask be what they are under it: a constant, not a product."""
    masked = list(masked_layers(model).values())
    kept = [(m, m._parameters["weight"], m._buffers["_weight_mask"]) for m in masked]
    try:
        for layer in masked:
            weight = float_weight(layer)
            layer._buffers["_weight_mask"] = None
            layer._parameters["weight"] = nn.Parameter(weight, requires_grad=False)
        yield
    finally:
        for layer, parameter, mask in kept:
            layer._parameters["weight"], layer._buffers["_weight_mask"] = parameter, mask
