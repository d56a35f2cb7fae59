"""What the stages did to a model, kept beside it: `report_of`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from trt_qat.qat.state import keep, kept_within


@dataclass(frozen=True)
class LayerNote:
    """One layer and what was decided about it."""

    name: str
    why: str = ""


@dataclass
class Report:
    """Grows as the stages run; each field is filled by the stage named in its comment."""

    sparse: tuple[LayerNote, ...] = ()  # sparsify: layers that hold 2:4 masks
    skipped: tuple[LayerNote, ...] = ()  # sparsify: layers left dense, and why
    permuted: tuple[str, ...] = ()  # sparsify: of those, whose input channels changed their order
    moved: tuple[str, ...] = ()  # sparsify, quantize: what writes other channels now
    quantized: tuple[LayerNote, ...] = ()  # quantize: layers with INT8 inputs and weights
    float_layers: tuple[LayerNote, ...] = ()  # quantize: layers left float, and why
    float_outputs: tuple[LayerNote, ...] = ()  # quantize: INT8 layers with a float output, and why
    unsigned: tuple[str, ...] = ()  # quantize: tensors with 256 codes, their zero points folded
    untraced: tuple[LayerNote, ...] = ()  # quantize: parts left as Python, and why
    warnings: list[str] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)  # finetune: one entry a step
    sharpness: dict[str, float] = field(default_factory=dict)  # finetune by SAM: before, after, rho

    def table(self) -> str:
        """Return the report as text, one layer a line."""
        rows = [
            *(f"{n.name}: 2:4" for n in self.sparse),
            *(f"{n.name}: dense ({n.why})" for n in self.skipped),
            *(f"{n.name}: INT8" for n in self.quantized),
            *(f"{n.name}: float ({n.why})" for n in self.float_layers),
            *(f"{n.name}: float output ({n.why})" for n in self.float_outputs),
            *(f"{name}: 256 codes (never negative)" for name in self.unsigned),
            *(f"{n.name or 'the model'}: not traced ({n.why})" for n in self.untraced),
            *(f"sharpness {key}: {value:.4g}" for key, value in self.sharpness.items()),
            *(f"warning: {w}" for w in self.warnings),
        ]
        return "\n".join(rows)


def report_of(model: nn.Module) -> Report:
    """Return the report of ``model``, empty when no stage has seen it.

    That of a wrapper, such as ``AveragedModel`` or ``DistributedDataParallel``, is the report of
    what it wraps.
    """
    found = next(kept_within(model, "report"), None)
    if found is None:
        found = Report()
        keep(model, "report", found)
    assert isinstance(found, Report)
    return found
