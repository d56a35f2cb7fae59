"""QDQ025 and QDQ316: element types that the parser does not take at an operator.

`trt_qat.lint.operators` is the table; ``trt-qat explain MatMul`` shows a row.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from trt_qat.capabilities import dotted
from trt_qat.graph.tensors import type_name
from trt_qat.lint import operators
from trt_qat.lint.rule import Context, Hit, rule

_MEND = "Cast before and behind it (float, or int32 where the operator takes integers)."
_DATA_AT = {"Where": 1}  # its first input is a mask


def _kind(context: Context, tensor: str) -> int:
    return context.shapes.types.get(tensor, 0)


@rule("QDQ025", "element type that the operator is not imported in", "error")
def type_refused(context: Context) -> Iterator[Hit]:
    """The parser knows the operator, but not for tensors of this type."""
    for node in context.imported():
        for position, tensor in enumerate(node.inputs):
            kind = _kind(context, tensor)
            if kind in operators.REFUSED.get((node.op, position), ()):
                yield Hit(
                    node.name,
                    f"TensorRT's parser does not take {type_name(kind)} at {node.op} ({tensor!r}).",
                    _MEND,
                )
                break


@rule("QDQ316", "element type that the release does not document", "info")
def type_undocumented(context: Context) -> Iterator[Hit]:
    """BFLOAT16 came with TensorRT 9; integers of some operators are in no table before."""
    version = context.tensorrt
    if version is None or version >= operators.BF16_SINCE:
        return
    for node in context.imported():
        tensor = node.input(_DATA_AT.get(node.op, 0))
        kind, known = _kind(context, tensor), operators.documented(node.op, version)
        if kind == TensorProto.BFLOAT16:
            yield Hit(
                node.name,
                f"TensorRT {dotted(version)} has no BFLOAT16 ({tensor!r}); 9.0 is the first.",
                "Export the model in float or float16, or build with TensorRT 10.",
                "error",
            )
        elif known and kind in operators.NUMBERS and kind not in known:
            yield Hit(
                node.name,
                f"TensorRT {dotted(version)} does not document {type_name(kind)} at {node.op} "
                f"({tensor!r}).",
                _MEND,
            )
