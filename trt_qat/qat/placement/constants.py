"""What a traced graph computes of parameters and buffers alone, such as a standardised weight."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_arg

from trt_qat.qat.placement.calls import mode
from trt_qat.qat.placement.program import Code


def constants_of(node: fx.Node) -> Iterator[fx.Node]:
    """Yield the parameters and buffers that a constant is computed of, itself if it is one."""
    yield from (n for n in _ancestry(node) if n.op == "get_attr")


def constant_value(node: fx.Node, owner: nn.Module) -> torch.Tensor:
    """Return the value of a constant node of a graph over ``owner``."""
    if node.op == "get_attr":
        value = operator.attrgetter(str(node.target))(owner)
    else:
        value = Computed.of(node, owner).value()
    assert isinstance(value, torch.Tensor)
    return value


@dataclass
class Computed:
    """A weight that forward computes of parameters, such as a normalized one; follows them.

    Attributes:
        owner: the module that holds the parameters, at any depth.
        code: computes the weight of ``owner``.
    """

    owner: nn.Module
    code: Code

    @classmethod
    def of(cls, node: fx.Node, owner: nn.Module) -> Computed:
        """Take the code of a constant node of a graph over ``owner``."""
        graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()

        def copied(source: fx.Node) -> Any:
            return source.meta["number"] if "number" in source.meta else copies[source]

        for ancestor in _ancestry(node):
            args, kwargs = map_arg((ancestor.args, ancestor.kwargs), copied)
            copies[ancestor] = graph.create_node(ancestor.op, ancestor.target, args, kwargs)
        graph.output(copies[node])
        python = graph.python_code("self")
        return cls(owner, Code(python.src, dict(python.globals)))

    def value(self) -> torch.Tensor:
        """Return the weight as it is now, in evaluation."""
        with mode(self.owner, training=False):
            weight: Any = self.code.function(self.owner)
        assert isinstance(weight, torch.Tensor)
        return weight


def _ancestry(node: fx.Node) -> list[fx.Node]:
    """Return all that a node is computed of but for sizes, itself last, in the graph's order."""
    found, stack = {node}, [node]
    while stack:
        for source in stack.pop().all_input_nodes:
            if source not in found and "number" not in source.meta:
                found.add(source)
                stack.append(source)
    return [n for n in node.graph.nodes if n in found]
