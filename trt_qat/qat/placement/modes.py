"""Training beside evaluation: one graph for both where they differ in numbers alone.

Functional dropout bakes ``self.training`` into its arguments; such an argument becomes a choice by
mode again. Where training takes another way, `own_path` runs it.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

Choice = tuple[fx.Node, Any, Any, Any]
"""A node of the evaluation graph, the place of an argument, its values: training, evaluation."""


def by_mode(training: bool, in_training: Any, in_evaluation: Any) -> Any:
    """Choose an argument, such as a dropout probability, by the mode of the module."""
    return in_training if training else in_evaluation


def merge_training(
    graph: fx.Graph, training: fx.Graph, constants: tuple[dict[str, Any], dict[str, Any]]
) -> bool:
    """Make ``graph``, of evaluation, that of training too, if they differ in scalars alone.

    Args:
        graph: changed where an argument depends on the mode.
        training: the same module traced in training mode.
        constants: tensors made in forward, by the name of their attribute, of either graph.

    Returns:
        Whether ``graph`` holds for training.
    """
    pairs = list(zip(graph.nodes, training.nodes, strict=False))
    if len(graph.nodes) != len(training.nodes):
        return False
    twin = {trained: node for node, trained in pairs}
    choices: list[Choice] = []
    for node, trained in pairs:
        if (node.op, str(node.target)) != (trained.op, str(trained.target)):
            return False
        if node.op == "get_attr" and not _same_constant(str(node.target), constants):
            return False
        found = _differences(node, trained, twin)
        if found is None:
            return False
        choices.extend(found)
    for node, place, in_training, in_evaluation in choices:
        _choose(graph, node, place, in_training, in_evaluation)
    return True


def _same_constant(name: str, constants: tuple[dict[str, Any], dict[str, Any]]) -> bool:
    ours, theirs = (held.get(name) for held in constants)
    if ours is None or theirs is None:
        return ours is theirs
    return ours.shape == theirs.shape and bool(torch.equal(ours, theirs))


def _differences(
    node: fx.Node, trained: fx.Node, twin: dict[fx.Node, fx.Node]
) -> list[Choice] | None:
    """Return the scalars in which two calls differ; None where they differ in more."""
    ours, structure = pytree.tree_flatten((node.args, node.kwargs))
    theirs, other = pytree.tree_flatten((trained.args, trained.kwargs))
    if structure != other:
        return None
    choices: list[Choice] = []
    for place, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if isinstance(a, fx.Node):
            if not isinstance(b, fx.Node) or twin.get(b) is not a:
                return None
        elif type(a) is not type(b) or a != b:
            scalars = isinstance(a, (int, float, str)) and isinstance(b, (int, float, str))
            if not scalars or node.op not in ("call_function", "call_method"):
                return None
            choices.append((node, place, b, a))
    return choices


def _choose(graph: fx.Graph, node: fx.Node, place: Any, trained: Any, evaluated: Any) -> None:
    site = node.meta.get("site")
    path = site.scope.path if site is not None else ""
    with graph.inserting_before(node):
        training = graph.create_node("get_attr", f"{path}.training" if path else "training")
        chosen = graph.call_function(by_mode, (training, trained, evaluated))
    leaves, structure = pytree.tree_flatten((node.args, node.kwargs))
    leaves[place] = chosen
    node.args, node.kwargs = pytree.tree_unflatten(leaves, structure)


class RandomPath(Exception):
    """Python code that is not part of the graph drew a random number."""


def random_state() -> tuple[Any, ...]:
    """Return what decides the next random numbers of Python's and of torch's, on all devices."""
    known = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    on_gpus = torch.cuda.get_rng_state_all() if known else []
    states = (torch.get_rng_state(), *on_gpus)
    return random.getstate(), *(bytes(state.numpy().tobytes()) for state in states)


def restore_random(state: tuple[Any, ...]) -> None:
    """Let the random numbers go on from ``state``."""
    python, *states = state
    random.setstate(python)
    first, *on_gpus = (torch.frombuffer(bytearray(each), dtype=torch.uint8) for each in states)
    torch.set_rng_state(first)
    if on_gpus:
        torch.cuda.set_rng_state_all(on_gpus)


def held_constants(graph: fx.Graph, owner: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors that a graph reads as attributes and that are no parameter or buffer."""
    known = {name for name, _ in (*owner.named_parameters(), *owner.named_buffers())}
    found = {}
    for node in _attributes(graph):
        name = str(node.target)
        if name not in known and name not in found:
            value = operator.attrgetter(name)(owner)
            if isinstance(value, torch.Tensor):
                found[name] = value
    return found


def _attributes(graph: fx.Graph) -> Iterator[fx.Node]:
    return (node for node in graph.nodes if node.op == "get_attr")
