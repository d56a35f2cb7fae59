"""What preflight predicts of every weighted layer, set against what the compiler lists."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trt_qat.engine.evidence.listing import Kernel, behind, ends_in_int8
from trt_qat.lint.fate import LayerFate
from trt_qat.lint.rule import Finding

FLOAT_RULES = frozenset({"QDQ006", "QDQ125", "QDQ126"})
"""Rules about what is accepted and multiplied in float, which a listing shows."""


@dataclass(frozen=True)
class Seen:
    """A weighted layer of the ONNX as the compiler lists it.

    Attributes:
        name: of the ONNX node.
        kernel: that multiplies it; None: none is named after it.
        type: of that kernel.
        precision: what it multiplies in.
        input_int8: it reads codes.
        output_int8: it writes codes itself.
        epilogue_int8: what is generated behind it writes codes.
        behind: kernels that read what it writes.
    """

    name: str
    kernel: str | None
    type: str = ""
    precision: str | None = None
    input_int8: bool = False
    output_int8: bool = False
    epilogue_int8: bool = False
    behind: tuple[str, ...] = ()


@dataclass(frozen=True)
class Agreement:
    """Prediction and listing side by side.

    Attributes:
        layers: that preflight tells of.
        found: of them, those that a kernel is named after.
        precision: of those found, those whose precision is as predicted.
        input: likewise, whether they read codes.
        epilogue: likewise, whether they end in codes; where the compiler puts the Q is its own.
        foreseen: of the others, those that this compiler was expected to compute in float: every
            ConvTranspose, and layers that a rule about it names.
        differ: the others: name, what was predicted, what is listed, and why where it is known.
    """

    layers: int
    found: int
    precision: int
    input: int
    epilogue: int
    foreseen: int
    differ: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of ``layers.json``."""
        return asdict(self) | {"differ": list(self.differ)}


def seen(kernels: Sequence[Kernel], name: str) -> Seen:
    """Return what the compiler does with an ONNX node that multiplies."""
    holding = [kernel for kernel in kernels if name in kernel.onnx]
    own = [kernel for kernel in holding if kernel.multiplies]
    # A fusion lists every node in it: one that is named after the node comes first.
    own.sort(key=lambda kernel: not kernel.name.startswith(name))
    if not own:
        # A product with one column becomes a pointwise kernel, in float.
        pointwise = next((k for k in holding if "MulSum" in k.name), None)
        kernel = pointwise or next(iter(holding), None)
        if kernel is None:
            return Seen(name, None)
        precision = kernel.precision if pointwise is not None else None
        return Seen(name, kernel.name, kernel.type, "float" if precision else None)
    kernel = own[0]
    return Seen(
        name=name,
        kernel=kernel.name,
        type=kernel.type,
        precision=kernel.precision,
        input_int8=bool(kernel.inputs) and kernel.inputs[0].dtype == "Int8",
        output_int8=bool(kernel.outputs) and all(t.dtype == "Int8" for t in kernel.outputs),
        epilogue_int8=ends_in_int8(kernels, kernel),
        behind=tuple(each.name for each in behind(kernels, kernel)),
    )


def agreement(
    kernels: Sequence[Kernel], fates: Iterable[LayerFate], findings: Iterable[Finding] = ()
) -> Agreement:
    """Set predictions against a listing.

    Args:
        kernels: of the listing.
        fates: what TensorRT makes of every weighted layer.
        findings: of preflight: rules about this compiler name layers that it computes in float.
    """
    named = {finding.node for finding in findings if finding.rule in FLOAT_RULES}
    rows = [(fate, seen(kernels, fate.name)) for fate in fates]
    found = [(fate, one) for fate, one in rows if one.precision is not None]
    right = [(fate, one) for fate, one in found if _same(fate, one)]
    differ = [_difference(fate, one) for fate, one in rows if not _same(fate, one)]
    return Agreement(
        layers=len(rows),
        found=len(found),
        precision=len(right),
        input=sum(fate.input_int8 == one.input_int8 for fate, one in found),
        epilogue=sum(fate.output_int8 == one.epilogue_int8 for fate, one in found),
        foreseen=sum(_foreseen(fate, one, named) for fate, one in found),
        differ=tuple(differ),
    )


def _same(fate: LayerFate, one: Seen) -> bool:
    return one.precision is not None and _codes(fate.precision) == _codes(one.precision)


def _codes(precision: str) -> str:
    return precision if precision in ("int8", "fp8") else "float"


def _foreseen(fate: LayerFate, one: Seen, named: Collection[str]) -> bool:
    """Tell whether a layer that differs is float because of what this compiler is known to lack."""
    known = fate.op == "ConvTranspose" or fate.name in named
    return not _same(fate, one) and known and fate.precision == "int8"


def _difference(fate: LayerFate, one: Seen) -> dict[str, Any]:
    return {
        "name": fate.name,
        "op": fate.op,
        "predicted": fate.precision,
        "listed": one.precision,
        "kernel": one.kernel,
        "why": _why(fate, one),
    }


def _why(fate: LayerFate, one: Seen) -> str | None:
    """Return the reason of a disagreement where it is a known trait of the compiler."""
    if one.kernel is None:
        return "no kernel is named after it"
    if fate.precision != "int8":
        return None
    if fate.op == "ConvTranspose":
        return "the compiler has no INT8 ConvTranspose"
    if one.type == "" or one.precision == "int8":
        return None
    if one.precision == "float":
        return "a product with one output column is a pointwise kernel"
    if fate.op in ("MatMul", "Gemm"):
        return (
            "its weight is dequantized inside the kernel, as where Q, K and V of one product are "
            "taken apart behind it and the weight has a scale a channel; one scale keeps it INT8"
        )
    return None
