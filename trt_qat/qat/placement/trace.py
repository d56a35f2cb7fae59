"""Tracing a model into regions whose data flow is known.

The whole model is one region when torch.fx can trace it. Where it cannot (control flow that
depends on data, unpacked keyword arguments), its children are tried, so that the largest traceable
parts are placed and the code around them keeps running as Python. A weighted layer that no region
covers is a `Region` of its own, with a graph of one call.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.fx.proxy import TraceError

from trt_qat.qat.placement.calls import Call, guarded, mode, observe_calls, tensors_of
from trt_qat.qat.placement.kinds import WEIGHTED_MODULES, classify_leaf
from trt_qat.qat.placement.values import ValueTracer
from trt_qat.qat.stock import stock_class


@dataclass
class Region:
    """One traced part of a model: ``graph`` calls leaf modules by paths below ``owner``."""

    path: str
    owner: nn.Module
    graph: fx.Graph
    call: Call
    output_structure: Any = None
    leaf: bool = False

    def module_path(self, node: fx.Node) -> str:
        """Return the path from the model's root to the module that ``node`` calls."""
        return ".".join(p for p in (self.path, str(node.target)) if p)


@dataclass
class Trace:
    """The regions of a model, and why each part that fx could not trace was left as Python."""

    regions: list[Region] = field(default_factory=list)
    untraced: dict[str, str] = field(default_factory=dict)


class _ModesDiffer(Exception):
    """The forward takes different paths in training and in evaluation."""


def trace(model: nn.Module, batch: Any) -> Trace:
    """Trace ``model`` into the largest regions that torch.fx can follow.

    Args:
        model: any module.
        batch: one real batch (tensor, tuple or dict), run once to see how each part is called.
    """
    result = Trace()
    _trace_into(model, "", result, observe_calls(model, batch))
    return result


def _trace_into(module: nn.Module, path: str, result: Trace, calls: dict[nn.Module, Call]) -> None:
    container = isinstance(module, (nn.ModuleList, nn.ModuleDict))
    if module not in calls and not container:
        if any(isinstance(m, WEIGHTED_MODULES) for m in module.modules()):
            result.untraced[path] = "not called with the given batch"
        return
    if isinstance(module, WEIGHTED_MODULES):
        result.regions.append(Region(path, module, _single_call(), calls[module], leaf=True))
        return
    if not any(True for _ in module.parameters()):
        return
    if not container:
        if ValueTracer(calls[module]).is_leaf_module(module, path):
            result.untraced[path] = f"{type(module).__name__} is a closed layer of torch"
            return
        try:
            result.regions.append(_trace_region(module, path, calls[module]))
            return
        except Exception as error:
            first = next(iter(str(error).splitlines()), "")
            result.untraced[path] = f"{type(error).__name__}: {first}"
    for name, child in module.named_children():
        _trace_into(child, f"{path}.{name}" if path else name, result, calls)


def _single_call() -> fx.Graph:
    """Return the graph of one weighted layer: the region is its own owner, target ''."""
    graph = fx.Graph()
    graph.output(graph.call_module("", (graph.placeholder("input"),)))
    return graph


def _trace_region(module: nn.Module, path: str, call: Call) -> Region:
    """Trace in training and evaluation mode, and check the result against the module itself.

    Functional dropout bakes ``self.training`` into its arguments; such an argument becomes a choice
    by ``self.training`` again. Any other difference makes the module untraceable.
    """
    with mode(module, training=True):
        tracer = ValueTracer(call)
        graph = tracer.trace(module)
    with mode(module, training=False):
        evaluation = ValueTracer(call).trace(module)
    for traced in (graph, evaluation):
        _drop_unused_shapes(traced)
        _drop_identities(traced, module)
    pairs = list(zip(graph.nodes, evaluation.nodes, strict=False))
    if len(graph.nodes) != len(evaluation.nodes) or any(
        (a.op, str(a.target)) != (b.op, str(b.target)) for a, b in pairs
    ):
        message = "forward takes different paths in training and in evaluation"
        raise _ModesDiffer(message)
    for trained, evaluated_node in pairs:
        _unbake_training(graph, trained, evaluated_node)
    _read_mutated_values(graph, module)
    region = Region(path, module, graph, call, tracer.output_structure)
    _check_fidelity(region)
    return region


def _drop_unused_shapes(graph: fx.Graph) -> None:
    """Drop shape arithmetic that only answered a question of control flow."""
    for node in reversed(list(graph.nodes)):
        if not node.users and classify_leaf(node) is not None:
            graph.erase_node(node)


def _drop_identities(graph: fx.Graph, owner: nn.Module) -> None:
    """Drop calls of nn.Identity: one between a convolution and its Add must not hide the pair."""
    for node in list(graph.nodes):
        if node.op != "call_module":
            continue
        if stock_class(owner.get_submodule(str(node.target))) is nn.Identity:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _check_fidelity(region: Region) -> None:
    """Run the traced graph beside the module, on the seen batch and on a part of it.

    A batch size or any other number that tracing has burnt in shows here.
    """
    forward = compiled_forward(region)
    for leaves in (region.call.leaves, _fewer_samples(region.call.leaves)):
        bound = region.call.bind([_copy(leaf) for leaf in leaves])
        with mode(region.owner, training=False):
            try:
                expected = tensors_of(region.owner.forward(*bound.args, **bound.kwargs))
            except Exception:
                continue  # the module itself cannot take a part of the batch
            bound = region.call.bind([_copy(leaf) for leaf in leaves])
            got = tensors_of(forward(region.owner, *bound.args, **bound.kwargs))
        for a, b in zip(expected, got, strict=True):
            if a.shape != b.shape or not torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True):
                message = "the traced graph computes something else, or holds for one batch size"
                raise TraceError(message)


def _copy(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf


def _fewer_samples(leaves: list[Any]) -> list[Any]:
    sizes = {leaf.shape[0] for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dim()}
    batch = max(sizes, default=0)
    return [
        leaf[: max(1, batch // 2)]
        if isinstance(leaf, torch.Tensor) and leaf.dim() and leaf.shape[0] == batch
        else leaf
        for leaf in leaves
    ]


def compiled_forward(region: Region) -> Any:
    """Return the region's graph as a forward function with the original's signature."""
    compiled: Any = type(fx.GraphModule(region.owner, region.graph))
    region.graph.owning_module = None  # only its code is wanted: the owner keeps the modules
    return guarded(compiled.forward, region.call, region.output_structure)


def by_mode(training: bool, in_training: Any, in_evaluation: Any) -> Any:
    """Choose an argument, such as a dropout probability, by the mode of the module."""
    return in_training if training else in_evaluation


def _unbake_training(graph: fx.Graph, trained: fx.Node, evaluated: fx.Node) -> None:
    """Make an argument that depends on ``self.training`` depend on it again."""

    def merge(a: Any, b: Any) -> Any:
        if not isinstance(a, (int, float, str, bool)) or a == b:
            return a
        with graph.inserting_before(trained):
            training = graph.create_node("get_attr", "training")
            return graph.call_function(by_mode, (training, a, b))

    if trained.op in ("call_function", "call_method"):
        trained.args = tuple(merge(a, b) for a, b in zip(trained.args, evaluated.args, strict=True))
        trained.kwargs = {k: merge(a, evaluated.kwargs.get(k)) for k, a in trained.kwargs.items()}


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
