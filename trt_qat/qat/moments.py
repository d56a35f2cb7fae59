"""What weighted layers are given: first and second moments of their inputs, seen while they run.

A layer is known by the tensor that it multiplies by, so a convolution that is called as a function
is seen as one that is a module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from trt_qat.qat.placement.calls import evaluated, tensors_of

PIECE = 8
"""Samples at once: unfolded inputs of a convolution are kernel times as large."""

HELD_BYTES = 1 << 30
"""Of second moments; layers beyond it are seen in a further pass."""

DAMPING = 0.01
"""Of the mean square of the inputs: what a few samples do not tell must not decide a code."""

_CONV = {torch.conv1d: 1, torch.conv2d: 2}

_PRODUCTS: dict[Any, tuple[str, ...]] = {
    **dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__), ("input", "other")),
    **dict.fromkeys((torch.mm, Tensor.mm), ("input", "mat2")),
    **dict.fromkeys((torch.addmm, Tensor.addmm), ("input", "mat1", "mat2")),
}
"""What multiplies by a weight whose output channels are its columns, by names of what it takes."""


@dataclass(frozen=True)
class Known:
    """How a layer is known.

    Attributes:
        weight: what it multiplies by: the parameter, or the quantizer that makes it.
        columns: of the weight, for each output channel.
        transposed: whether the layer is ``x @ weight``, and no convolution or ``F.linear``.
    """

    weight: nn.Module | Tensor
    columns: int
    transposed: bool = False


@dataclass
class Moments:
    """Of the inputs of one layer, a column for each weight of an output channel.

    Attributes:
        second: mean of products, ``(groups, K, K)`` float32, K as ``weight.flatten(1)`` has.
        mean: ``(groups, K)`` float32.
        count: of the positions that both are means of.
        bias: what the layer adds; None: nothing.
        norm_mean: ``running_mean`` of the BatchNorm that reads the output; None: there is none.
    """

    second: Tensor
    mean: Tensor
    count: int = 0
    bias: Tensor | None = None
    norm_mean: Tensor | None = None

    def add(self, columns: Tensor) -> None:
        """Take in ``(groups, K, positions)``."""
        total = self.count + columns.shape[-1]
        keep = self.count / total
        self.second.mul_(keep).baddbmm_(columns, columns.transpose(1, 2), alpha=1 / total)
        self.mean.mul_(keep).add_(columns.sum(-1), alpha=1 / total)
        self.count = total

    @property
    def power(self) -> Tensor:
        """Return the mean square of every column, ``(groups, K)``."""
        return self.second.diagonal(dim1=1, dim2=2)

    def damped(self) -> Tensor:
        """Return the second moments as they weigh errors, ``(groups, K, K)``, a copy."""
        products = self.second.clone()
        more = DAMPING * self.power.mean(1) + torch.finfo(torch.float32).tiny
        products.diagonal(dim1=1, dim2=2).add_(more[:, None])
        return products


def input_moments(
    model: nn.Module, weights: Mapping[str, Known], batches: Iterable[Any]
) -> dict[str, Moments]:
    """Run ``batches`` through ``model`` in evaluation mode and return layer -> its moments.

    Args:
        model: float or quantized.
        weights: of the layers to watch, by any names.
        batches: inputs; can be read again.

    Returns:
        Of those layers that ran as a convolution, a linear layer or, where known as one, a product.
    """
    found: dict[str, Moments] = {}
    for names in _portions(weights):
        watch = _Watch({name: weights[name] for name in names})
        with watch.marked():
            for batch in batches:
                for piece in pieces(batch):
                    with watch:
                        evaluated(model, piece)
                    watch.forget()
        found |= watch.moments
    return found


def pieces(batch: Any) -> Iterator[Any]:
    """Yield a batch in parts of `PIECE` samples, whole where its samples cannot be told."""
    sizes = {t.shape[0] for t in tensors_of(batch) if t.dim()}
    if len(sizes) != 1 or max(sizes) <= PIECE:
        yield batch
        return
    for start in range(0, max(sizes), PIECE):
        yield pytree.tree_map(
            lambda v, at=start: (
                v[at : at + PIECE] if isinstance(v, Tensor) and v.dim() else v
            ),
            batch,
        )  # fmt: skip


def _portions(weights: Mapping[str, Known]) -> Iterator[list[str]]:
    portion: list[str] = []
    held = 0
    for name, known in weights.items():
        portion.append(name)
        held += 4 * known.columns**2
        if held > HELD_BYTES:
            yield portion
            portion, held = [], 0
    if portion:
        yield portion


class _Watch(TorchFunctionMode):
    """Sees every convolution, linear layer and product with a tensor that it knows."""

    def __init__(self, known: Mapping[str, Known]) -> None:
        super().__init__()
        self.moments: dict[str, Moments] = {}
        self._weights = {name: each.weight for name, each in known.items()}
        self._names = {id(w): n for n, w in self._weights.items() if isinstance(w, Tensor)}
        self._transposed = {name for name, each in known.items() if each.transposed}
        self._passing: dict[int, str] = {}
        self._held: list[Tensor] = []  # so that no id is used twice

    @contextmanager
    def marked(self) -> Iterator[None]:
        """Let the outputs of quantizers be known by their layer's name inside the block."""
        handles = [
            weight.register_forward_hook(lambda _m, _i, output, name=name: self.saw(name, output))
            for name, weight in self._weights.items()
            if isinstance(weight, nn.Module)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def saw(self, name: str, weight: Tensor) -> None:
        """Let a tensor be the weight of a layer until `forget`."""
        self._passing[id(weight)] = name
        self._held.append(weight)

    def forget(self) -> None:
        """Forget the tensors of the last run."""
        self._passing.clear()
        self._held.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function, and look at what a known layer was given."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _CONV or func is F.linear:
            self._layer(func, result, *args, **kwargs)
        elif func in _PRODUCTS:
            given = dict(zip(_PRODUCTS[func], args, strict=False)) | kwargs
            self._product(result, *(given.get(name) for name in _PRODUCTS[func][-2:]))
        elif func is F.batch_norm:
            name = self._passing.get(-id(args[0]))
            if name is not None and isinstance(args[1], Tensor):
                self.moments[name].norm_mean = args[1]
        return result

    def _layer(
        self,
        func: Any,
        result: Tensor,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> None:
        name = self._name(weight)
        if name is None or name in self._transposed:
            return
        dims = _CONV.get(func, 0)
        columns = _unfolded(input, weight, dims, stride, padding, dilation, groups)
        self._add(name, columns, result)
        self.moments[name].bias = bias

    def _product(self, result: Tensor, given: Tensor, weight: Tensor) -> None:
        """Look at a product by a matrix; a bias that it adds itself is not corrected."""
        name = self._name(weight)
        if name in self._transposed:
            columns = given.detach().float().reshape(1, -1, given.shape[-1]).transpose(1, 2)
            self._add(name, columns, result)

    def _name(self, weight: Tensor) -> str | None:
        return self._names.get(id(weight)) or self._passing.get(id(weight))

    def _add(self, name: str, columns: Tensor, result: Tensor) -> None:
        if name not in self.moments:
            size = columns.shape[:2]
            zeros = columns.new_zeros
            self.moments[name] = Moments(zeros((*size, size[1])), zeros(size))
        self.moments[name].add(columns)
        self._passing[-id(result)] = name
        self._held.append(result)


def _unfolded(
    given: Tensor, weight: Tensor, dims: int, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    """Return the inputs of a layer as columns, ``(groups, K, positions)`` float32."""
    given = given.detach().float()
    if not dims:
        return given.reshape(1, -1, given.shape[-1]).transpose(1, 2)
    one = dims == 1
    stride, dilation = (_pair(value, one, 1) for value in (stride, dilation))
    kernel = (1, *weight.shape[2:]) if one else tuple(weight.shape[2:])
    if isinstance(padding, str):
        total = [
            d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)
        ]
        sides = [(t // 2, t - t // 2) for t in total]
        given = F.pad(given, [*sides[1], *(() if one else sides[0])])
        padding = (0, 0)
    else:
        padding = _pair(padding, one, 0)
    if one:
        given = given[:, :, None]
    found = F.unfold(given, kernel, dilation, padding, stride)  # (N, C * kernel, L)
    count, size, places = found.shape
    found = found.reshape(count, groups, size // groups, places)
    return found.permute(1, 2, 0, 3).reshape(groups, size // groups, count * places)


def _pair(value: Any, one: bool, first: int) -> tuple[int, int]:
    """Return the values of both axes of an image, of which a sequence has the second alone."""
    given = [value] if isinstance(value, int) else list(value)
    if one:
        return (first, given[0])
    return (given[0], given[-1])
