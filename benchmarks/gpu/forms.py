"""The same network in other forms, so that one file of each has to be carried.

Weights as INT8 initialisers behind DequantizeLinear, or as FP32 ones behind Q and DQ (the only form
that TensorRT 8.6 is documented for); and without any pair, as a float baseline. The codes are the
same in both forms: ``round(code * scale / scale)`` is the code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from trt_qat.artifact import atomic_path

Array = NDArray[Any]


def file_of(folder: Path, name: str, scratch: Path, *, weights: str = "int8") -> Path:
    """Return the file of a carried ONNX in a form, derived into ``scratch`` where it must be.

    Args:
        folder: of the model.
        name: of `catalog.CARRIED`; ``fp32`` is our dense network without its pairs, so its weights
            are those that INT8 stands for.
        scratch: where derived files go; one that is there is taken.
        weights: ``int8`` as carried, or ``fp32``.
    """
    if name != "fp32" and weights == "int8":
        return folder / f"{name}.onnx"
    out = scratch / (f"{name}.onnx" if name == "fp32" else f"{name}.{weights}.onnx")
    if not out.is_file():
        source = onnx.load(folder / f"{'dense' if name == 'fp32' else name}.onnx")
        made = without_pairs(source) if name == "fp32" else with_float_weights(source)
        with atomic_path(out) as temporary:
            onnx.save(made, temporary)
    return out


def with_float_weights(model: ModelProto) -> ModelProto:
    """Return the model with every INT8 constant behind DQ as FP32 behind Q and DQ."""
    made, constants = _copied(model)
    nodes: list[NodeProto] = []
    for node in made.graph.node:
        codes = _codes(node, constants)
        if codes is not None:
            name = f"{node.input[0]}.float"
            _add(made, name, _dequantized(node, codes, constants))
            if len(node.input) == 2:  # without a zero point QuantizeLinear would give UINT8
                zero = np.zeros(constants[node.input[1]].shape, np.int8)
                _add(made, f"{name}.zero", zero)
                node.input.append(f"{name}.zero")
            pair = [name, *node.input[1:]]
            quantize = helper.make_node(
                "QuantizeLinear", pair, [f"{name}.codes"], name=f"{node.name}.q"
            )
            quantize.attribute.extend(node.attribute)
            nodes.append(quantize)
            node.input[0] = f"{name}.codes"
        nodes.append(node)
    return _with_nodes(made, nodes)


def with_int8_weights(model: ModelProto) -> ModelProto:
    """Return the model with every FP32 constant behind Q as an INT8 one behind DQ alone."""
    made, constants = _copied(model)
    nodes = []
    for node in made.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in constants:
            scale, zero = _scaling(node, constants)
            steps = np.rint(constants[node.input[0]] / scale) + zero
            _add(made, node.output[0], np.clip(steps, -128, 127).astype(np.int8))
        else:
            nodes.append(node)
    return _with_nodes(made, nodes)


def without_pairs(model: ModelProto) -> ModelProto:
    """Return the float network: no pair, and INT8 constants as the floats that they stand for."""
    made, constants = _copied(model)
    nodes, instead = [], dict[str, str]()
    for node in made.graph.node:
        codes = _codes(node, constants)
        if codes is not None:
            _add(made, node.output[0], _dequantized(node, codes, constants))
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            instead[node.output[0]] = instead.get(node.input[0], node.input[0])
        else:
            nodes.append(node)
    for node in nodes:
        for at, name in enumerate(node.input):
            node.input[at] = instead.get(name, name)
    for output in made.graph.output:
        if output.name in instead:  # an output keeps its name
            nodes.append(helper.make_node("Identity", [instead[output.name]], [output.name]))
    return _with_nodes(made, nodes)


def _copied(model: ModelProto) -> tuple[ModelProto, dict[str, Array]]:
    made = ModelProto()
    made.CopyFrom(model)
    del made.graph.value_info[:]  # some are of tensors that will be gone
    constants = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    for node in made.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return made, constants


def _codes(node: NodeProto, constants: dict[str, Array]) -> Array | None:
    if node.op_type != "DequantizeLinear":
        return None
    found = constants.get(node.input[0])
    return found if found is not None and found.dtype == np.int8 else None


def _dequantized(node: NodeProto, codes: Array, constants: dict[str, Array]) -> Array:
    scale, zero = _scaling(node, constants, codes.ndim)
    return ((codes.astype(np.float32) - zero) * scale).astype(np.float32)


def _scaling(
    node: NodeProto, constants: dict[str, Array], rank: int | None = None
) -> tuple[Array, Array]:
    """Return scale and zero point, shaped to multiply the tensor along the node's axis."""
    rank = constants[node.input[0]].ndim if rank is None else rank
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1) % max(rank, 1)
    scale = constants[node.input[1]]
    zero = constants[node.input[2]] if len(node.input) > 2 else np.zeros_like(scale)
    shape = [-1 if at == axis else 1 for at in range(rank)] if scale.size > 1 else ()
    return scale.reshape(shape), zero.astype(np.float32).reshape(shape)


def _add(model: ModelProto, name: str, array: Array) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))


def _with_nodes(model: ModelProto, nodes: list[NodeProto]) -> ModelProto:
    """Put the nodes in, and leave out the constants that nothing reads any more."""
    kept = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    read = {name for node in model.graph.node for name in node.input}
    read |= {output.name for output in model.graph.output}
    used = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(used)
    alive = [n for n in model.graph.node if n.op_type != "Constant" or n.output[0] in read]
    del model.graph.node[:]
    model.graph.node.extend(alive)
    onnx.checker.check_model(model)
    return model
