"""Running a model's own forward with the quantizers that were placed on its deployed graph.

Training may take another way through the code than the deployed graph does: auxiliary heads,
stochastic depth, raw outputs in place of decoded ones. So may a call with other arguments, and
hooks on parts that the graph runs through. Then the user's code runs as it is; a quantizer is
applied to what an operation reads wherever that operation reads a quantized tensor when deployed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

# torch has no public flattening of nested containers.
from torch.utils import _pytree as pytree

from trt_qat.qat.placement.attention import code_of
from trt_qat.qat.placement.callsite import (
    QUANTIZERS,
    Line,
    Ordinal,
    Scope,
    Scopes,
    Site,
    current_line,
    modules_by_path,
    operation_name,
)
from trt_qat.qat.placement.pausable import Pausable

Reads = dict[int, str]
"""Position among the tensors that an operation is given -> path of its quantizer."""


@dataclass(frozen=True)
class Cut:
    """A second run of an operation that takes a tensor apart: of the quantized tensor.

    Some members are read quantized and others as they are, so the deployed graph cuts both.

    Attributes:
        reads: what the second run reads; a member of it is read by the name of its quantizer.
        behind: paths of the quantizers that are given its members.
    """

    reads: Reads
    behind: frozenset[str]


@dataclass
class Operation:
    """A function or method of the deployed graph that is given quantized tensors.

    Attributes:
        reads: what it reads.
        cuts: its second runs.
    """

    reads: Reads = field(default_factory=dict)
    cuts: list[Cut] = field(default_factory=list)


@dataclass
class OwnPath:
    """What a run of the user's code has to know of the deployed graph; plain data throughout.

    Attributes:
        operations: functions and methods that read quantized tensors, by where they stand.
        by_order: the same ones, by name and order.
        lines: every instruction of the deployed graph, with its scope.
        scopes: all of those scopes.
        modules: calls of leaf modules, with what they read quantized.
        leaves: paths of the leaf modules, in which nothing is looked for.
        returned: positions among the returned tensors.
        returns: how many tensors the deployed graph returns.
    """

    operations: dict[Site, Operation] = field(default_factory=dict)
    by_order: dict[Ordinal, Operation] = field(default_factory=dict)
    lines: set[tuple[Scope, Line]] = field(default_factory=set)
    scopes: set[Scope] = field(default_factory=set)
    modules: dict[Scope, Reads] = field(default_factory=dict)
    leaves: set[str] = field(default_factory=set)
    returned: Reads = field(default_factory=dict)
    returns: int = 0

    def run(self, owner: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Call ``forward(*args, **kwargs)``, the own code of ``owner``, with its quantizers.

        Where that calls ``owner`` again, as a model that is given targets and computes its loss
        does, the call within is the one that the deployed graph stands for.
        """
        outer = _running(owner)
        if outer is not None:
            outer.returned = True
            return self._with_returned(outer, forward(*args, **kwargs))
        watch = _Watch(self, owner)
        with watch, watch.modules(), _set_aside(owner, watch):
            result = forward(*args, **kwargs)
        return result if watch.returned else self._with_returned(watch, result)

    def _with_returned(self, watch: _Watch, result: Any) -> Any:
        if not self.returned:
            return result
        leaves, structure = pytree.tree_flatten(result)
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        if len(places) != self.returns:
            return result
        for position, name in self.returned.items():
            leaves[places[position]] = watch.quantized(name, leaves[places[position]])
        return pytree.tree_unflatten(leaves, structure)


_FLAT = (torch.Tensor, int, float, str, torch.dtype, torch.device, type(None))
"""What most operations are given: nothing to take apart, which costs as much as an operation."""

_RUNS = threading.local()
"""Watches of this thread by their owner's attributes, which its proxies in torch.export share."""


def _running(owner: nn.Module) -> _Watch | None:
    watch: _Watch | None = vars(_RUNS).get(str(id(vars(owner))))
    return watch


@contextlib.contextmanager
def _set_aside(owner: nn.Module, watch: _Watch) -> Iterator[None]:
    """Take the quantizers out of the owner's children, over which its forward may walk."""
    holder = owner._modules.pop(QUANTIZERS, None)
    vars(_RUNS)[str(id(vars(owner)))] = watch
    try:
        yield
    finally:
        del vars(_RUNS)[str(id(vars(owner)))]
        if holder is not None:
            owner._modules[QUANTIZERS] = holder


@contextlib.contextmanager
def deployed_within(owner: nn.Module) -> Iterator[None]:
    """Let the deployed graph run where the owner's own code has called it."""
    watch = _running(owner)
    if watch is None:
        yield
        return
    watch.returned = True
    watch.pause()
    owner._modules[QUANTIZERS] = watch.holder
    try:
        yield
    finally:
        del owner._modules[QUANTIZERS]
        watch.resume()


class _Watch(Pausable):
    """Sees every operation of one run, and hands quantized tensors to those that read them.

    It is paused in a leaf and in a quantizer.
    """

    def __init__(self, plan: OwnPath, owner: nn.Module) -> None:
        super().__init__()
        self.plan = plan
        self.quantizers = modules_by_path(owner)
        self.holder = owner._modules.get(QUANTIZERS)
        self.returned = False  # a call within has returned what the deployed graph returns
        # By their attributes: torch.export calls proxies of modules, which share these.
        self.paths = {id(vars(module)): path for path, module in self.quantizers.items()}
        self.scopes = Scopes()
        self.names = {key.name for key in plan.by_order}
        # By their attributes too; what their hooks do is part of their call.
        self.hooked = {id(vars(m)): m for m in self.quantizers.values() if m._forward_hooks}
        self.closing: list[bool] = []  # known, for every call whose hooks are running
        self.inside: list[bool] = []  # known, for every call of a module that is going on
        self.thread = threading.get_ident()  # torch's hooks see the modules of all threads
        self.made: dict[tuple[str, int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        # Member of a cut, and who reads it quantized -> that member of the quantized tensor.
        self.twins: dict[tuple[str, int, int], tuple[torch.Tensor, torch.Tensor]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func`` on what it reads in the deployed graph."""
        kwargs = kwargs or {}
        if self.busy:
            return func(*args, **kwargs)
        if (code := code_of(func)) is not None:
            with self:
                return code(*args, **kwargs)
        known = self._known(operation_name(func))
        if known is None:
            return func(*args, **kwargs)
        own = self._replace(known.reads, args, kwargs) if known.reads else (args, kwargs)
        made = func(*own[0], **own[1])
        for cut in known.cuts:
            twin = self._replace(cut.reads, args, kwargs)
            self._remember(cut, made, func(*twin[0], **twin[1]))
        return made

    def _known(self, name: str) -> Operation | None:
        """Return the operation of the deployed graph that stands at this line."""
        if name not in self.names:
            return None
        line, plan = current_line(), self.plan
        site, ordinal = self.scopes.site(line, name), self.scopes.ordinal(name)
        if site.scope not in plan.scopes:  # called more often than in the deployed graph
            first = Scope(site.scope.path, 0)
            site, ordinal = site._replace(scope=first), ordinal._replace(scope=first)
        if (site.scope, line) in plan.lines:
            return plan.operations.get(site)
        return plan.by_order.get(ordinal)

    def _remember(self, cut: Cut, made: Any, twin: Any) -> None:
        members = zip(pytree.tree_leaves(made), pytree.tree_leaves(twin), strict=True)
        for member, other in members:
            self.made[_key(cut.reads[0], member)] = other, member
            for name in cut.behind:
                self.twins[_key(name, member)] = other, member

    def _replace(self, reads: Reads, args: Any, kwargs: Any) -> tuple[Any, Any]:
        given = [*args, *kwargs.values()]
        if all(isinstance(value, _FLAT) for value in given):
            leaves = self._among(reads, given)
            return tuple(leaves[: len(args)]), dict(zip(kwargs, leaves[len(args) :], strict=True))
        leaves, structure = pytree.tree_flatten((args, kwargs))
        replaced: tuple[Any, Any] = pytree.tree_unflatten(self._among(reads, leaves), structure)
        return replaced

    def _among(self, reads: Reads, leaves: list[Any]) -> list[Any]:
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        for position, name in reads.items():
            if position < len(places):
                leaves[places[position]] = self.quantized(name, leaves[places[position]])
        return leaves

    def quantized(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return ``tensor`` on the grid of a quantizer; once for all who read it."""
        self.pause()
        try:
            key = _key(name, tensor)
            if key not in self.made:
                given = self.twins[key][0] if key in self.twins else tensor
                # The tensor is kept with its result: no other one may get its id.
                self.made[key] = (self.quantizers[name](given), tensor)
            return self.made[key][0]
        finally:
            self.resume()

    @contextlib.contextmanager
    def modules(self) -> Iterator[None]:
        """Follow the calls of modules by torch's global hooks, which torch calls in order.

        They come before a module's own, so where it has some a last one of ours ends its call.
        """
        handles = [
            register_module_forward_pre_hook(self._before),
            register_module_forward_hook(self._after, always_call=True),
            *(m.register_forward_hook(self._close, always_call=True) for m in self.hooked.values()),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, module: nn.Module, args: Any) -> Any:
        if threading.get_ident() != self.thread:
            return None
        path = self.paths.get(id(vars(module)))
        known = path is not None and not self.busy
        self.inside.append(known)
        if not known or path is None:
            return None
        scope = self.scopes.enter(path)
        if path not in self.plan.leaves:
            return None
        # A call more than the deployed graph has reads what the first one does.
        known_calls = self.plan.modules
        reads = known_calls.get(scope, known_calls.get(Scope(path, 0)))
        replaced = self._replace(reads, args, {})[0] if reads else None
        self.pause()
        return replaced

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() != self.thread or not self.inside:
            return
        known = self.inside.pop()
        if known and self.scopes.stack[-1].path in self.plan.leaves:
            self.resume()
        if id(vars(module)) in self.hooked:
            self.closing.append(known)
        elif known:
            self.scopes.leave()

    def _close(self, module: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() == self.thread and self.closing and self.closing.pop():
            self.scopes.leave()


def _key(name: str, tensor: torch.Tensor) -> tuple[str, int, int]:
    """Return what tells a tensor from others, and from itself after an operation in place."""
    return name, id(tensor), 0 if tensor.is_inference() else tensor._version
