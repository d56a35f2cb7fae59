"""torch.fx tracing with real values beside the proxies.

Plain fx gives up where Python asks a proxy for a number: ``list(x.chunk(2))``, ``int(x.shape[2])``,
``if channels != 3``. Here every proxy carries the value that it has on one real batch, so that what
depends on shapes and flags is answered, and what depends on the data in a tensor is still refused.
"""

from __future__ import annotations

import copy
import itertools
import operator
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.fx.proxy import TraceError
from torch.utils import _pytree as pytree  # there is no public flattening of nested containers

from trt_qat.qat.placement.attention import COMPOSITES, code_of
from trt_qat.qat.placement.calls import Call, mode, tensors_of
from trt_qat.qat.placement.callsite import Scope, Scopes, current_line, operation_name
from trt_qat.qat.placement.kinds import BATCH_NORMS, WEIGHTED_MODULES
from trt_qat.qat.placement.proxy import ValueProxy, proxies_of, values_of
from trt_qat.qat.placement.stock import HOOKS, own_code

_SHAPE_METHODS = {"size", "dim", "numel", "ndimension", "stride", "is_contiguous", "element_size"}
_TYPE_QUESTIONS = {
    torch.is_floating_point, torch.is_complex, "is_floating_point", "is_complex"
}  # fmt: skip
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class ValueTracer(fx.Tracer):
    """Traces a module as it was called in `Call`; leaves are the layers that placement knows."""

    proxy_buffer_attributes = True

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call
        self.output_structure: Any = None
        self.inlined: dict[str, bool] = {}  # modules run through, and whether hooks were
        self._names: dict[int, str] = {}  # of the model's tensors, by identity
        self._scopes = Scopes()
        self._computing = False  # values, not proxies: modules run as they are
        self._opened: Scope | None = None  # the layer whose own code is being traced
        self._closed: set[nn.Module] = set()  # layers whose own code could not be
        self.norms_opened = False
        self._whole: set[Any] = set()  # functions of the user's that could not be

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """Trace a module; no node asks its code to wrap what it calls, as fx marks what it took."""
        tensors = itertools.chain(root.named_buffers(), root.named_parameters())
        self._names = {id(tensor): name for name, tensor in tensors}
        graph = super().trace(root, concrete_args)
        for node in graph.nodes:
            node.meta.pop("is_wrapped", None)
        return graph

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Keep torch's own layers whole, and the layers that ModelOpt converted."""
        if isinstance(m, (*_CONTAINERS, *COMPOSITES)) or self._opens(m):
            return False
        return isinstance(m, WEIGHTED_MODULES) or any(
            base.__module__.startswith(("torch.nn.modules.", "modelopt.")) and base is not nn.Module
            for base in type(m).__mro__
        )

    def _opens(self, module: nn.Module) -> bool:
        """Tell whether to trace a layer's own code: what it multiplies by is then a weight.

        So is a norm's, such as one that applies the activation behind it.
        """
        own = makes_own_product(module) or _is_own_norm(module)
        return own and module not in self._closed

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """Make a placeholder of every tensor argument; everything else keeps its value."""
        leaves = []
        for name, leaf in zip(self.call.names(), self.call.leaves, strict=True):
            if isinstance(leaf, torch.Tensor):
                proxy: Any = super().create_proxy("placeholder", name, (), {})
                proxy.value = leaf.clone()
                proxy.node.meta.update(tensors=1, integer=not leaf.is_floating_point())
                leaves.append(proxy)
            else:
                leaves.append(leaf)
        bound = self.call.bind(leaves)

        def call(root: nn.Module) -> Any:
            result = root.forward(*bound.args, **bound.kwargs)
            leaves, self.output_structure = pytree.tree_flatten(result)
            return tuple(leaves)

        return call, [self.root]

    def create_arg(self, a: Any) -> Any:
        """Turn a proxy into its node before fx asks what type it pretends to be."""
        return a.node if issubclass(type(a), fx.Proxy) else super().create_arg(a)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return a proxy whose value is set by `create_proxy`."""
        return ValueProxy(node, self)

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **options: Any
    ) -> Any:
        """Record an operation and compute its value."""
        if (code := code_of(target)) is not None:
            return code(*args, **kwargs)
        if self._is_wrapped(target):
            result = self._attempt(lambda: target(*args, **kwargs))
            if issubclass(type(result), fx.Proxy):
                return result
            self._whole.add(target)
        if target in _TYPE_QUESTIONS:
            return self._compute(kind, target, values_of(args), values_of(kwargs))
        proxy: Any = super().create_proxy(kind, target, args, kwargs, *rest, **options)
        if kind in ("call_function", "call_method"):
            name = operation_name(target)
            proxy.node.meta["site"] = self._scopes.site(current_line(), name)
            proxy.node.meta["ordinal"] = self._scopes.ordinal(name)
            proxy.node.meta["opened"] = self._opened
        given = (values_of(args), values_of(kwargs))
        self._computing = True
        try:
            proxy.value = self._compute(kind, target, *given)
        finally:
            self._computing = False
        tensors = tensors_of(proxy.value)
        proxy.node.meta["tensors"] = len(tensors)
        proxy.node.meta["integer"] = bool(tensors) and not tensors[0].is_floating_point()
        if isinstance(proxy.value, (tuple, list)):
            proxy.node.meta["arity"] = len(proxy.value)
        proxy.node.meta["gone"] = kind != "get_attr" and self._returns_input(proxy.value, *given)
        proxies = list(proxies_of((args, kwargs)))
        reads_shape = target is getattr or target in _SHAPE_METHODS or kind == "call_module"
        proxy.from_data = not isinstance(proxy.value, (torch.Tensor, tuple, list)) and any(
            p.from_data or (isinstance(p.value, torch.Tensor) and not reads_shape) for p in proxies
        )
        if isinstance(proxy.value, bool) and not proxy.from_data:
            self.graph.erase_node(proxy.node)  # the way that it decides is traced
            return proxy.value
        if isinstance(proxy.value, int) and not proxy.from_data:
            proxy.node.meta["number"] = proxy.value
        return proxy

    @staticmethod
    def _returns_input(value: Any, args: Any, kwargs: Any) -> bool:
        """Tell whether an operation handed its input on: nothing of it is left when deployed."""
        return isinstance(value, torch.Tensor) and any(
            value is given for given in (*args, *kwargs.values())
        )

    def _compute(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "get_attr":
            value = operator.attrgetter(target)(self.root)
            return value.detach().clone()
        if kind == "call_function":
            return target(*args, **kwargs)
        if kind == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        module = self.root.get_submodule(target)
        with mode(module, training=False):  # or BatchNorm would count this batch
            return module(*args, **kwargs)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Record the call of a leaf; inside one, run it."""
        if self._computing:
            return forward(*args, **kwargs)
        try:
            path = self.path_of_module(m)
        except NameError:  # made in forward: nn.ReLU()(x)
            return forward(*args, **kwargs)
        if self._opened is None and (self._opens(m) or isinstance(m, nn.MultiheadAttention)):
            return self._open(m, path, lambda: self._enter(m, path, forward, args, kwargs))
        return self._enter(m, path, forward, args, kwargs)

    def _enter(self, m: nn.Module, path: str, forward: Any, args: Any, kwargs: Any) -> Any:
        scope = self._scopes.enter(path)
        try:
            result = super().call_module(m, forward, args, kwargs)
        finally:
            self._scopes.leave()
        if self.is_leaf_module(m, path):
            result.node.meta["scope"] = scope
        else:
            self.inlined[path] = any(getattr(m, hooks) for hooks in HOOKS)
        return result

    def _open(self, m: nn.Module, path: str, enter: Any) -> Any:
        """Trace a layer's own code; where it cannot be, call it whole."""
        self._opened = self._scopes.next_call(path)
        self.norms_opened |= _is_own_norm(m)
        try:
            result = self._attempt(enter)
        finally:
            self._opened = None
        if result is not None:
            return result
        self._closed.add(m)
        return enter()

    def _attempt(self, run: Callable[[], Any]) -> Any:
        """Return what the code makes; None, and what was traced of it taken back, if it fails."""
        last = next(reversed(self.graph.nodes))
        kept = copy.deepcopy(self._scopes), OrderedDict(self.module_stack), dict(self.inlined)
        try:
            return run()
        except Exception:
            self._scopes, self.module_stack, self.inlined = kept
            while (node := next(reversed(self.graph.nodes))) is not last:
                self.graph.erase_node(node)
        return None

    def _is_wrapped(self, function: Any) -> bool:
        """Tell whether ``torch.fx.wrap`` gave this function: it is not torch's and not ours."""
        return (
            isinstance(function, types.FunctionType)
            and not function.__module__.startswith(("torch.", "trt_qat."))
            and function not in self._whole
        )

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        """Let parameters and buffers be proxies; inside a leaf, let them be themselves.

        fx looks through all of the model's for each; that is left for those made in forward.
        """
        if self._computing or not isinstance(attr_val, torch.Tensor):
            return attr_val
        name = self._names.get(id(attr_val))
        if name is None:
            return super().getattr(attr, attr_val, parameter_proxy_cache)
        if name not in parameter_proxy_cache:
            parameter_proxy_cache[name] = self.create_proxy("get_attr", name, (), {})
        return parameter_proxy_cache[name]

    def to_bool(self, obj: Any) -> bool:
        """Answer what depends on shapes and flags, refuse what depends on data."""
        return bool(obj._number())

    def iter(self, obj: Any) -> Iterator[Any]:
        """Iterate over a tuple of known length, as of chunk or shape."""
        value = obj.value
        if isinstance(value, torch.Tensor):
            message = "iteration over the batch dimension of a tensor"
            raise TraceError(message)
        return iter([obj[i] for i in range(len(value))])


def _is_own_norm(module: nn.Module) -> bool:
    return isinstance(module, BATCH_NORMS) and own_code(module, hooked=True) is not None


def makes_own_product(module: nn.Module) -> bool:
    """Tell whether a layer of torch multiplies in a way of its own: by a computed weight, say.

    Such as convolutions that pad by the size of their input or standardise their weight, adapters,
    parametrizations, and what weight norm and pruning do by a hook.
    """
    if not isinstance(module, WEIGHTED_MODULES):
        return False
    masked = module._buffers.get("_weight_mask") is not None  # a getattr is traced, and slow
    made = module._parameters.get("weight") is None and not masked
    return own_code(module, hooked=True) is not None or made
