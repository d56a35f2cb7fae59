"""The rules of preflight, a file a subject; ``docs/rules.md`` says which file each id is in."""

from trt_qat.lint.rule import RULES
from trt_qat.lint.rules import (  # importing them fills the registry
    attention,
    confirmed,
    constants,
    forms,
    fusion,
    importing,
    kernels,
    parser,
    placement,
    quantization,
    release,
    rtx,
    scales,
    target,
    types,
    valid,
)

__all__ = [
    "RULES", "attention", "confirmed", "constants", "forms", "fusion", "importing", "kernels",
    "parser", "placement", "quantization", "release", "rtx", "scales", "target", "types", "valid",
]  # fmt: skip
