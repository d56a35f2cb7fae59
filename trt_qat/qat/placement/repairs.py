"""Repairs of a freshly traced graph, so that its edges are the data flow and nothing else."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from trt_qat.qat.placement.callsite import QUANTIZERS
from trt_qat.qat.placement.kinds import classify_leaf, takes_member
from trt_qat.qat.placement.proxy import assigned
from trt_qat.qat.placement.stock import stock_class

CONSTANTS = "constants"


class Constants(nn.Module):
    """Tensors that a model makes in its forward: they follow the model's device, and no state."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor.detach().clone(), persistent=False)


def repair(graph: fx.Graph, owner: nn.Module) -> None:
    """Drop what is nothing, and let readers of a tensor changed in place read the change."""
    for node in graph.nodes:  # in order, so that no answer is looked for deep down
        classify_leaf(node)
    _drop_unused_shapes(graph, owner)
    _spell_out_tuples(graph)
    _drop_identities(graph, owner)
    _read_mutated_values(graph, owner)


def hold_constants(graph: fx.Graph, owner: nn.Module, constants: dict[str, torch.Tensor]) -> None:
    """Keep tensors made in forward with the quantizers, not among the user's attributes."""
    missing = {name: value for name, value in constants.items() if not _has(owner, name)}
    if not missing:
        return
    names = {name: f"c{i}" for i, name in enumerate(missing)}
    holder_of(owner)[CONSTANTS] = Constants({names[k]: v for k, v in missing.items()})
    for node in graph.nodes:
        if node.op == "get_attr" and str(node.target) in names:
            node.target = f"{QUANTIZERS}.{CONSTANTS}.{names[str(node.target)]}"


def _has(owner: nn.Module, path: str) -> bool:
    value: Any = owner
    for name in path.split("."):
        if not hasattr(value, name):
            return False
        value = getattr(value, name)
    return True


def holder_of(owner: nn.Module) -> nn.ModuleDict:
    """Return the part of ``owner`` that holds its quantizers, made where there is none."""
    if QUANTIZERS not in owner._modules:
        owner.add_module(QUANTIZERS, nn.ModuleDict())
    holder = owner.get_submodule(QUANTIZERS)
    assert isinstance(holder, nn.ModuleDict)
    return holder


def _drop_unused_shapes(graph: fx.Graph, owner: nn.Module) -> None:
    """Drop shape arithmetic that only answered a question of control flow.

    What writes into a tensor has no readers yet: they read the tensor.
    """
    for node in reversed([node for node in graph.nodes if node.op != "output"]):
        if not node.users and classify_leaf(node) is not None and not _in_place(node, owner):
            graph.erase_node(node)


def _spell_out_tuples(graph: fx.Graph) -> None:
    """Let whoever reads all of a tuple, as in ``torch.cat(x.chunk(2))``, read its members."""
    for node in list(graph.nodes):
        readers = [u for u in node.users if u.op != "output" and not takes_member(u)]
        if "arity" not in node.meta or node.meta["tensors"] != node.meta["arity"] or not readers:
            continue
        with graph.inserting_after(node):
            members = [
                graph.call_function(operator.getitem, (node, index))
                for index in reversed(range(node.meta["arity"]))
            ][::-1]
        for member in members:
            member.meta["tensors"], member.meta["integer"] = 1, node.meta["integer"]
        for reader in readers:
            leaves, structure = pytree.tree_flatten((reader.args, reader.kwargs))
            spelled = [members if leaf is node else leaf for leaf in leaves]
            reader.args, reader.kwargs = pytree.tree_unflatten(spelled, structure)


def _drop_identities(graph: fx.Graph, owner: nn.Module) -> None:
    """Drop calls of nn.Identity: one between a convolution and its Add must not hide the pair."""
    for node in list(graph.nodes):
        if node.op != "call_module":
            continue
        if stock_class(owner.get_submodule(str(node.target))) is nn.Identity:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _read_mutated_values(graph: fx.Graph, owner: nn.Module) -> None:
    """Let whoever reads a tensor after an in-place operation on it read that operation's result.

    fx keeps in-place calls in order but not in the data flow: a quantizer put on the value before
    ``x.relu_()`` would otherwise be read by those who mean the value after it.
    """
    position = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if not _in_place(node, owner):
            continue
        node.meta["gone"] = False  # it returns its input because it has changed it
        if not isinstance(node.args[0], fx.Node):
            continue
        for user in list(node.args[0].users):
            if position[user] > position[node]:
                user.replace_input_with(node.args[0], node)


def _in_place(node: fx.Node, owner: nn.Module) -> bool:
    if not node.args:
        return False
    if node.op == "call_method":
        name = str(node.target)
        return name.endswith("_") and not name.endswith("__")
    if node.op == "call_module":
        return bool(getattr(owner.get_submodule(str(node.target)), "inplace", False))
    if node.op != "call_function":
        return False
    if node.target is assigned:
        return True
    name = getattr(node.target, "__name__", "")
    in_operator = getattr(node.target, "__module__", "") == "_operator"
    return (
        bool(node.kwargs.get("inplace"))
        or (in_operator and name.startswith("i") and hasattr(operator, f"__{name[1:]}__"))
        or (name.endswith("_") and not name.endswith("__") and not in_operator)
    )
