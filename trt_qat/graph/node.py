"""One node of a graph: names as Python strings, attributes as Python values read when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx
from onnx import AttributeProto, TensorProto

from trt_qat.errors import GraphError

QUANTIZE = "QuantizeLinear"
DEQUANTIZE = "DequantizeLinear"
STANDARD_DOMAINS = ("", "ai.onnx")
# ONNX Runtime writes the same two operators into its own domain for types that ONNX lacked.
QDQ_DOMAINS = (*STANDARD_DOMAINS, "com.microsoft")
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, eq=False)
class Node:
    """One node of a graph; compared and hashed by identity.

    Attributes:
        index: Its place in the file.
        op: Operator type.
        domain: Operator domain, empty for ONNX's own.
        name: Its name, or ``node_of_<first output>`` as TensorRT's parser calls a nameless node.
        inputs: Tensor names; an input left out is empty.
        outputs: Tensor names.
        proto: The node as ONNX stores it.
    """

    index: int
    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    proto: onnx.NodeProto

    @property
    def output(self) -> str:
        """Its first output, empty if it has none."""
        return self.outputs[0] if self.outputs else ""

    def input(self, position: int) -> str:
        """Return an input's tensor name, empty if it is absent or left out."""
        return self.inputs[position] if position < len(self.inputs) else ""

    @property
    def standard(self) -> bool:
        """Whether it is ONNX's own; an operator of another domain may compute anything."""
        return self.domain in STANDARD_DOMAINS

    def is_quantize(self) -> bool:
        """Tell whether this is a QuantizeLinear."""
        return self.op == QUANTIZE and self.domain in QDQ_DOMAINS

    def is_dequantize(self) -> bool:
        """Tell whether this is a DequantizeLinear."""
        return self.op == DEQUANTIZE and self.domain in QDQ_DOMAINS

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute.

        Raises:
            GraphError: the attribute is of another type.
        """
        value = self._attribute(name, AttributeProto.INT)
        return default if value is None else int(value)

    def integers(self, name: str) -> tuple[int, ...] | None:
        """Return a list-of-integers attribute, or None.

        Raises:
            GraphError: the attribute is of another type.
        """
        value = self._attribute(name, AttributeProto.INTS)
        return None if value is None else tuple(int(item) for item in value)

    def string(self, name: str, default: str) -> str:
        """Return a string attribute.

        Raises:
            GraphError: the attribute is of another type.
        """
        value = self._attribute(name, AttributeProto.STRING)
        return default if value is None else bytes(value).decode("utf-8", "replace")

    def tensor(self, name: str) -> TensorProto | None:
        """Return a tensor attribute, or None.

        Raises:
            GraphError: the attribute is of another type.
        """
        value = self._attribute(name, AttributeProto.TENSOR)
        return value if isinstance(value, TensorProto) else None

    def _attribute(self, name: str, kind: int) -> Any:
        for attribute in self.proto.attribute:
            if attribute.name != name:
                continue
            if attribute.type != kind:
                msg = f"{self.op} {self.name!r}: attribute {name!r} has the wrong type"
                raise GraphError(msg)
            return {
                AttributeProto.INT: attribute.i,
                AttributeProto.INTS: attribute.ints,
                AttributeProto.STRING: attribute.s,
                AttributeProto.TENSOR: attribute.t,
            }[attribute.type]
        return None


def read_node(index: int, proto: onnx.NodeProto) -> Node:
    """Return the node that ``proto`` stores."""
    outputs = tuple(proto.output)
    name = proto.name or f"node_of_{next(filter(None, outputs), index)}"
    return Node(index, proto.op_type, proto.domain, name, tuple(proto.input), outputs, proto)
