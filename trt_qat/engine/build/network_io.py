"""Inputs and outputs of an ONNX, and whether it is quantized: what a build must know beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_qat.errors import GraphError
from trt_qat.graph import load
from trt_qat.runners.protocol import TensorSpec

# TensorProto.DataType of the ONNX standard, for the types that TensorRT takes from outside.
_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16"}
_PAIRS = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True)
class Network:
    """What a build needs to know of an ONNX.

    Attributes:
        inputs: by name, without the initialisers that old exporters list there.
        outputs: by name.
        nodes: name of every node, and its operator.
        quantized: whether there are Q/DQ pairs.
    """

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    nodes: tuple[tuple[str, str], ...]

    @property
    def quantized(self) -> bool:
        """Whether the network has Q/DQ pairs."""
        return any(operator in _PAIRS for _, operator in self.nodes)


def read(path: Path) -> Network:
    """Read an ONNX file.

    Raises:
        GraphError: the file is no well-formed ONNX, or an input or output has a type that cannot
            be fed.
    """
    graph = load.load_graph(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    return Network(
        inputs={v.name: _tensor(v, path) for v in graph.input if v.name not in constants},
        outputs={v.name: _tensor(v, path) for v in graph.output},
        nodes=tuple((node.name, node.op_type) for node in graph.node),
    )


def _tensor(value: Any, path: Path) -> TensorSpec:
    kind = value.type.tensor_type
    if kind.elem_type not in _DTYPES:
        allowed = ", ".join(sorted(set(_DTYPES.values())))
        message = f"{path}: {value.name!r} has a type that no array has; allowed: {allowed}"
        raise GraphError(message)
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or f"{value.name}_{at}")
        for at, dim in enumerate(kind.shape.dim)
    )
    return TensorSpec(value.name, shape, _DTYPES[kind.elem_type])
