"""Tracing a model into regions whose data flow is known.

The whole model is one region when torch.fx can trace it as it is deployed: in evaluation mode.
Where it cannot (control flow that depends on data), its children are tried, so that the largest
traceable parts are placed and the code around them keeps running as Python. A weighted layer that
no region covers is a `Region` of its own, with a graph of one call.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from trt_qat.qat.placement.attention import masks_by_proxy
from trt_qat.qat.placement.calls import Call, mode, observe_calls
from trt_qat.qat.placement.fidelity import (
    check_fidelity,
    check_smaller,
    holds_for_other_sizes,
)
from trt_qat.qat.placement.kinds import WEIGHTED_MODULES, weight_argument, weighted_function
from trt_qat.qat.placement.modes import (
    RandomPath,
    held_constants,
    merge_training,
    random_state,
    restore_random,
)
from trt_qat.qat.placement.program import Program
from trt_qat.qat.placement.proxy import plain, replaced
from trt_qat.qat.placement.repairs import hold_constants, repair
from trt_qat.qat.placement.values import ValueTracer, makes_own_product
from trt_qat.qat.placement.why import first_reason

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass
class Region:
    """One traced part of a model: ``graph`` calls leaf modules by paths below ``owner``.

    ``trains`` tells whether the graph is that of training too, ``sizes`` the sizes of its inputs
    where it holds for no others, ``inlined`` the modules whose code it runs through, and whether
    hooks of theirs were traced.
    """

    path: str
    owner: nn.Module
    graph: fx.Graph
    call: Call
    output_structure: Any = None
    leaf: bool = False
    trains: bool = True
    sizes: list[tuple[int, ...]] | None = None
    inlined: dict[str, bool] = field(default_factory=dict)

    def module_path(self, node: fx.Node) -> str:
        """Return the path from the model's root to the module that ``node`` calls."""
        return ".".join(p for p in (self.path, str(node.target)) if p)

    def program(self) -> Program:
        """Return the graph as it is now, with whatever was inserted, as code."""
        program = Program.of(
            self.graph,
            self.call,
            self.output_structure,
            trains=self.trains,
            sizes=self.sizes,
            inlined=self.inlined,
        )
        self.graph.owning_module = None
        return program


@dataclass
class Trace:
    """The regions of a model, and why each part that fx could not trace was left as Python."""

    regions: list[Region] = field(default_factory=list)
    untraced: dict[str, str] = field(default_factory=dict)


def trace(model: nn.Module, batch: Any) -> Trace:
    """Trace ``model`` into the largest regions that torch.fx can follow.

    Args:
        model: any module.
        batch: one real batch (tensor, tuple or dict), run once to see how each part is called.
    """
    result = Trace()
    with untouched(model):
        calls = observe_calls(model, batch)
    _trace_into(model, "", result, calls)
    return result


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put the attributes of every module back as they were: forward may set some.

    Hooks that forward registers go with the attribute that says so, or the next call registers
    them twice, as the outputs of transformers' encoders then were.
    """
    kept = [
        (module, dict(vars(module)), dict(module._buffers), _hooks_of(module))
        for module in model.modules()
    ]
    state = random_state()
    try:
        yield
    finally:
        restore_random(state)
        for module, attributes, buffers, hooks in kept:
            vars(module).clear()
            vars(module).update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)
            for key, known in hooks.items():
                for added in vars(module)[key].keys() - known:
                    del vars(module)[key][added]


def _hooks_of(module: nn.Module) -> dict[str, set[int]]:
    """Return the numbers of the hooks that a module holds, by the attribute that they are in."""
    held = {key: value for key, value in vars(module).items() if key.endswith("_hooks")}
    return {key: set(hooks) for key, hooks in held.items() if isinstance(hooks, dict)}


def _trace_into(module: nn.Module, path: str, result: Trace, calls: dict[nn.Module, Call]) -> None:
    called = module in calls
    if not called and not any(part in calls for part in module.modules()):
        if any(isinstance(m, WEIGHTED_MODULES) for m in module.modules()):
            result.untraced[path] = "not called with the given batch"
        return
    if isinstance(module, WEIGHTED_MODULES):
        if makes_own_product(module):
            with contextlib.suppress(Exception):
                result.regions.append(_trace_region(module, path, calls[module]))
                return
        result.regions.append(Region(path, module, _single_call(), calls[module], leaf=True))
        return
    if not any(True for _ in module.parameters()):
        return
    if called:
        if ValueTracer(calls[module]).is_leaf_module(module, path):
            result.untraced[path] = f"{type(module).__name__} is a closed layer of torch"
            return
        try:
            result.regions.append(_trace_region(module, path, calls[module]))
            return
        except Exception as error:
            result.untraced[path] = first_reason(error)
    for name, child in module.named_children():
        _trace_into(child, f"{path}.{name}" if path else name, result, calls)


def _single_call() -> fx.Graph:
    """Return the graph of one weighted layer: the region is its own owner, target ''."""
    graph = fx.Graph()
    graph.output(graph.call_module("", (graph.placeholder("input"),)))
    return graph


def _trace_region(module: nn.Module, path: str, call: Call) -> Region:
    """Trace a module as it is deployed, and check the result against the module itself."""
    with untouched(module):
        tracer, graph = _traced(module, call, training=False)
        constants = held_constants(graph, module)
    trains = _holds_for_training(module, call, graph, constants, tracer.output_structure)
    hold_constants(graph, module, constants)
    region = Region(
        path, module, graph, call, tracer.output_structure, trains=trains, inlined=tracer.inlined
    )
    forward = region.program().forward
    with untouched(module):
        any_batch = check_fidelity(module, forward, call)
    with untouched(module):
        holds = holds_for_other_sizes(module, forward, call, fewer=any_batch)
    if any_batch and not holds:  # nothing has been tried on fewer samples
        with untouched(module):
            check_smaller(module, forward, call)
    if holds is False:
        region.sizes = [tuple(t.shape[1:]) for t in call.leaves if isinstance(t, torch.Tensor)]
    return region


def _traced(module: nn.Module, call: Call, *, training: bool) -> tuple[ValueTracer, fx.Graph]:
    with mode(module, training=training), masks_by_proxy(), tensors_of_sizes():
        tracer = ValueTracer(call)
        graph = tracer.trace(module)
    repair(graph, module)
    return tracer, graph


@contextlib.contextmanager
def tensors_of_sizes() -> Iterator[None]:
    """Let ``torch.tensor(x.shape[1])``, which nothing can override, take a traced number."""

    def taking_numbers(make: Any) -> Any:
        @functools.wraps(make)
        def made(data: Any, *args: Any, **kwargs: Any) -> Any:
            return make(plain(data), *args, **kwargs)

        return made

    makers = (torch.tensor, torch.as_tensor, torch.scalar_tensor)
    with replaced(torch, {make.__name__: taking_numbers(make) for make in makers}):
        yield


def multiplies_by_weight(layer: nn.Module, call: Call | None) -> bool:
    """Tell whether a layer's own code multiplies by its ``weight`` as it is: a mask reaches it.

    A weight that forward standardises first is another one by then.
    """
    if call is None:
        return False
    try:
        with untouched(layer):
            _, graph = _traced(layer, call, training=False)
    except Exception:  # code that cannot be followed
        return False
    weights = [weight_argument(node) for node in graph.nodes if weighted_function(node)]
    return any(node.op == "get_attr" and node.target == "weight" for node in weights)


def _holds_for_training(
    module: nn.Module, call: Call, graph: fx.Graph, constants: dict[str, Any], structure: Any
) -> bool:
    """Tell whether the deployed graph is that of training too, arguments by mode apart."""
    try:
        with untouched(module):
            before = random_state()
            tracer, training = _traced(module, call, training=True)
            if random_state() != before:
                raise RandomPath
            made = held_constants(training, module)
    except Exception:  # whatever training needs that one batch of inputs does not give
        return False
    if tracer.output_structure != structure or tracer.norms_opened:
        return False  # a norm's own code counts batches, and reads a momentum that may change
    return merge_training(graph, training, (constants, made))
