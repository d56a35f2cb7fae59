"""What a budget was filled with, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from trt_qat.cli.tables.names import Name

if TYPE_CHECKING:
    from trt_qat.qat.budgeted import Budgeted

NAMES = {
    "float": "float",
    "float_2_4": "float, 2:4",
    "int8": "INT8, dense",
    "int8_2_4": "INT8, 2:4 wherever it fits",
    "chosen": "as chosen",
}


def budget_table(found: Budgeted) -> Group:
    """Return the choice for every layer, what it is held to, and the lines to paste."""
    layers = Table("layer", "format", "2:4", "ranges", "alone", "floor", box=None, pad_edge=False)
    for layer in found.layers:
        alone = "" if layer.format == "float" and not layer.sparse else f"{layer.alone_db:.1f} dB"
        layers.add_row(
            Name(layer.name),
            layer.format,
            "2:4" if layer.sparse else "dense",
            layer.algorithm or ("" if layer.format == "float" else "recipe"),
            alone,
            f"{layer.floor_us:.3f} us",
        )
    whole = Table("network", found.by, "floor", box=None, pad_edge=False)
    for key, floor in sorted(found.floor_us.items(), key=lambda item: -item[1]):
        quality = _shown(found, found.quality[key]) if key in found.quality else ""
        whole.add_row(NAMES.get(key, key), quality, f"{floor:.2f} us")
    return Group(layers, Text(), whole, Text(), Text(_told(found)))


def _told(found: Budgeted) -> str:
    lines = [
        f"floors: the roofline on {found.target} at batch {found.batch}, a limit and no prediction "
        f"of latency; quality: before training; {found.quantizations} quantizations"
    ]
    if found.all_float:
        lines.append("no layer can be quantized within this budget: only the float model is")
    elif not found.within:
        lines.append("no choice of layers stays within the budget; this is the nearest one")
    if not found.all_float:
        lines.append(found.recipe or "# the recipe as it is\n")
    return "\n".join(lines)


def _shown(found: Budgeted, value: float) -> str:
    return f"{value:.1f} dB" if found.by == "sqnr" else f"{value:.2%}"
