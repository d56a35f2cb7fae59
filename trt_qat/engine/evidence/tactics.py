"""What kernel names and tensor formats say: precision, sparsity, and what a layer is there for.

The names are those that TensorRT 8.6 to 11 print; none of them is documented, so a name that says
nothing gives None and never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_TYPES = (
    ("int8", r"\bu?int8\b"),
    ("fp16", r"\b(fp16|half)\b"),
    ("bf16", r"\b(bf16|bfloat16)\b"),
    ("fp8", r"\bfp8\b"),
    ("fp4", r"\bfp4\b"),
    ("int4", r"\bint4\b"),
    ("int32", r"\bint32\b"),
    ("int64", r"\bint64\b"),
    ("bool", r"\bbool\b"),
    ("fp32", r"\b(fp32|float|float32)\b"),
)
_TACTICS = (
    ("int8", r"i8i8|i8f32|i8f16|i8i32|int8|s8_?s8|_s8_|imma|i8816"),
    ("fp8", r"e4m3|e5m2|fp8"),
    ("bf16", r"bf16"),
    ("tf32", r"tf32"),
    ("fp16", r"f16f16|fp16|hmma|h884|s884|h1688|s1688|h16816|s16816"),
    ("fp32", r"f32f32|sgemm|scudnn|ffma|fp32"),
)
_SPARSE = re.compile(r"sparse|sptensor|spmma|sp_mma|sphmma|_spgemm", re.I)
_MULTIPLY_TYPES = re.compile(
    r"conv|cudnn|cublas|gemm|matrixmultiply|fullyconnected|correlation|matmul|runtime_fusion", re.I
)
_NO_KERNEL = frozenset({"NoOp", "Constant", "Shape", "shape_call", "Signal", "Wait"})
_STUB = "__myelin_CASK_STUB"  # which kernel it is, is decided on the GPU when a plan is loaded
_MULTIPLY_TACTICS = re.compile(r"gemm|fprop|conv|_mma_|xmma_(?!pooling)", re.I)
# Myelin's generated kernels are called after the operations in them.
_MOVES = re.compile(r"^__myl_(Move|Cast|Resh|Tran|Slic|Conc)+_0x", re.I)


def precision_of(text: str) -> str | None:
    """Return the data type that a ``Format/Datatype`` or ``Datatype`` speaks of."""
    words = text.lower()
    return next((name for name, pattern in _TYPES if re.search(pattern, words)), None)


def compute_type(
    tactic: str, inputs: Sequence[str | None], outputs: Sequence[str | None]
) -> str | None:
    """Return what a kernel computes in: by its name, else by the types that it reads."""
    lowered = tactic.lower()
    if not lowered.startswith("0x") and not lowered.startswith("__myl"):
        for name, pattern in _TACTICS:
            if re.search(pattern, lowered):
                return name
    return next((kind for kind in (*inputs, *outputs) if kind is not None), None)


_CODES = ("int8", "fp8")


def names_kernel(tactic: str) -> bool:
    """Tell whether a tactic names a kernel that exists: not one that is chosen at load."""
    return bool(tactic) and tactic != _STUB and not tactic.startswith("__myl_")


def dequantizes_inside(name: str, kind: str) -> bool:
    """Tell whether a fusion of Myelin's turns codes into floats before it multiplies.

    It is named after its operations: Cast and Mul before Fc is a DequantizeLinear.
    """
    return kind == "runtime_fusion" and "CastMul" in name.partition("Fc")[0]


def product_type(
    name: str,
    kind: str,
    activations: Sequence[str | None],
    weight: str | None,
    outputs: Sequence[str | None],
) -> str | None:
    """Return what a kernel multiplies in, from the types that it is listed with.

    Args:
        name: of the layer.
        kind: its ``LayerType``.
        activations: types of what is multiplied by the weight.
        weight: type of the weight; None: there is none.
        outputs: types that it writes.
    """
    kinds = [*activations, *([] if weight is None else [weight])]
    one_kind = kinds[0] if len(set(kinds)) == 1 else None
    if one_kind in _CODES and not dequantizes_inside(name, kind):
        return one_kind
    return next((one for one in (*kinds, *outputs) if one not in (None, *_CODES)), None)


def is_sparse(tactic: str) -> bool:
    """Tell whether a kernel's name is that of a 2:4 kernel."""
    return bool(_SPARSE.search(tactic))


def multiplies(kind: str, tactic: str, entry: Mapping[str, Any]) -> bool:
    """Tell whether a layer multiplies by weights, so that a 2:4 kernel could exist for it."""
    weights = entry.get("ParameterType") in ("Convolution", "Deconvolution") or "Weights" in entry
    return weights or bool(_MULTIPLY_TYPES.search(kind) or _MULTIPLY_TACTICS.search(tactic))


def purpose(name: str, kind: str, tactic: str, entry: Mapping[str, Any]) -> str:
    """Return what a layer is there for: compute, reformat, qdq or none; see `layer_info.Layer`."""
    if kind in _NO_KERNEL:
        return "none"
    if entry.get("Origin") == "QDQ":
        return "qdq"
    if kind == "Reformat" or name.startswith("Reformatting CopyNode") or _MOVES.match(tactic):
        return "reformat"
    return "compute"
