"""What export costs: ours against torch's exporter on the float model, and against ModelOpt's way.

    python benchmarks/cost_export.py

Ours is `trt_qat.export`: torch's dynamo exporter on the deployed model, the passes that give
TensorRT its form, the checks of what was written; what the comparison with the model costs besides
is ``cost_verify.py``'s. ``float`` is the same exporter on the float
model, which no export by it can do without. ``modelopt`` is ``torch.onnx.export`` as ModelOpt's
examples call it (TorchScript exporter, opset 20) on a model quantized with ``INT8_DEFAULT_CFG``;
its graph has FP32 weights behind Q/DQ.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from functools import cache, partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import modelopt.torch.quantization as mtq
import torch
from torch import Tensor, nn

from benchmarks.shared.chain import chain, float_onnx, images
from benchmarks.shared.side_by_side import Call, Size, Study, Variant, main, quiet
from trt_qat.qat.export import export
from trt_qat.qat.quantize import quantize
from trt_qat.recipe.specs import CalibrationSpec, ExportSpec


def modelopt(model: nn.Module, example: Tensor, path: Path) -> Call:
    """Export a model that ModelOpt quantized."""

    def call() -> None:
        with quiet(), torch.no_grad():
            torch.onnx.export(
                model, (example,), str(path), dynamo=False, opset_version=20,
                input_names=["x"], dynamic_axes={"x": {0: "batch"}},
            )  # fmt: skip

    return call


def stock(model: nn.Module, example: Tensor) -> nn.Module:
    """Return a copy quantized by ModelOpt's stock configuration."""
    with quiet():
        config = copy.deepcopy(mtq.INT8_DEFAULT_CFG)
        found: nn.Module = mtq.quantize(copy.deepcopy(model), config, lambda m: m(example))
    return found


def variants(size: Size) -> dict[str, Variant]:
    """Return everything to be timed on a chain of ``layers`` and ``channels``."""
    torch.set_num_threads(1)
    model, example = chain(size["layers"], size["channels"]), images(2)
    folder = tempfile.TemporaryDirectory(prefix="trt-qat-cost-")

    def path(name: str) -> Path:
        return Path(folder.name) / f"{name}.onnx"

    @cache
    def quantized() -> nn.Module:
        spec = CalibrationSpec(algorithm="max")
        return quantize(copy.deepcopy(model), [example], calibration=spec)

    @cache
    def stock_quantized() -> nn.Module:
        return stock(model, example)

    return {
        "ours": lambda: partial(
            export, quantized(), example, path("ours"), spec=ExportSpec(verify=False)
        ),
        "float": lambda: partial(float_onnx, model, example, path("float")),
        "modelopt": lambda: modelopt(stock_quantized(), example, path("modelopt")),
    }


STUDY = Study(
    name="cost_export",
    variants=variants,
    pairs=(("ours", "float"), ("ours", "modelopt")),
    base={"layers": 16, "channels": 64},
    sweeps={"layers": (4, 8, 16, 32), "channels": (32, 64, 128, 256)},
    curves=("ours", "float", "modelopt"),
)

if __name__ == "__main__":
    main(STUDY, __file__)
