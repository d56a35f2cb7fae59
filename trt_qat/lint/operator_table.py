"""What is known of each ONNX operator in TensorRT, as rows: for `explain` and the documentation."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from trt_qat.capabilities import dotted
from trt_qat.graph.tensors import type_name
from trt_qat.lint import operators
from trt_qat.lint.releases import OPERATOR_SINCE
from trt_qat.lint.rules.forms import FORMS

HEAD = ("operator", "since", "types in 8.6", "types in 10.15", "refused types", "refused forms")
SOURCE = (
    "Types are those that docs/operators.md of onnx-tensorrt names, without the quantized ones; "
    "what is refused was put to the parser of TensorRT for RTX 1.7.1, the importer of TensorRT "
    "11.4."
)
_SHORT = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_ORDER = ("fp32", "fp16", "bf16", "int8", "uint8", "int32", "int64", "bool")
_FIRST = "8.0 or older"
_EIGHT, _TEN = (8, 6), (10, 15)
_NEVER = operators.NOT_IMPORTED | operators.QUANTIZED
_NAMES = frozenset(
    {*operators.DOCUMENTED, *_NEVER, *FORMS}.union(op for op, _ in operators.REFUSED)
)


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
        name: of the operator, of ONNX's own domain.
        since: the TensorRT release that first imported it; empty: none does.
        types_8: element types that the documents of 8.6 name.
        types_10: the same of 10.15.
        refused_types: what ONNX allows for its data and the parser refuses (QDQ025).
        refused_forms: what else of it the parser refuses (QDQ024).
    """

    name: str
    since: str
    types_8: str = ""
    types_10: str = ""
    refused_types: str = ""
    refused_forms: str = ""

    def row(self) -> list[str]:
        """Return its cells, under `HEAD`."""
        cells = [self.types_8, self.types_10, self.refused_types, self.refused_forms]
        return [f"`{self.name}`", self.since or "not imported", *cells]

    def __str__(self) -> str:
        """Return it as lines for a terminal."""
        if not self.since:
            return f"{self.name}: no release of TensorRT imports it (QDQ011)."
        told = zip(HEAD[1:], self.row()[1:], strict=True)
        lines = [f"  {what}: {cell}" for what, cell in told if cell]
        return "\n".join([f"{self.name}, an operator of ONNX in TensorRT", *lines, "", SOURCE])


def names() -> list[str]:
    """Return the operators of the table, sorted."""
    return sorted(_NAMES, key=str.lower)


def operator(name: str) -> Operator | None:
    """Return what is known of an operator; None where the table has none of this name."""
    if name not in _NAMES:
        return None
    if name in _NEVER:
        return Operator(name, "")
    since = OPERATOR_SINCE.get(name)
    refused = set().union(*(kinds for (op, _), kinds in operators.REFUSED.items() if op == name))
    return Operator(
        name,
        dotted(since) if since else _FIRST,
        _types(operators.documented(name, _EIGHT)),
        _types(operators.documented(name, _TEN)),
        _types(refused),
        "; ".join(re.sub("^that ", "some values of ", what) for what, _ in FORMS.get(name, ())),
    )


def _types(kinds: Collection[int] | None) -> str:
    shown = {_SHORT.get(type_name(kind), type_name(kind)) for kind in kinds or ()}
    return " ".join(sorted(shown, key=_ORDER.index))
