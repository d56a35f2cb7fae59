"""Graphs of torch.export that others prepared for training: their mode, and what they compute.

``prepare_qat_pt2e`` writes a convolution and its batch norm as one: the weight is scaled by the
norm before it is quantized, and the scale is divided out of the convolution's output again, so that
the norm can go on measuring it. Under evaluation all of that is one affine map a channel.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

_TRAINING_FLAG = {"batch_norm": 5, "dropout": 2}
_NORM_ARGUMENTS = 8
_SIGNS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mul": torch.mul, "div": torch.div, "add": torch.add, "sub": torch.sub,
}  # fmt: skip


def operator_name(target: Any) -> str:
    """Return the name of an operator of aten without its overload; empty: it is none."""
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return ""
    return target._schema.name.removeprefix("aten::").removesuffix("_")


def in_evaluation(model: nn.Module) -> nn.Module:
    """Return a model in evaluation mode; a graph of torch.export carries it in its operators.

    Args:
        model: changed in place.
    """
    if not isinstance(model, fx.GraphModule):
        return model.eval()
    for node in model.graph.nodes:
        flag = _TRAINING_FLAG.get(operator_name(node.target))
        if flag is not None and len(node.args) > flag:
            node.update_arg(flag, False)
    for node in list(model.graph.nodes):
        if operator_name(node.target) == "add" and str(node.target).startswith("aten.add_."):
            counts = isinstance(node.args[0], fx.Node) and node.args[0].op == "get_attr"
            if counts and not node.users:  # batches that a norm has seen
                model.graph.erase_node(node)
    model.recompile()
    for part in model.children():
        part.eval()
    return model


def stored(module: nn.Module, node: Any) -> Any:
    """Return the value of a node that reads a parameter or buffer."""
    return operator.attrgetter(str(node.target))(module)


def is_stored(node: Any) -> bool:
    """Tell whether an argument reads a parameter or buffer."""
    return isinstance(node, fx.Node) and node.op == "get_attr"


def fold_stored(module: fx.GraphModule) -> set[str]:
    """Compute what depends on parameters alone, and return the names that hold the results."""
    made: set[str] = set()
    for node in list(module.graph.nodes):
        inputs = node.all_input_nodes
        if not operator_name(node.target) or not inputs or not all(map(is_stored, inputs)):
            continue
        with torch.no_grad():
            args, kwargs = fx.node.map_arg(
                (node.args, node.kwargs), lambda each: stored(module, each).detach()
            )
            value = node.target(*args, **kwargs)
        name = f"{node.name}_computed"
        module.register_parameter(
            name, nn.Parameter(value, requires_grad=value.is_floating_point())
        )
        made.add(name)
        with module.graph.inserting_before(node):
            node.replace_all_uses_with(module.graph.get_attr(name))
        module.graph.erase_node(node)
    return made


def fold_into(module: fx.GraphModule, node: fx.Node, layer: Any) -> set[fx.Node]:
    """Fold the arithmetic by channel and the batch norm behind a convolution into its layer.

    Args:
        module: that holds what the operators read.
        node: the convolution's; its users are bypassed as they are folded.
        layer: the convolution, changed in place.

    Returns:
        The nodes that are gone.
    """
    folded: set[fx.Node] = set()
    while len(node.users) == 1:
        (user,) = node.users
        factor_shift = _affine(module, node, user, layer.weight.shape[0])
        if factor_shift is None:
            break
        factor, shift = factor_shift
        bias = torch.zeros_like(factor) if layer.bias is None else layer.bias.detach()
        shape = (-1, *(1 for _ in layer.weight.shape[1:]))
        layer.weight = nn.Parameter(layer.weight.detach() * factor.reshape(shape))
        layer.bias = nn.Parameter(bias * factor + shift)
        user.replace_all_uses_with(node)
        module.graph.erase_node(user)
        folded.add(user)
    return folded


def _affine(
    module: fx.GraphModule, node: fx.Node, user: fx.Node, channels: int
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return factor and shift by channel of an operator on a layer's output; None: it is none."""
    name = operator_name(user.target)
    if name == "batch_norm" and len(user.args) >= _NORM_ARGUMENTS:
        held: list[Any] = [
            None if x is None else stored(module, x).detach() for x in user.args[1:5]
        ]
        weight, bias, mean, variance = held
        factor = torch.rsqrt(variance + float(user.args[7]))  # type: ignore[arg-type]
        factor = factor if weight is None else factor * weight
        return factor, -mean * factor if bias is None else bias - mean * factor
    if name not in _SIGNS or len(user.args) != 2 or user.kwargs or user.args[0] is not node:
        return None
    if not is_stored(user.args[1]):
        return None
    value = stored(module, user.args[1]).detach()
    if value.dim() < 2 or value.shape[1] != channels or value.numel() != channels:
        return None
    flat, by = value.flatten(), _SIGNS[name]
    ones = torch.ones_like(flat, dtype=torch.float32)
    zeros = torch.zeros_like(ones)
    return (by(ones, flat), zeros) if name in ("mul", "div") else (ones, by(zeros, flat))
