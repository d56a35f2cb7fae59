"""What preflight costs by size of graph: against reading the file, and in memory.

    python benchmarks/cost_preflight.py

The graph is a chain of quantized MatMuls, five nodes a layer, the weights in a file of their own.
``load`` is ``onnx.load`` with those weights: what a tool that reads the model has spent before it
looks at a node. ``shapes`` is onnx's shape inference from file to file, which any judgement of a
graph needs.
"""

from __future__ import annotations

import sys
import tempfile
from functools import cache, partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import onnx

from benchmarks.preflight_speed import matmuls
from benchmarks.shared.side_by_side import Call, Size, Study, Variant, main
from trt_qat.lint.preflight import preflight


def shapes(path: Path) -> Call:
    """Infer the shapes of a file."""
    inferred = path.with_suffix(".shapes.onnx")
    return partial(onnx.shape_inference.infer_shapes_path, str(path), str(inferred))


def variants(size: Size) -> dict[str, Variant]:
    """Return everything to be timed on a chain of ``layers`` MatMuls, ``side`` wide."""
    folder = tempfile.TemporaryDirectory(prefix="trt-qat-cost-")

    @cache
    def path() -> Path:
        return matmuls(Path(folder.name), size["layers"], size["side"])

    return {
        "ours": lambda: partial(preflight, path(), "a100", tensorrt="10.16"),
        "load": lambda: partial(onnx.load, path()),
        "shapes": lambda: shapes(path()),
    }


STUDY = Study(
    name="cost_preflight",
    variants=variants,
    pairs=(("ours", "load"), ("ours", "shapes")),
    base={"layers": 200, "side": 512},
    sweeps={"layers": (50, 100, 200, 400, 800), "side": (128, 256, 512, 1024)},
    curves=("ours", "load"),
)

if __name__ == "__main__":
    main(STUDY, __file__)
