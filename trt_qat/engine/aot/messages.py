"""What NVIDIA's parser and builder say, and which rule of preflight speaks of the same thing.

Each text was drawn from the real code by a model that breaks that rule. ``shared`` marks those of
the ONNX parser and of the network's own checks, which TensorRT and TensorRT for RTX have in common;
the others are said by the compiler that RTX alone has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from trt_qat.engine.aot.answer import Refusal

_INTEGER = frozenset(
    {"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"}
)
_NOT_IMPORTED = re.compile(r"Plugin not found|No importer registered|UNSUPPORTED_NODE", re.I)


@dataclass(frozen=True)
class Known:
    """A text that a rule of preflight speaks of."""

    pattern: str
    rule: str
    shared: bool = True


KNOWN = (
    Known(r"shiftIsAllZeros|Non-zero zero point", "QDQ001"),
    Known(r"unsupported input type of UINT8|UINT8 zero_point only on DLA", "QDQ002"),
    Known(r"Failed to import initializer", "QDQ002"),
    Known(r"Scale coefficients must all be positive", "QDQ003"),
    Known(r"must be of same type|must have (the )?same input types|must have the same type"
          r"|types (don't|do not) match", "QDQ009"),
    Known(r"has type Int32 but must have type", "QDQ010"),
    Known(r"number of scales is not equal", "QDQ012"),
    Known(r"scale and zero point must have the same", "QDQ014"),
    Known(r"Quantized constant .* is only allowed before DQ", "QDQ019"),
    Known(r"different constant values or have contradictory", "QDQ020"),
    Known(r"new name is already in use", "QDQ021"),
    Known(r"opndA->type\(\) == opndB->type\(\)", "QDQ022", shared=False),
    Known(r"Failed to convert ONNX date type", "QDQ023"),
    Known(r"HW-specific datatypes", "QDQ310", shared=False),
)  # fmt: skip


def rule_of(refusal: Refusal) -> str | None:
    """Return the id of the rule that speaks of a refusal; None: no text that is known."""
    for known in KNOWN:
        if re.search(known.pattern, refusal.text, re.S):
            return known.rule
    if _NOT_IMPORTED.search(refusal.text):
        own = refusal.operator in _INTEGER or refusal.operator.startswith("QLinear")
        return "QDQ007" if own else "QDQ011"
    return None


def is_shared(refusal: Refusal) -> bool:
    """Tell whether TensorRT proper says the same: the parser's texts, and those known as shared."""
    found = [known for known in KNOWN if re.search(known.pattern, refusal.text, re.S)]
    return found[0].shared if found else bool(refusal.code)
