"""What calibration costs: ours by algorithm, a plain forward, ModelOpt, onnxruntime.

    python benchmarks/cost_calibration.py

Every call is the whole of what a user calls on a float network: `trt_qat.quantize` (placement,
ranges, weights), ``mtq.quantize`` with ``INT8_DEFAULT_CFG``, and onnxruntime's ``quantize_static``
(QDQ, symmetric INT8, per channel) from a float ONNX. The forward is the float network over the same
batches, which no calibration can do without. onnxruntime has no MSE.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import modelopt.torch.quantization as mtq
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from torch import Tensor, nn

from benchmarks.shared.chain import chain, float_onnx, images
from benchmarks.shared.side_by_side import Call, Size, Study, Variant, main, quiet
from trt_qat.qat.quantize import quantize
from trt_qat.recipe.specs import CalibrationSpec

BATCH = 32
PAIRED = {"max": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Gives onnxruntime the batches, once."""

    def __init__(self, batches: list[Tensor]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next feed, None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {"x": batch.numpy()}


def forward(model: nn.Module, batches: list[Tensor]) -> Call:
    """Run the float network over all batches."""

    def call() -> None:
        with torch.no_grad():
            for batch in batches:
                model(batch)

    return call


def ours(model: nn.Module, batches: list[Tensor], algorithm: str) -> Call:
    """Quantize a fresh copy by trt-qat."""
    spec = CalibrationSpec.model_validate({"algorithm": algorithm})
    return partial(quantize, copy.deepcopy(model), batches, calibration=spec)


def modelopt(model: nn.Module, batches: list[Tensor]) -> Call:
    """Quantize a fresh copy by ModelOpt's stock configuration, whose algorithm is max."""
    fresh = copy.deepcopy(model)

    def passes(quantized: nn.Module) -> None:
        forward(quantized, batches)()

    def call() -> None:
        with quiet():
            mtq.quantize(fresh, copy.deepcopy(mtq.INT8_DEFAULT_CFG), passes)

    return call


def onnxruntime(path: Path, batches: list[Tensor], method: str) -> Call:
    """Quantize the ONNX by onnxruntime."""

    def call() -> None:
        with quiet():
            quantize_static(
                path,
                path.with_suffix(".int8.onnx"),
                Reader(batches),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod[method],
                extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
            )

    return call


def variants(size: Size) -> dict[str, Variant]:
    """Return everything to be timed on a chain of ``layers`` and ``channels``."""
    torch.set_num_threads(1)
    model = chain(size["layers"], size["channels"])
    batches = list(torch.split(images(size["samples"]), BATCH))
    folder = tempfile.TemporaryDirectory(prefix="trt-qat-cost-")

    @cache  # the curves need none
    def exported() -> Path:
        path = Path(folder.name) / "float.onnx"
        float_onnx(model, batches[0], path)
        return path

    made: dict[str, Variant] = {"forward": lambda: forward(model, batches)}
    for name in ("max", "mse", "percentile", "entropy"):
        made[f"ours-{name}"] = partial(ours, model, batches, name)
    made["modelopt-max"] = partial(modelopt, model, batches)
    for name, method in PAIRED.items():
        made[f"ort-{name}"] = partial(
            lambda method: onnxruntime(exported(), batches, method), method
        )
    return made


STUDY = Study(
    name="cost_calibration",
    variants=variants,
    pairs=(
        ("ours-max", "forward"),
        ("ours-mse", "forward"),
        ("ours-max", "modelopt-max"),
        *((f"ours-{name}", f"ort-{name}") for name in PAIRED),
    ),
    base={"layers": 8, "channels": 32, "samples": 256},
    sweeps={
        "samples": (64, 128, 256, 512),
        "layers": (4, 8, 16, 32),
        "channels": (16, 32, 64, 128),
    },
    curves=("forward", "ours-max", "ours-mse"),
)

if __name__ == "__main__":
    main(STUDY, __file__)
