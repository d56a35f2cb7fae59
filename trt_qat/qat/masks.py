"""Which two of four weights stay: the largest, by what they multiply, or with the rest made up for.

A weight is seen as rows of output channels and kernel positions, along which four consecutive input
channels are a group, as TensorRT's 2:4 kernels want them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trt_qat.qat.moments import Moments

DAMPING = 0.01
"""Of the mean square of the inputs, added to it: SparseGPT's percdamp."""

BLOCK = 128
"""Columns after which what was lost is handed on to the rest of a row at once."""


def as_rows(weight: Tensor) -> Tensor:
    """Return ``(out, in, *kernel)`` as ``(out, *kernel, in)``, a view."""
    return weight.movedim(1, -1)


def from_rows(rows: Tensor) -> Tensor:
    """Return what `as_rows` was given."""
    return rows.movedim(-1, 1)


def mask_of(scores: Tensor) -> Tensor:
    """Return where the two largest of every four consecutive scores of the last axis are, bool.

    Of equal ones the first. Six comparisons tell how many of its group each is behind: a sort or a
    ``topk`` of groups so short costs several times that.
    """
    a, b, c, d = scores.reshape(*scores.shape[:-1], -1, 4).unbind(-1)
    ab, ac, ad, bc, bd, cd = a >= b, a >= c, a >= d, b >= c, b >= d, c >= d
    # A member stays that is behind at most one of the other three: ahead of two of them.
    first = (ab & ac) | (ab & ad) | (ac & ad)
    second = (~ab & bc) | (~ab & bd) | (bc & bd)
    third = ~(ac & bc) & (cd | ~(ac | bc))
    fourth = ~(first.int() + second + third > 1)
    return torch.stack([first, second, third, fourth], -1).reshape(scores.shape)


def magnitude_mask(weight: Tensor) -> Tensor:
    """Return the 2:4 mask of a weight by its magnitudes, of its shape, bool."""
    return from_rows(mask_of(as_rows(weight.detach()).abs())).contiguous()


def wanda_mask(weight: Tensor, moments: Moments) -> Tensor:
    """Return the mask by magnitude times the norm of the input (Sun et al., 2306.11695)."""
    norms = _by_weight(moments.power.sqrt(), weight)
    return from_rows(mask_of(as_rows(weight.detach().abs() * norms))).contiguous()


def inverse_root(second: Tensor) -> Tensor:
    """Return the upper Cholesky factors of the inverses of second moments, dampened.

    Args:
        second: of the inputs of each group, ``(groups, K, K)``.
    """
    products = second.to(torch.float64, copy=True)
    power = products.diagonal(dim1=1, dim2=2)
    power += DAMPING * power.mean(1, keepdim=True) + 1e-12
    inverse = torch.linalg.inv(products)
    upper: Tensor = torch.linalg.cholesky((inverse + inverse.transpose(1, 2)) / 2, upper=True)
    return upper.float()


def _by_weight(columns: Tensor, weight: Tensor) -> Tensor:
    """Return a number for each column and group, ``(groups, K)``, in the shape of a weight."""
    groups, size = columns.shape
    each = weight.shape[0] // groups
    return columns[:, None].expand(groups, each, size).reshape(weight.shape)


def sparsegpt(weight: Tensor, moments: Moments) -> tuple[Tensor, Tensor]:
    """Prune a weight and let what stays make up for what goes (Frantar and Alistarh, 2301.00774).

    Columns are visited once, in groups of four: two of four go by the error that they leave, and
    the rest of the row takes it over as far as the inputs are correlated.

    Args:
        weight: float, ``(out, in, *kernel)``.
        moments: of the layer's inputs.

    Returns:
        The mask, bool, and the new weight, both of the shape of ``weight``.
    """
    rows = as_rows(weight.detach().float())
    groups, size = moments.mean.shape
    order = _row_order(weight)
    flat = rows.reshape(groups, -1, size).clone()
    upper = inverse_root(moments.second[:, order][:, :, order])
    mask = torch.zeros_like(flat, dtype=torch.bool)
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        _prune_block(flat, mask, upper, start, end)
    shape = rows.shape
    return from_rows(mask.reshape(shape)).contiguous(), from_rows(flat.reshape(shape)).contiguous()


def _row_order(weight: Tensor) -> Tensor:
    """Return which column of ``weight.flatten(1)`` each column of its rows is."""
    numbers = torch.arange(weight[0].numel()).reshape(weight.shape[1:])
    return numbers.movedim(0, -1).flatten()


def _prune_block(flat: Tensor, mask: Tensor, upper: Tensor, start: int, end: int) -> None:
    errors = torch.zeros_like(flat[:, :, start:end])
    own = upper.diagonal(dim1=1, dim2=2)
    for at in range(start, end):
        if at % 4 == 0:
            scores = flat[:, :, at : at + 4].square() / own[:, None, at : at + 4].square()
            mask[:, :, at : at + 4] = mask_of(scores)
        value = flat[:, :, at]
        lost = torch.where(mask[:, :, at], torch.zeros_like(value), value)
        error = lost / own[:, at, None]
        flat[:, :, at:end] -= error[:, :, None] * upper[:, at, None, at:end]
        flat[:, :, at].mul_(mask[:, :, at])
        errors[:, :, at - start] = error
    flat[:, :, end:] -= torch.bmm(errors, upper[:, start:end, end:])
