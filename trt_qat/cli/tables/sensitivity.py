"""What INT8 costs layer by layer, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from trt_qat.cli.tables.names import Name

if TYPE_CHECKING:
    from trt_qat.qat.sensitivity import Sensitivity, Suggestion


def sensitivity_table(ranked: Sensitivity, found: Suggestion | None) -> Group:
    """Return the layers, the most sensitive first, and what to keep float for a budget."""
    table = Table("layer", "alone in INT8", "all but it", box=None, pad_edge=False)
    for layer in ranked.layers:
        table.add_row(Name(layer.name), f"{layer.alone_db:.1f} dB", f"{layer.without_db:.1f} dB")
    lines = [f"all layers in INT8: {ranked.full_db:.1f} dB (SQNR of the outputs against FP32)"]
    if found is not None:
        lines.append(
            f"accuracy: {found.fp32:.2%} FP32, {found.int8:.2%} with all layers in INT8, "
            f"{found.accuracy:.2%} as follows"
        )
        nothing = "# nothing need be kept float\n"
        lines.append(found.recipe_lines() if found.exclude else nothing)
        if not found.within:
            lines.append("no choice of layers stays within the budget")
    return Group(table, Text(), Text("\n".join(lines)))
