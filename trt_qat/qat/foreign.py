"""Fake quantization of other toolkits: what it looks like, and what its numbers mean.

Known are the FakeQuantize modules of torch.ao and torchao, the TensorQuantizer of ModelOpt and of
pytorch-quantization, and the operators that they end in (``torch.fake_quantize_*``, and
``quantized_decomposed`` of PT2E). torchao and pytorch-quantization need not be installed: their
modules are told by what they hold.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from modelopt.torch.quantization.nn import TensorQuantizer
from torch import fx, nn

from trt_qat.errors import ModelError
from trt_qat.qat.quantizers.int8 import CODE_MAX

OBSERVER = "torch.ao's observers"
_OBSERVER = ("calculate_qparams", "min_val", "max_val", "quant_min", "quant_max")
_KERNELS = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")
_LEVELS = 256
_OPERATORS = ("fake_quantize_", "quantized_decomposed.")


@dataclass(frozen=True, eq=False)
class Grid:
    """How a foreign quantizer maps codes to reals.

    Attributes:
        scale: Scalar, or ``(channels,)`` float32.
        zero_point: Of the shape of ``scale``, float32.
        low: Smallest code.
        high: Largest code.
        axis: Channel axis; None: per tensor.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor
    low: int
    high: int
    axis: int | None

    @property
    def symmetric(self) -> bool:
        """Every code of it is one of symmetric INT8 with the same scale."""
        return not bool(self.zero_point.any()) and self.low >= -128 and self.high <= CODE_MAX

    @property
    def reach(self) -> torch.Tensor:
        """The largest magnitude of symmetric INT8 over the same range; the same grid if it can be.

        An asymmetric range is widened to the same magnitude on both sides.
        """
        if self.symmetric:
            return self.scale * CODE_MAX
        ends = [(code - self.zero_point) * self.scale for code in (self.low, self.high)]
        return torch.maximum(ends[0].abs(), ends[1].abs())

    @property
    def top(self) -> torch.Tensor:
        """The largest real of the grid: the range of a tensor without negative values."""
        return (self.high - self.zero_point) * self.scale


def toolkit(module: nn.Module) -> str:
    """Return whose fake quantizer a module is; empty: it is none."""
    if isinstance(module, TensorQuantizer):
        return "ModelOpt" if module.is_enabled else ""
    held = ("scale", "zero_point", "quant_min", "quant_max", "fake_quant_enabled")
    if all(hasattr(module, name) for name in held):
        return "torch.ao"
    if all(hasattr(module, name) for name in _OBSERVER):
        return OBSERVER
    if type(module).__name__ == "TensorQuantizer" and hasattr(module, "num_bits"):
        return "pytorch-quantization"
    return ""


def quantizers(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield path, module and toolkit of every foreign fake quantizer of a model.

    The observer within a fake quantizer is a part of it.
    """
    within: set[int] = set()
    for path, module in model.named_modules():
        owner = "" if id(module) in within else toolkit(module)
        if owner:
            within |= {id(part) for part in module.modules()}
            yield path, module, owner


def is_fake_quantization(node: fx.Node) -> bool:
    """Tell whether a node calls one of the operators of fake quantization."""
    name = str(getattr(node.target, "__name__", node.target))
    return node.op == "call_function" and (
        name.startswith(_OPERATORS[0]) or _OPERATORS[1] in str(node.target)
    )


def refuse(model: nn.Module, graphs: Iterator[fx.Graph] | tuple[fx.Graph, ...], what: str) -> None:
    """Refuse a model that carries somebody else's fake quantization.

    Raises:
        ModelError: it does; one sentence, the same from every stage.
    """
    refuse_converted(model, what)
    found = [(path, owner) for path, _, owner in quantizers(model)]
    if isinstance(model, fx.GraphModule):
        graphs = (*graphs, model.graph)
    calls = [node for graph in graphs for node in graph.nodes if is_fake_quantization(node)]
    if found or calls:
        where = f"{found[0][1]} ({found[0][0]!r}" if found else by_operator(_named(calls[0].target))
        raise refusal(what, where, len(found) + len(calls))


def refusal(what: str, where: str, count: int) -> ModelError:
    """Return the one sentence on foreign fake quantization, the same from every stage."""
    more = f" and {count - 1} more" if count > 1 else ""
    return ModelError(
        f"{what}: the model carries fake quantization by {where}{more}); take its scales over with "
        "trt_qat.adopt, or give the float model"
    )


def by_operator(name: str) -> str:
    """Return whose a fake quantization by an operator is, for `refusal`."""
    return f"an operator ({name}"


def _named(target: Any) -> str:
    """Return an operator's name; that of a builtin function without its address."""
    return str(target) if isinstance(target, torch._ops.OpOverload) else str(target.__name__)


def refuse_converted(model: nn.Module, what: str) -> None:
    """Refuse a model of torch's own quantized kernels, which hold no float weights to train.

    Raises:
        ModelError: it is one.
    """
    for path, module in model.named_modules():
        if type(module).__module__.startswith(_KERNELS):
            message = (
                f"{what}: {path!r} was converted to torch's quantized kernels; give the prepared "
                "model, as it was before convert, to trt_qat.adopt, or the float model"
            )
            raise ModelError(message)


def grid_of(path: str, module: nn.Module) -> Grid:
    """Return the grid of a foreign quantizer.

    Raises:
        ModelError: it is not calibrated, or not of 8 bits.
    """
    owner = toolkit(module)
    held: Any = module
    if owner == OBSERVER:
        return _observed(path, held)
    if owner == "torch.ao":
        axis = int(held.ch_axis) if held.scale.numel() > 1 else None
        low, high = int(held.quant_min), int(held.quant_max)
        return checked(path, held.scale, held.zero_point, low, high, axis)
    bits, amax = held.num_bits, getattr(held, "amax", None)
    if bits != 8:
        message = f"adopt: {path!r} quantizes to {bits} bits; only INT8 can be taken over"
        raise ModelError(message)
    if amax is None or isinstance(amax, (int, float)):
        amax = None if amax is None else torch.tensor(float(amax))
    if amax is None:
        message = f"adopt: {path!r} has no range; calibrate the model where it comes from"
        raise ModelError(message)
    unsigned = bool(getattr(held, "unsigned", getattr(held, "_unsigned", False)))
    axis = next((i for i, size in enumerate(amax.shape) if size > 1), None)
    levels = 255 if unsigned else CODE_MAX
    low = 0 if unsigned else -128
    scale = amax.detach().float().reshape(-1 if axis is not None else ()) / levels
    return checked(path, scale, torch.zeros_like(scale), low, levels, axis)


def _observed(path: str, observer: Any) -> Grid:
    """Return the grid that an observer would be converted to.

    Raises:
        ModelError: it has seen nothing, or is not of 8 bits.
    """
    seen = torch.as_tensor(observer.max_val)
    if not seen.numel() or not bool(torch.isfinite(seen).all()):
        message = f"adopt: {path!r} has no range; calibrate the model where it comes from"
        raise ModelError(message)
    scale, zero_point = observer.calculate_qparams()[:2]
    axis = int(getattr(observer, "ch_axis", 0)) if scale.numel() > 1 else None
    low, high = int(observer.quant_min), int(observer.quant_max)
    return checked(path, scale, zero_point, low, high, axis)


def freeze(model: nn.Module) -> None:
    """Keep every foreign quantizer of a model from measuring what it is run on.

    Args:
        model: changed in place.
    """
    for _, module, owner in quantizers(model):
        held: Any = module
        if owner == OBSERVER:
            held.forward = types.MethodType(_passing, module)
        elif hasattr(held, "disable_observer"):
            held.disable_observer()


def _passing(_: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return x


def checked(path: str, scale: Any, zero_point: Any, low: int, high: int, axis: int | None) -> Grid:
    """Return a grid of 8 bits.

    Raises:
        ModelError: it has more, or scales that are not positive.
    """
    scale = torch.as_tensor(scale).detach().float().cpu()
    zero = torch.as_tensor(zero_point).detach().float().cpu()
    if scale.numel() == 1:
        scale, zero, axis = scale.reshape(()), zero.reshape(()), None
    if high - low >= _LEVELS:
        message = f"adopt: {path!r} has {high - low + 1} levels; only INT8 can be taken over"
        raise ModelError(message)
    if not bool(torch.isfinite(scale).all()) or not bool((scale > 0).all()):
        message = f"adopt: {path!r} has a scale that is not positive; calibrate the model first"
        raise ModelError(message)
    return Grid(scale, zero.expand(scale.shape), low, high, axis)
