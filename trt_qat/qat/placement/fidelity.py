"""Whether a traced graph computes what the module computes: on the seen batch, and on others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.proxy import TraceError

from trt_qat.qat.placement.calls import Call, mode, tensors_of

_FINE = 2, 24  # images grow by half, by 24 at most: no multiple of what code may pad them to
_COARSE = 1, 32  # networks that take no other have sides that are multiples of it


def check_fidelity(module: nn.Module, forward: Any, call: Call) -> bool:
    """Run the traced ``forward`` beside the module on a larger batch than the traced one.

    A batch size or any other number that tracing has burnt in shows there, ``x[:4]`` as well. Where
    the module takes no larger one, a smaller is run, and where it takes no other, the traced one.

    Returns:
        Whether the module takes a batch of another size.

    Raises:
        TraceError: they differ.
    """
    smaller = _smaller_batch(call.leaves)
    for leaves in (_larger_batch(call.leaves), smaller, call.leaves):
        if leaves is not None and _agrees(module, forward, call, leaves, strict=True) is not None:
            return leaves is not call.leaves
    return False


def check_smaller(module: nn.Module, forward: Any, call: Call) -> None:
    """Run both on a smaller batch: ``min(4, x.shape[0])`` shows on no larger one.

    Raises:
        TraceError: they differ.
    """
    if (leaves := _smaller_batch(call.leaves)) is not None:
        _agrees(module, forward, call, leaves, strict=True)


def holds_for_other_sizes(
    module: nn.Module, forward: Any, call: Call, *, fewer: bool = False
) -> bool | None:
    """Tell whether the traced ``forward`` takes other images and sequences as the module does.

    Args:
        module: that was traced.
        forward: of the traced graph.
        call: how the module was called.
        fewer: try a smaller batch of them.

    Returns:
        Whether it does; None where the module takes no other.
    """
    smaller = _smaller_batch(call.leaves) if fewer else None
    for leaves in _in_other_sizes(call.leaves if smaller is None else smaller):
        if (found := _agrees(module, forward, call, leaves)) is not None:
            return found
    return None


def _agrees(
    module: nn.Module, forward: Any, call: Call, leaves: list[Any], *, strict: bool = False
) -> bool | None:
    """Tell whether the graph computes what the module does; None where that takes no such input.

    Raises:
        TraceError: of ``strict``, it does not.
    """
    expected = _run(module, module.forward, call, leaves)
    if expected is None:
        return None
    agrees = _equal(expected, _run(module, _bound(forward, module), call, leaves, strict=strict))
    if strict and not agrees:
        message = "the traced graph computes something else, or holds for one batch size"
        raise TraceError(message)
    return agrees


def _bound(forward: Any, module: nn.Module) -> Any:
    return lambda *args, **kwargs: forward(module, *args, **kwargs)


def _run(
    module: nn.Module, forward: Any, call: Call, leaves: list[Any], *, strict: bool = False
) -> list[torch.Tensor] | None:
    bound = call.bind([leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves])
    with mode(module, training=False):
        try:
            return tensors_of(forward(*bound.args, **bound.kwargs))
        except Exception:
            if strict:
                raise
            return None


def _equal(expected: list[torch.Tensor], got: list[torch.Tensor] | None) -> bool:
    return (
        got is not None
        and len(expected) == len(got)
        and all(
            a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)
            for a, b in zip(expected, got, strict=True)
        )
    )


def _larger_batch(leaves: list[Any]) -> list[Any]:
    """Return a quarter of a batch more: where its samples are windows, a multiple of as many."""
    batch = _size(leaves)
    more = max(batch // 4, 1)
    return [torch.cat([a, a[:more]]) if _is_batch(a, batch) else a for a in leaves]


def _smaller_batch(leaves: list[Any]) -> list[Any] | None:
    """Return half of a batch; None: it is one sample."""
    batch = _size(leaves)
    half = batch // 2
    return [a[:half] if _is_batch(a, batch) else a for a in leaves] if half else None


def _size(leaves: list[Any]) -> int:
    sizes = {leaf.shape[0] for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dim()}
    return max(sizes, default=0)


def _is_batch(leaf: Any, size: int) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.dim() > 0 and leaf.shape[0] == size


def _in_other_sizes(given: list[Any]) -> Iterator[list[Any]]:
    """Yield inputs in other sizes, what shows most first.

    Images and volumes are larger; sequences, ``(batch, length, ...)``, are longer, then signals,
    ``(batch, channels, length)``, then sequences shorter: cut to a length that is burnt in, they
    are what they were.
    """
    tried = [_shapes(given)]
    for axis, longer, growth in (
        (1, True, _FINE), (2, True, _FINE), (1, True, _COARSE), (1, False, _COARSE),
    ):  # fmt: skip
        leaves = [_resized(leaf, axis, longer, *growth) for leaf in given]
        if (shapes := _shapes(leaves)) not in tried:
            tried.append(shapes)
            yield leaves


def _shapes(leaves: list[Any]) -> list[Any]:
    return [leaf.shape if isinstance(leaf, torch.Tensor) else None for leaf in leaves]


def _resized(leaf: Any, axis: int, longer: bool, part: int, most: int) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    floats, dims = leaf.is_floating_point(), leaf.dim()
    if floats and dims in (4, 5) and min(leaf.shape[2:]) > 1:
        larger = [side + min(side // part, most) for side in leaf.shape[2:]]
        return F.interpolate(leaf.float(), larger).to(leaf.dtype)
    if (dims == 3 or (dims == 2 and axis == 1 and not floats)) and leaf.shape[axis] > 2:
        half = leaf.shape[axis] // 2
        if not longer:
            return leaf.narrow(axis, 0, half)
        if not leaf.is_cuda:  # where to look up a position behind the last one ends the process
            return torch.cat([leaf, leaf.narrow(axis, 0, half + 1)], axis)
    return leaf
