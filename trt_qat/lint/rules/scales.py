"""QDQ120 and QDQ121: scales that do not fit the weight that they quantize.

Activations' scales cannot be judged from the file: ``trt-qat compare`` tells of them, with data.
"""

from __future__ import annotations

from collections.abc import Iterator

from trt_qat.graph.codes import grid_use
from trt_qat.lint.rule import Context, Hit, rule

# Calibrators that cut outliers leave less than that beyond the grid. Codes on the grid's ends, more
# than one a scale, are told from a larger part on: a small kernel has several by chance.
_CLIPPED, _ON_THE_ENDS = 0.01, 0.05
_FEW_CODES = 8
_SMALLEST_WEIGHT = 32


@rule("QDQ120", "scale that clips a weight", "warning")
def clips(context: Context) -> Iterator[Hit]:
    """A scale that is too small cuts values off: the layer computes with another weight.

    Seen where a weight changed after its range was measured. By definition of the operator
    (saturation to -128 to 127).
    """
    for layer in context.layers:
        use = grid_use(layer.graph, layer.weight)
        if use is None or use.clipped <= (_ON_THE_ENDS if use.stored else _CLIPPED):
            continue
        what = "lie on the ends of its grid, more than one a scale" if use.stored else "are cut off"
        yield Hit(
            layer.node.name,
            f"{use.clipped:.1%} of the values of this weight {what}: its scale is too small.",
            "Measure the range of the weight as it is now: the largest magnitude over 127.",
        )


@rule("QDQ121", "scale that wastes the grid", "warning")
def wastes(context: Context) -> Iterator[Hit]:
    """A scale that is too large leaves a weight a few codes of 255."""
    for layer in context.layers:
        use = grid_use(layer.graph, layer.weight)
        size = 1
        for dim in layer.weight.shape:
            size *= dim
        if use is None or use.largest > _FEW_CODES or size < _SMALLEST_WEIGHT:
            continue
        yield Hit(
            layer.node.name,
            f"This weight uses {use.used} of 255 codes, none larger than {use.largest}: its scale "
            "is too large.",
            "Measure the range of the weight itself: the largest magnitude over 127.",
        )
