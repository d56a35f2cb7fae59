"""Damage done to a model at random, to its bytes and to its structure: what the fuzz run feeds."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

_SIZES = (-1, 0, 1, 3, 7, 2**31, 2**62)
_OPS = (
    "Conv", "Gemm", "MatMul", "Add", "Concat", "QuantizeLinear", "DequantizeLinear", "Transpose",
    "Reshape", "Resize", "Pad", "Cast", "Relu", "ConvTranspose", "Constant", "ReduceMean", "If",
    "LayerNormalization", "Squeeze", "Split", "Nonsense", "",
)  # fmt: skip
_LOCATIONS = ("../../etc/passwd", "/etc/passwd", "missing.bin", "", "a\0b", "x" * 5000, ".")

Damage = Callable[[ModelProto, Random], None]


def mutated(data: bytes, draw: Random) -> bytes:
    """Return the model with one to three random damages, most of them structural."""
    for _ in range(draw.randint(1, 3)):
        data = _structure(data, draw) if draw.random() < 0.85 else _bytes(data, draw)
    return data


def _bytes(data: bytes, draw: Random) -> bytes:
    if not data:
        return data
    kind, at, end = draw.randrange(5), draw.randrange(len(data)), draw.randrange(len(data) + 1)
    return bytes_damaged(data, kind, at, end, draw)


def bytes_damaged(data: bytes, kind: int, at: int, end: int, draw: Random) -> bytes:
    """Return bytes with a bit flipped, their end or a part left out, others put in, or repeated.

    Args:
        data: at least one byte.
        kind: 0 to 4, in this order.
        at: where.
        end: of the part.
        draw: of bytes that are put in.
    """
    if kind == 0:
        return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + data[max(at, end) :]
    if kind == 3:
        return data[:at] + draw.randbytes(draw.randint(1, 8)) + data[at:]
    return data[:at] + data[min(at, end) : min(at, end) + 64] + data[at:]


def _structure(data: bytes, draw: Random) -> bytes:
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return data
    draw.choice(_DAMAGES)(model, draw)
    return bytes(model.SerializeToString())


def _node(model: ModelProto, draw: Random) -> NodeProto:
    nodes = model.graph.node
    return draw.choice(nodes) if nodes else NodeProto()


def _tensor(model: ModelProto, draw: Random) -> TensorProto:
    tensors = model.graph.initializer
    return draw.choice(tensors) if tensors else TensorProto()


def _some_name(model: ModelProto, draw: Random) -> str:
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    return str(draw.choice([*names, "", "nothing"]))


def remove_node(model: ModelProto, draw: Random) -> None:
    if model.graph.node:
        del model.graph.node[draw.randrange(len(model.graph.node))]


def duplicate_node(model: ModelProto, draw: Random) -> None:
    model.graph.node.add().CopyFrom(_node(model, draw))


def rewire_input(model: ModelProto, draw: Random) -> None:
    node = _node(model, draw)
    if node.input:
        node.input[draw.randrange(len(node.input))] = _some_name(model, draw)


def drop_input(model: ModelProto, draw: Random) -> None:
    node = _node(model, draw)
    if node.input:
        del node.input[draw.randrange(len(node.input))]


def rename_output(model: ModelProto, draw: Random) -> None:
    node = _node(model, draw)
    if node.output:
        node.output[0] = _some_name(model, draw)


def change_operator(model: ModelProto, draw: Random) -> None:
    node = _node(model, draw)
    node.op_type = draw.choice(_OPS)
    node.domain = draw.choice(("", "", "ai.onnx", "com.microsoft", "x.y"))


def blank_name(model: ModelProto, draw: Random) -> None:
    _node(model, draw).name = draw.choice(("", "a", "\x00\x1f<&>", "é" * 50))


def change_attribute(model: ModelProto, draw: Random) -> None:
    node = _node(model, draw)
    names = ("axis", "perm", "group", "transB", "mode", "to", "axes", "block_size", "value")
    attribute = draw.choice(node.attribute) if node.attribute and draw.random() < 0.5 else None
    attribute = node.attribute.add(name=draw.choice(names)) if attribute is None else attribute
    attribute.type = draw.choice(list(AttributeProto.AttributeType.values()))
    attribute.i = draw.choice((*_SIZES, -7))
    attribute.ints.extend(draw.choices((-1, 0, 1, 2, 9, 2**40), k=draw.randint(0, 4)))
    attribute.s = draw.randbytes(4)


def change_dims(model: ModelProto, draw: Random) -> None:
    tensor = _tensor(model, draw)
    if tensor.dims and draw.random() < 0.7:
        tensor.dims[draw.randrange(len(tensor.dims))] = draw.choice(_SIZES)
    else:
        tensor.dims.append(draw.choice((0, 1, 2)))


def change_type(model: ModelProto, draw: Random) -> None:
    _tensor(model, draw).data_type = draw.choice((*range(30), 99))


def change_values(model: ModelProto, draw: Random) -> None:
    tensor = _tensor(model, draw)
    tensor.raw_data = draw.randbytes(len(tensor.raw_data))


def drop_initializer(model: ModelProto, draw: Random) -> None:
    if model.graph.initializer:
        del model.graph.initializer[draw.randrange(len(model.graph.initializer))]


def point_outside(model: ModelProto, draw: Random) -> None:
    tensor = _tensor(model, draw)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=draw.choice(_LOCATIONS))
    tensor.external_data.add(key="offset", value=draw.choice(("0", "-1", "x", str(2**63))))


def clear_opset(model: ModelProto, draw: Random) -> None:
    if draw.random() < 0.5:
        del model.opset_import[:]
    else:
        model.opset_import.add(domain="", version=draw.choice((0, 1, 9, 13, 18, 21, 99, -1)))


def clear_shapes(model: ModelProto, draw: Random) -> None:
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            dim.dim_value = draw.choice(_SIZES)
        if draw.random() < 0.5:
            value.ClearField("type")


def add_output(model: ModelProto, draw: Random) -> None:
    model.graph.output.add(name=_some_name(model, draw))


def nest(model: ModelProto, draw: Random) -> None:
    """Put a copy of the graph into an attribute of one of its nodes, as an If has."""
    body = model.graph.__class__()
    body.CopyFrom(model.graph)
    if len(body.SerializeToString()) < 1 << 16:
        _node(model, draw).attribute.add(name="body", type=AttributeProto.GRAPH).g.CopyFrom(body)


def make_function(model: ModelProto, draw: Random) -> None:
    node = _node(model, draw)
    function = model.functions.add(name=node.op_type or "f", domain=node.domain)
    function.input.extend(node.input)
    function.output.extend(node.output)
    function.node.add().CopyFrom(_node(model, draw))
    function.opset_import.extend(model.opset_import)


_DAMAGES: tuple[Damage, ...] = (
    remove_node, duplicate_node, rewire_input, drop_input, rename_output, change_operator,
    blank_name, change_attribute, change_dims, change_type, change_values, drop_initializer,
    point_outside, clear_opset, clear_shapes, add_output, nest, make_function,
)  # fmt: skip
