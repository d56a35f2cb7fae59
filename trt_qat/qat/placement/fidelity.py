"""Whether a traced graph computes what the module computes: on the seen batch, and on others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.proxy import TraceError

from trt_qat.qat.placement.calls import Call, mode, tensors_of

IMAGE_STEP = 32  # networks take images whose sides are multiples of it
FEW = 2  # samples of another size: enough to show a number that tracing has burnt in


def holds_at_once(module: nn.Module, forward: Any, call: Call) -> bool:
    """Tell whether the traced ``forward`` computes what the module does where all sizes differ.

    A larger batch of larger images and longer sequences is run: where that holds, no size is burnt
    in, and neither `check_fidelity` nor `holds_for_other_sizes` has more to ask. All grow by half,
    so that no product of two sizes is what it was. False says nothing yet: the module may take the
    batch, but not such images.
    """
    if _size(call.leaves) < 2:
        return False
    given = _larger_batch(call.leaves)
    leaves = next(_in_other_sizes(given, part=2), None)
    if leaves is None:
        return False
    expected = _run(module, module.forward, call, leaves)
    return expected is not None and _equal(
        expected, _run(module, _bound(forward, module), call, leaves)
    )


def check_fidelity(module: nn.Module, forward: Any, call: Call) -> bool:
    """Run the traced ``forward`` beside the module on a larger batch than the traced one.

    A batch size or any other number that tracing has burnt in shows there, ``x[:4]`` as well. Where
    the module takes no larger one, a smaller is run, and where it takes no other, the traced one.

    Returns:
        Whether the module takes a batch of another size.

    Raises:
        TraceError: they differ.
    """
    batch = _size(call.leaves)
    smaller = [_first(call.leaves, batch // 2)] if batch > 1 else []
    for leaves in (_larger_batch(call.leaves), *smaller, call.leaves):
        expected = _run(module, module.forward, call, leaves)
        if expected is None:
            continue  # the module itself cannot take such a batch
        got = _run(module, _bound(forward, module), call, leaves, strict=True)
        if not _equal(expected, got):
            message = "the traced graph computes something else, or holds for one batch size"
            raise TraceError(message)
        return leaves is not call.leaves
    return False


def holds_for_other_sizes(module: nn.Module, forward: Any, call: Call, samples: int = 0) -> bool:
    """Tell whether the traced ``forward`` takes other images and sequences as the module does.

    Args:
        module: that was traced.
        forward: of the traced graph.
        call: how the module was called.
        samples: of the batch that are tried; 0: all of them.
    """
    given = _first(call.leaves, samples) if samples else call.leaves
    for leaves in _in_other_sizes(given):
        expected = _run(module, module.forward, call, leaves)
        if expected is not None:
            return _equal(expected, _run(module, _bound(forward, module), call, leaves))
    return True  # the module itself takes no other


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
    """Return half of a batch more, and of one sample two."""
    batch = _size(leaves)
    more = max(batch // 2, 1)
    return [torch.cat([a, a[:more]]) if _is_batch(a, batch) else a for a in leaves]


def _first(leaves: list[Any], count: int) -> list[Any]:
    """Return the first samples of a batch; one of fewer stays."""
    batch = _size(leaves)
    return [leaf[:count] if _is_batch(leaf, batch) else leaf for leaf in leaves]


def _size(leaves: list[Any]) -> int:
    sizes = {leaf.shape[0] for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dim()}
    return max(sizes, default=0)


def _is_batch(leaf: Any, size: int) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.dim() > 0 and leaf.shape[0] == size


def _in_other_sizes(given: list[Any], part: int = 1) -> Iterator[list[Any]]:
    """Yield inputs in other sizes, what shows most first.

    Images and volumes are larger; sequences, ``(batch, length, ...)``, are longer, then signals,
    ``(batch, channels, length)``, then sequences shorter: cut to a length that is burnt in, they
    are what they were.

    Args:
        given: tensors, and whatever else a module is called with.
        part: images grow by this part of a side, and by a step at most.
    """
    tried = [_shapes(given)]
    for axis, longer in ((1, True), (2, True), (1, False)):
        leaves = [_resized(leaf, axis, longer, part) for leaf in given]
        if (shapes := _shapes(leaves)) not in tried:
            tried.append(shapes)
            yield leaves


def _shapes(leaves: list[Any]) -> list[Any]:
    return [leaf.shape if isinstance(leaf, torch.Tensor) else None for leaf in leaves]


def _resized(leaf: Any, axis: int, longer: bool, part: int) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    floats, dims = leaf.is_floating_point(), leaf.dim()
    if floats and dims in (4, 5) and min(leaf.shape[2:]) > 1:
        larger = [side + min(side // part, IMAGE_STEP) for side in leaf.shape[2:]]
        return F.interpolate(leaf.float(), larger).to(leaf.dtype)
    if (dims == 3 or (dims == 2 and axis == 1 and not floats)) and leaf.shape[axis] > 2:
        half = leaf.narrow(axis, 0, leaf.shape[axis] // 2)
        if not longer:
            return half
        if not leaf.is_cuda:  # where to look up a position behind the last one ends the process
            return torch.cat([leaf, half], axis)
    return leaf
