"""How each part of a model is called: seen once on a real batch, and asked of later calls.

A traced part is true for calls of the same structure: the same arguments given, the same flags.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

# torch has no public flattening of nested containers; transformers registers its ModelOutput here.
from torch.utils import _pytree as pytree

from trt_qat.errors import DataError
from trt_qat.wording import AS_FLOATS

EXAMPLE_SAMPLES = 4


class Mark(enum.Enum):
    """What stands in for a tensor of a call that is kept."""

    TENSOR = "a tensor"


TENSOR = Mark.TENSOR


@dataclass
class Call:
    """One call of a module: its arguments flattened into leaves, tensors among them."""

    signature: inspect.Signature
    structure: Any
    leaves: list[Any]

    @classmethod
    def of(cls, signature: inspect.Signature, args: Any, kwargs: Any) -> Call:
        """Bind what was given to a signature and flatten it."""
        bound = signature.bind(*args, **kwargs)
        leaves, structure = pytree.tree_flatten(dict(bound.arguments))
        return cls(signature, structure, leaves)

    def names(self) -> list[str]:
        """Return a name for every leaf: the parameter's, numbered where it holds several."""
        arguments = pytree.tree_unflatten([str(i) for i in range(len(self.leaves))], self.structure)
        names = [""] * len(self.leaves)
        for parameter, value in arguments.items():
            inner = pytree.tree_leaves(value)
            for position, index in enumerate(inner):
                suffix = f"_{position}" if isinstance(value, (tuple, list, dict)) else ""
                names[int(index)] = f"{parameter}{suffix}"
        return names

    def bind(self, leaves: list[Any]) -> inspect.BoundArguments:
        """Return the arguments of a call with other leaves in the same structure."""
        arguments = pytree.tree_unflatten(leaves, self.structure)
        return inspect.BoundArguments(self.signature, arguments)

    def without_tensors(self) -> Call:
        """Return the call with a mark in place of each tensor: small, and nothing keeps them."""
        leaves = [TENSOR if isinstance(leaf, torch.Tensor) else leaf for leaf in self.leaves]
        empty = inspect.Parameter.empty
        parameters = [p.replace(annotation=empty) for p in self.signature.parameters.values()]
        return Call(inspect.Signature(parameters), self.structure, leaves)

    @functools.cached_property
    def plain(self) -> bool:
        """Whether every parameter was given a tensor, not a list of one: no call can differ."""
        return (
            len(self.leaves) == len(self.signature.parameters)
            and self.structure.num_nodes == 1 + len(self.leaves)
            and all(leaf is TENSOR or isinstance(leaf, torch.Tensor) for leaf in self.leaves)
            and all(
                p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
                for p in self.signature.parameters.values()
            )
        )

    def is_repeated(self, args: Any, kwargs: Any) -> bool:
        """Tell whether another call is as plain, so that its arguments are its leaves."""
        alike = self.plain and not kwargs and len(args) == len(self.leaves)
        return alike and all(isinstance(given, torch.Tensor) for given in args)


def observe_calls(model: nn.Module, batch: Any) -> dict[nn.Module, Call]:
    """Run ``model`` once; return the first call of every module."""
    calls: dict[nn.Module, Call] = {}
    signatures: dict[Any, inspect.Signature] = {}  # by the function of a class, which many share

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module not in calls:
            forward = module.forward
            key = getattr(forward, "__func__", forward)
            if key not in signatures:
                signatures[key] = inspect.signature(forward)
            calls[module] = Call.of(signatures[key], args, kwargs)

    handles = [m.register_forward_pre_hook(before, with_kwargs=True) for m in model.modules()]
    try:
        evaluated_on_few(model, batch, failed=calls.clear)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def guarded(forward: Callable[..., Any], call: Call, output: Any) -> Callable[..., Any]:
    """Wrap a traced forward, which takes and returns tensors alone, in the original's signature.

    Args:
        forward: takes the module and the tensors of ``call.leaves``, returns leaves of ``output``.
        call: the observed call, which a call of the result must be like (`mismatch`).
        output: structure of what the original returned.
    """

    @functools.wraps(forward)
    def wrapper(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not call.is_repeated(args, kwargs):
            args = tuple(tensors_of(Call.of(call.signature, args, kwargs).leaves))
        return pytree.tree_unflatten(list(forward(self, *args)), output)

    return wrapper


def mismatch(call: Call, args: Any, kwargs: Any) -> str | None:
    """Return in what a call differs from the observed one, None where it is of the same kind."""
    if call.is_repeated(args, kwargs):
        return None
    try:
        given = Call.of(call.signature, args, kwargs)
    except TypeError as error:
        return str(error)
    if given.structure != call.structure:
        return "called with other arguments than Q/DQ pairs were placed for"
    for name, now, then in zip(call.names(), given.leaves, call.leaves, strict=True):
        a_tensor = isinstance(now, torch.Tensor), then is TENSOR or isinstance(then, torch.Tensor)
        if a_tensor != (True, True) and (any(a_tensor) or now != then):
            return (
                f"argument {name!r} is {_brief(now)}, but Q/DQ pairs were placed for "
                f"{_brief(then)}; quantize with a batch like this one"
            )
    return None


def _brief(value: Any) -> str:
    return "a tensor" if value is TENSOR or isinstance(value, torch.Tensor) else repr(value)


def tensors_of(value: Any) -> list[torch.Tensor]:
    """Return the tensors in a nest of containers, in order."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def example_of(batch: Any) -> Any:
    """Return a few samples of a batch: observing needs the shape of the call, not its bulk."""
    sizes = {t.shape[0] for t in tensors_of(batch) if t.dim()}
    if len(sizes) != 1 or max(sizes) <= EXAMPLE_SAMPLES:
        return batch
    return pytree.tree_map(
        lambda v: v[:EXAMPLE_SAMPLES] if isinstance(v, torch.Tensor) and v.dim() else v, batch
    )


def evaluated(model: nn.Module, batch: Any) -> Any:
    """Return the model's output on ``batch`` in evaluation mode, without gradients."""
    with mode(model, training=False):
        return call_model(model, batch)


def evaluated_on_few(model: nn.Module, batch: Any, failed: Callable[[], None] | None = None) -> Any:
    """Return the model's output on a few samples, or where it takes no fewer, on the whole batch.

    Args:
        model: in any mode.
        batch: as `call_model` takes it.
        failed: called before the second attempt.
    """
    few = example_of(batch)
    if few is not batch:
        try:
            return evaluated(model, few)
        except Exception:  # code for one batch size, or a first dimension that is no batch
            if failed is not None:
                failed()
    return evaluated(model, batch)


def call_model(model: nn.Module, batch: Any) -> Any:
    """Call ``model`` with a batch: a mapping by keyword, a tuple or list by position, else alone.

    Raises:
        DataError: torch refuses bytes, as images that nobody has made floats of.
    """
    try:
        if isinstance(batch, Mapping):
            return model(**batch)
        if isinstance(batch, (tuple, list)):
            return model(*batch)
        return model(batch)
    except RuntimeError as error:
        if all(tensor.dtype != torch.uint8 for tensor in tensors_of(batch)):
            raise
        message = f"{type(model).__name__} cannot take a batch of torch.uint8: {error}; {AS_FLOATS}"
        raise DataError(message) from error


@contextlib.contextmanager
def mode(module: nn.Module, *, training: bool) -> Iterator[None]:
    """Set training or evaluation mode, without gradients, and put every part back afterwards."""
    with flags(module, training=training), torch.no_grad():
        yield


@contextlib.contextmanager
def flags(module: nn.Module, *, training: bool) -> Iterator[None]:
    """Set training or evaluation mode, and put every part back afterwards.

    Nothing is set where every part is in that mode: to set one is slow in PyTorch.
    """
    before = {m: m.training for m in module.modules()}
    if any(was is not training for was in before.values()):
        module.train(training)
    try:
        yield
    finally:
        for m, was in before.items():  # its own train may merge or part weights
            if m.training is not was:
                m.train(was)
        for m, was in before.items():
            if m.training is not was:
                m.training = was
