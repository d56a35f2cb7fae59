"""The number formats that tensors are quantized to, and the grid of codes that each has.

A scale is the end of a range over the format's largest code, and a value becomes ``rounded(value /
scale) * scale``. Sources: TensorRT, "Quantization Schemes" (INT8: rounded to nearest even and
clipped; FP8: clipped to 448 and cast to E4M3, nearest even; INT4: of weights alone, -8 to 7, a
scale for each block of the reduction; NVFP4: of weights alone, E2M1 in blocks of 16 whose scales
are E4M3 times one of all).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trt_qat.qat.quantizers.int8 import ACTIVATION_MIN, CODE_MAX, WEIGHT_MIN

UNSIGNED_MAX = 255
INT4_MAX = 7  # symmetric, though -8 is a code
E2M1_MAX = 6.0
LEAST_WHOLE = 2.0**-13
_E2M1_TOP = 7.0
E4M3 = torch.float8_e4m3fn
E4M3_MAX = 448.0
_E4M3_TOP = 464.0  # half a step beyond: what is nearer rounds to the largest code
_E4M3_MANTISSA = 4  # bits that a number has, with the leading one
_E4M3_SMALLEST = -9  # exponent of the step of subnormal numbers


def _int8(quotient: Tensor, *, of_weight: bool) -> Tensor:
    return quotient.round().clamp_(WEIGHT_MIN if of_weight else ACTIVATION_MIN, CODE_MAX)


def _unsigned(quotient: Tensor, *, of_weight: bool) -> Tensor:
    return quotient.round().clamp_(0, UNSIGNED_MAX)


def _int4(quotient: Tensor, *, of_weight: bool) -> Tensor:
    return quotient.round().clamp_(-INT4_MAX, INT4_MAX)


def _e2m1(quotient: Tensor, *, of_weight: bool) -> Tensor:
    step = _e2m1_step(quotient)
    return (quotient / step).round_().mul_(step).clamp_(-E2M1_MAX, E2M1_MAX)


def _e2m1_step(quotient: Tensor) -> Tensor:
    magnitude = quotient.abs()
    half = torch.full_like(magnitude, 0.5)
    return half * (1 + (magnitude >= 2) + 2 * (magnitude >= 4))


def _even(quotient: Tensor) -> Tensor:
    return torch.ones_like(quotient)


def _e4m3(quotient: Tensor, *, of_weight: bool) -> Tensor:
    return quotient.clamp(-E4M3_MAX, E4M3_MAX).to(E4M3).to(quotient.dtype)


def _e4m3_step(quotient: Tensor) -> Tensor:
    magnitude = quotient.float().abs().clamp_min(2.0**_E4M3_SMALLEST)
    exponent = torch.frexp(magnitude).exponent - _E4M3_MANTISSA
    step = torch.ldexp(torch.ones_like(magnitude), exponent.clamp(min=_E4M3_SMALLEST))
    return step.to(quotient.dtype)


@dataclass(frozen=True)
class Format:
    """A number format of activations and weights.

    Attributes:
        name: as a recipe has it.
        title: as people write it.
        backend: that its quantizers have in ModelOpt.
        num_bits: of ModelOpt: bits, or those of exponent and mantissa.
        largest: code.
        top: magnitude of a quotient from which on it is out of range.
        codes: type of the stored codes.
        rounded: ``(quotient, of_weight=...)`` -> codes, as floats of its type.
        step: of the grid at each quotient.
        opset: of ONNX, the first that has its Q and DQ.
        blocked: of weights alone, a scale for each block along the reduction.
    """

    name: str
    title: str
    backend: str
    num_bits: int | tuple[int, int]
    largest: float
    top: float
    codes: torch.dtype
    rounded: Callable[..., Tensor]
    step: Callable[[Tensor], Tensor]
    opset: int
    blocked: bool = False


INT8 = Format(
    "int8", "INT8", "trt_qat_int8", 8, CODE_MAX, CODE_MAX + 0.5, torch.int8, _int8, _even, 10
)
FP8 = Format(
    "fp8", "FP8", "trt_qat_fp8", (4, 3), E4M3_MAX, _E4M3_TOP, E4M3, _e4m3, _e4m3_step, 19
)  # fmt: skip
INT4 = Format(
    "int4", "INT4", "trt_qat_int4", 4, INT4_MAX, INT4_MAX + 0.5, torch.int8, _int4, _even, 21,
    blocked=True,
)  # fmt: skip
NVFP4 = Format(
    "nvfp4", "NVFP4", "trt_qat_nvfp4", (2, 1), E2M1_MAX, _E2M1_TOP, torch.int8, _e2m1, _e2m1_step,
    23, blocked=True,
)  # fmt: skip
UNSIGNED = Format(
    "int8", "INT8", INT8.backend, 8, UNSIGNED_MAX, UNSIGNED_MAX + 0.5, torch.int8, _unsigned, _even,
    10,
)  # fmt: skip
"""INT8 of a tensor that is never negative: codes -128 to 127 stand for 0 to 255 steps."""
FORMATS = {each.name: each for each in (INT8, FP8, INT4, NVFP4)}
_OF_BACKEND = {each.backend: each for each in FORMATS.values()}


def format_of(quantizer: nn.Module) -> Format:
    """Return the format of one of our quantizers."""
    backend = str(getattr(quantizer, "backend", ""))
    if backend == INT8.backend and getattr(quantizer, "unsigned", False):
        return UNSIGNED
    return _OF_BACKEND.get(backend, INT8)


def code_range(quantizer: nn.Module) -> tuple[int, int]:
    """Return the least and the largest step of an INT8 quantizer's grid."""
    if format_of(quantizer) is UNSIGNED:
        return 0, UNSIGNED_MAX
    return (WEIGHT_MIN if getattr(quantizer, "narrow_range", False) else ACTIVATION_MIN), CODE_MAX


def two_levels(amax: Tensor, widest: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the scales of NVFP4: those of blocks, E4M3, and what all of them are times, float32.

    The latter is a normal number of FP16, so that the remainder of a network can be cast: E4M3 is
    as precise lower in its range.

    Args:
        amax: the largest magnitude of each block, above 0.
        widest: the largest of all blocks, where ``amax`` is of some of them.
    """
    top = (amax.amax() if widest is None else widest).float()
    whole = (top / (E2M1_MAX * E4M3_MAX)).clamp_min(LEAST_WHOLE)
    smallest = 2.0**_E4M3_SMALLEST
    blocks = (amax.float() / E2M1_MAX / whole).clamp(smallest, E4M3_MAX).to(E4M3)
    return blocks, whole


def block_scale(kind: Format, amax: Tensor, widest: Tensor | None = None) -> Tensor:
    """Return the scale of each block of a blocked format, as a file holds it, float32.

    Args:
        kind: of number.
        amax: the largest magnitude of each block, above 0.
        widest: the largest of all blocks, where ``amax`` is of some of them.
    """
    if kind is NVFP4:
        blocks, whole = two_levels(amax, widest)
        return blocks.float() * whole
    return amax.float() / kind.largest


def block_of(weight: Tensor, scale: Tensor, axis: int) -> int:
    """Return how many elements of a weight share a scale along an axis."""
    return int(weight.shape[axis] // scale.shape[axis])


def is_ours(module: nn.Module) -> bool:
    """Tell whether a module is a quantizer that `quantize` made."""
    return getattr(module, "backend", None) in _OF_BACKEND
