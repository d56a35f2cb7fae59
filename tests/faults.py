"""Faults of a QDQ ONNX as deployment makes them, one at a time, with the node at fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
REPLACED = {
    "Relu": "Sigmoid",
    "HardSwish": "Relu",
    "Sigmoid": "Tanh",
    "Gelu": "Relu",
    "Erf": "Tanh",
}


@dataclass(frozen=True)
class Fault:
    """A model with one fault.

    ``node`` is the name that a comparison must give: the node whose result is wrong.
    """

    kind: str
    node: str
    model: ModelProto


class _Editor:
    """A copy of a model, its stored tensors and who reads what."""

    def __init__(self, model: ModelProto) -> None:
        self.model = ModelProto()
        self.model.CopyFrom(model)
        self.nodes = list(self.model.graph.node)
        self.stored = {t.name: t for t in self.model.graph.initializer}

    def values(self, name: str) -> np.ndarray | None:
        return numpy_helper.to_array(self.stored[name]) if name in self.stored else None

    def store(self, node: NodeProto, position: int, array: np.ndarray) -> None:
        """Let one node read another constant; others that share the old one keep it."""
        name = f"fault/{node.name}/{position}"
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        while len(node.input) <= position:
            node.input.append("")
        node.input[position] = name

    def readers(self, tensor: str) -> list[NodeProto]:
        return [node for node in self.nodes if tensor in node.input]

    def weights(self) -> list[tuple[NodeProto, NodeProto]]:
        """Return DequantizeLinear nodes of weights and the layer that reads each, if it is one."""
        found = []
        for node in self.nodes:
            if node.op_type == "DequantizeLinear" and node.input[0] in self.stored:
                readers = self.readers(node.output[0])
                if len(readers) == 1 and readers[0].op_type in WEIGHTED:
                    found.append((node, readers[0]))
        return found

    def pairs(self) -> list[tuple[NodeProto, NodeProto]]:
        """Return the activation pairs."""
        found = []
        for node in self.nodes:
            if node.op_type == "QuantizeLinear" and node.input[0] not in self.stored:
                found += [(node, reader) for reader in self.readers(node.output[0])]
        return found


def doubled_scale(model: ModelProto, draw: np.random.Generator) -> Fault | None:
    """A pair whose Q and DQ agree on a scale twice as large: half of the precision."""
    edit = _Editor(model)
    pairs = edit.pairs()
    if not pairs:
        return None
    quantize, dequantize = pairs[draw.integers(len(pairs))]
    scale = edit.values(quantize.input[1])
    if scale is None:
        return None
    for node in (quantize, dequantize):
        edit.store(node, 1, np.asarray(scale * 2))
    return Fault("doubled scale", dequantize.name, edit.model)


def swapped_axis(model: ModelProto, draw: np.random.Generator) -> Fault | None:
    """A weight with its scales along the input channels, where the counts allow it."""
    edit = _Editor(model)
    choices = []
    for node, layer in edit.weights():
        codes, scale = edit.values(node.input[0]), edit.values(node.input[1])
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        if codes is None or scale is None or scale.ndim != 1 or np.ptp(scale) == 0:
            continue
        if axis in (0, 1) and codes.shape[1 - axis] == len(scale) > 1:
            choices.append((node, layer, 1 - axis))
    if not choices:
        return None
    node, layer, axis = choices[draw.integers(len(choices))]
    for attribute in list(node.attribute):
        if attribute.name == "axis":
            node.attribute.remove(attribute)
    node.attribute.append(helper.make_attribute("axis", axis))
    return Fault("swapped weight axis", layer.name, edit.model)


def dropped_bias(model: ModelProto, draw: np.random.Generator) -> Fault | None:
    """A Conv or Gemm whose bias got lost."""
    edit = _Editor(model)
    choices = []
    for node in edit.nodes:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.input) == 3:
            bias = edit.values(node.input[2])
            if bias is not None and np.abs(bias).max() > 0:
                choices.append((node, bias))
    if not choices:
        return None
    node, bias = choices[draw.integers(len(choices))]
    edit.store(node, 2, np.zeros_like(bias))
    return Fault("dropped bias", node.name, edit.model)


def shifted_zero_point(model: ModelProto, draw: np.random.Generator) -> Fault | None:
    """An activation's DequantizeLinear with a zero point one beside its QuantizeLinear's."""
    edit = _Editor(model)
    pairs = edit.pairs()
    if not pairs:
        return None
    _, dequantize = pairs[draw.integers(len(pairs))]
    edit.store(dequantize, 2, np.asarray(1, np.int8))
    return Fault("shifted zero point", dequantize.name, edit.model)


def replaced_layer(model: ModelProto, draw: np.random.Generator) -> Fault | None:
    """A node whose operator is another of the same form."""
    edit = _Editor(model)
    choices = [node for node in edit.nodes if node.op_type in REPLACED]
    if not choices:
        return None
    node = choices[draw.integers(len(choices))]
    node.op_type = REPLACED[node.op_type]
    del node.attribute[:]
    return Fault("replaced layer", node.name, edit.model)


FAULTS: tuple[Callable[[ModelProto, np.random.Generator], Fault | None], ...] = (
    doubled_scale,
    swapped_axis,
    dropped_bias,
    shifted_zero_point,
    replaced_layer,
)
