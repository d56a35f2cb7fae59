"""How far apart torch and the file are: at one tensor, in parts of its largest magnitude."""

from __future__ import annotations

import torch
from torch import Tensor

from trt_qat.qat.quantizers.formats import INT8, Format

SAMPLED = 4096
"""Elements of a tensor that show what its quantizer does: it treats all elements alike."""

TIE, TIE_HALF = 1e-3, 0.1
"""Of a step: a quotient so close to a half may round to either side, as it was divided; what is so
close to a code is one. Of FP16 and BF16 a code of 127 has no more places."""

TOLERANCE = 1e-4
"""Of a tensor's largest magnitude. Sums of float32 in another order leave some 1e-6; an INT8 step
is 8e-3, so what is let through moves no value but those within an eightieth of a step of a tie."""

TOLERANCE_HALF = 1e-2
"""The same of FP16 and BF16, whose last place is 1e-3 and 8e-3."""

HALVES = (torch.float16, torch.bfloat16)


def tolerance_of(want: Tensor) -> float:
    """Return what ``want`` may be off by, in parts of its largest magnitude."""
    return TOLERANCE_HALF if want.dtype in HALVES else TOLERANCE


def gap(want: Tensor, got: Tensor, floor: float = 0.0) -> float:
    """Return the largest difference over the largest magnitude; NaN where NaN is not shared.

    Args:
        want: the model's; infinities in it must be in the other too and do not count otherwise.
        got: the file's, of the same shape. Of integers and booleans the part that differs counts.
        floor: the least that the difference is divided by.
    """
    if not want.numel():
        return 0.0
    if not want.is_floating_point():
        return float(torch.ne(want, got).double().mean())
    want, got = want.float(), got.float()
    apart, size = _largest(want - got), _largest(want)
    if not (apart < torch.inf and size < torch.inf):  # NaN as well
        finite = torch.isfinite(want)
        if not torch.equal(want[~finite], got[~finite]):
            return float("nan")
        if not finite.any():
            return 0.0
        apart, size = _largest(want[finite] - got[finite]), _largest(want[finite])
    size = max(size, floor)
    return apart / size if size else (0.0 if apart == 0.0 else float("inf"))


def _largest(tensor: Tensor) -> float:
    low, high = torch.aminmax(tensor)
    return max(-float(low), float(high)) if not torch.isnan(low) else float("nan")


def off_grid(given: Tensor, returned: Tensor, scale: float, kind: Format = INT8) -> float:
    """Return the part of the elements that a quantizer rounds otherwise than QuantizeLinear does.

    Args:
        given: what the quantizer was given.
        returned: what it returned, of the same shape.
        scale: of the file's pair, whose zero point is 0.
        kind: of number that the pair makes.
    """
    stride = max(1, given.numel() // SAMPLED) | 1  # odd, so that it meets every channel
    tie = TIE_HALF if given.dtype in HALVES else TIE
    x, y = (t.detach().reshape(-1)[::stride].double() for t in (given, returned))
    low = float(kind.rounded(torch.tensor(-2 * kind.top), of_weight=False))
    code, steps = y / scale, (x / scale).clamp(low, kind.largest)
    step = kind.step(code)
    nearest = (code - steps).abs() <= (0.5 + tie) * step
    whole = (code - kind.rounded(code, of_weight=False)).abs() <= tie * step
    wrong = ~(nearest & whole) & torch.isfinite(x)
    return float(wrong.double().mean()) if wrong.numel() else 0.0
