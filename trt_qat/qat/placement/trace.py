"""Tracing a model into regions whose data flow is known.

The whole model is one region when torch.fx can trace it. Where it cannot (control flow that
depends on data, unpacked keyword arguments), its children are tried, so that the largest traceable
parts are placed and the code around them keeps running as Python. A weighted layer that no region
covers is a `Region` of its own, with a graph of one call.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from trt_qat.qat.placement.kinds import WEIGHTED_MODULES


@dataclass
class Region:
    """One traced part of a model: ``graph`` calls leaf modules by paths below ``owner``."""

    path: str
    owner: nn.Module
    graph: fx.Graph
    leaf: bool = False

    def module_path(self, node: fx.Node) -> str:
        """Return the path from the model's root to the module that ``node`` calls."""
        return ".".join(p for p in (self.path, str(node.target)) if p)


@dataclass
class Trace:
    """The regions of a model, and why each part that fx could not trace was left as Python."""

    regions: list[Region] = field(default_factory=list)
    untraced: dict[str, str] = field(default_factory=dict)


class _Tracer(fx.Tracer):
    """Leaves are the layers that placement knows as modules; everything else is looked into."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            return False
        return isinstance(m, WEIGHTED_MODULES) or any(
            base.__module__.startswith(("torch.nn.modules.", "modelopt."))
            and base not in (nn.Module,)
            for base in type(m).__mro__
        )

    def keys(self, obj: fx.Proxy) -> Any:
        """Let ``f(**kwargs)`` pass nothing on: parts called with extra keywords are not traced."""
        return ()


class _ModesDiffer(Exception):
    """The forward takes different paths in training and in evaluation."""


def trace(model: nn.Module, batch: Any) -> Trace:
    """Trace ``model`` into the largest regions that torch.fx can follow.

    Args:
        model: any module.
        batch: one real batch (tensor, tuple or dict), run once to see how each part is called:
            an optional argument that was not given stays None in the traced part.
    """
    result = Trace()
    _trace_into(model, "", result, _observe_calls(model, batch))
    return result


def _trace_into(
    module: nn.Module, path: str, result: Trace, calls: dict[nn.Module, dict[str, Any]]
) -> None:
    if module not in calls and not isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        if any(isinstance(m, WEIGHTED_MODULES) for m in module.modules()):
            result.untraced[path] = "not called with the given batch"
        return
    if isinstance(module, WEIGHTED_MODULES):
        result.regions.append(Region(path, module, _single_call(), leaf=True))
        return
    if not any(True for _ in module.parameters()):
        return
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        reason = ""
    else:
        try:
            result.regions.append(Region(path, module, _trace_both_modes(module, calls[module])))
            return
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    if _Tracer().is_leaf_module(module, path):
        result.untraced[path] = f"{type(module).__name__} is a closed layer of torch"
        return
    if reason:
        result.untraced[path] = reason
    for name, child in module.named_children():
        _trace_into(child, f"{path}.{name}" if path else name, result, calls)


def _single_call() -> fx.Graph:
    """Return the graph of one weighted layer: the region is its own owner, target ''."""
    graph = fx.Graph()
    graph.output(graph.call_module("", (graph.placeholder("input"),)))
    return graph


def _trace_both_modes(module: nn.Module, fixed: dict[str, Any]) -> fx.Graph:
    """Trace in training and evaluation mode and return one graph that serves both.

    Functional dropout bakes ``self.training`` into its arguments; such an argument becomes a read
    of ``self.training`` again. Any other difference makes the module untraceable.
    """
    with _mode(module, training=True):
        graph = _Tracer().trace(module, fixed)
    with _mode(module, training=False):
        evaluation = _Tracer().trace(module, fixed)
    pairs = list(zip(graph.nodes, evaluation.nodes, strict=False))
    if len(graph.nodes) != len(evaluation.nodes) or any(
        (a.op, str(a.target)) != (b.op, str(b.target)) for a, b in pairs
    ):
        message = "forward takes different paths in training and in evaluation"
        raise _ModesDiffer(message)
    for trained, evaluated in pairs:
        _unbake_training(graph, trained, evaluated)
    for node in graph.find_nodes(op="placeholder"):
        for name in fixed:  # fx numbers the arguments that it specialises
            if str(node.target).rpartition("_")[0] == name:
                node.target = name
    _read_mutated_values(graph, module)
    return graph


def _unbake_training(graph: fx.Graph, trained: fx.Node, evaluated: fx.Node) -> None:
    def merge(a: Any, b: Any) -> Any:
        if a is True and b is False:
            with graph.inserting_before(trained):
                return graph.create_node("get_attr", "training")
        if isinstance(a, (int, float, str, bool)) and a != b:
            message = f"{trained.name}: argument {a!r} in training, {b!r} in evaluation"
            raise _ModesDiffer(message)
        return a

    if trained.op in ("call_function", "call_method"):
        args = tuple(merge(a, b) for a, b in zip(trained.args, evaluated.args, strict=True))
        kwargs = {k: merge(a, evaluated.kwargs.get(k)) for k, a in trained.kwargs.items()}
        trained.args, trained.kwargs = args, kwargs


def _read_mutated_values(graph: fx.Graph, owner: nn.Module) -> None:
    """Let whoever reads a tensor after an in-place operation on it read that operation's result.

    fx keeps in-place calls in order but not in the data flow: a quantizer put on the value before
    ``x.relu_()`` would otherwise be read by those who mean the value after it.
    """
    position = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if not _in_place(node, owner) or not isinstance(node.args[0], fx.Node):
            continue
        for user in list(node.args[0].users):
            if position[user] > position[node]:
                user.replace_input_with(node.args[0], node)


def _in_place(node: fx.Node, owner: nn.Module) -> bool:
    if node.op == "call_method":
        name = str(node.target)
        return name.endswith("_") and not name.endswith("__")
    if node.op == "call_module":
        return bool(getattr(owner.get_submodule(str(node.target)), "inplace", False))
    if node.op != "call_function":
        return False
    name = getattr(node.target, "__name__", "")
    in_operator = getattr(node.target, "__module__", "") == "_operator"
    return (
        bool(node.kwargs.get("inplace"))
        or (name.startswith("i") and in_operator and name not in ("invert", "index", "is_", "inv"))
        or (name.endswith("_") and not name.endswith("__") and not in_operator)
    )


def _observe_calls(model: nn.Module, batch: Any) -> dict[nn.Module, dict[str, Any]]:
    """Run ``model`` once; return for each module called its arguments that are not tensors."""
    calls: dict[nn.Module, dict[str, Any]] = {}

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        signature = inspect.signature(module.forward)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        fixed = {
            name: value
            for name, value in bound.arguments.items()
            if (value is None or isinstance(value, (bool, int, float, str)))
            and signature.parameters[name].kind
            not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        }
        calls.setdefault(module, fixed)

    handles = [m.register_forward_pre_hook(before, with_kwargs=True) for m in model.modules()]
    try:
        evaluated(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def evaluated(model: nn.Module, batch: Any) -> Any:
    """Return the model's output on ``batch`` in evaluation mode, without gradients."""
    with _mode(model, training=False):
        return call_model(model, batch)


def call_model(model: nn.Module, batch: Any) -> Any:
    """Call ``model`` with a batch: a dict by keyword, a tuple or list by position, else alone."""
    if isinstance(batch, dict):
        return model(**batch)
    if isinstance(batch, (tuple, list)):
        return model(*batch)
    return model(batch)


@contextlib.contextmanager
def _mode(module: nn.Module, *, training: bool) -> Iterator[None]:
    before = {m: m.training for m in module.modules()}
    module.train(training)
    try:
        with torch.no_grad():
            yield
    finally:
        for m, was in before.items():
            m.training = was
