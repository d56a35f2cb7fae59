"""What is measured: the models, and the ways of building each of them. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trt_qat.recipe.specs import BuildSpec

CARRIED = ("dense", "sparse", "stock", "fp32")
"""ONNX files of a model: our Q/DQ; ours with 2:4 weights; ModelOpt's stock Q/DQ; and the float
network, which is derived from the first."""


@dataclass(frozen=True)
class Variant:
    """One way of building a model.

    Attributes:
        name: in results.
        onnx: which of `CARRIED` it is built from.
        options: of `BuildSpec`, beyond those of the run.
        implicit: INT8 by TensorRT's own calibration of the float network (8.6 and 10).
        title: for people.
    """

    name: str
    onnx: str
    title: str
    options: tuple[tuple[str, Any], ...] = ()
    implicit: bool = False

    def spec(self, batch: tuple[int, int, int], common: dict[str, Any]) -> BuildSpec:
        """Return the options of the build, for a range of batch sizes."""
        return BuildSpec.model_validate(common | dict(self.options) | {"batch": batch})


_OFF = ("sparse_weights", False)
VARIANTS = {
    each.name: each
    for each in (
        Variant("dense", "dense", "INT8, our Q/DQ", (_OFF,)),
        Variant("implicit", "fp32", "INT8, implicit", (_OFF,), implicit=True),
        Variant("fp16", "fp32", "FP16", (_OFF,)),
        Variant("sparse", "sparse", "INT8, our Q/DQ, 2:4 kernels allowed"),
        Variant("sparse-off", "sparse", "INT8, the same 2:4 weights, dense kernels", (_OFF,)),
        Variant("stock", "stock", "INT8, ModelOpt's stock Q/DQ", (_OFF,)),
        Variant("fp32", "fp32", "FP32 with TF32", (_OFF, ("remainder", "fp32"))),
    )
}
"""In the order of worth. All but ``fp32`` let FP16 compute what is not INT8."""

RATIOS = (
    ("dense", "implicit", "explicit over implicit INT8: at most 1.00"),
    ("dense", "fp16", "INT8 over FP16: below 1.00"),
    ("sparse", "sparse-off", "2:4 kernels over dense ones, same weights: as measured"),
    ("dense", "stock", "our placement over ModelOpt's stock: as measured"),
    ("dense", "fp32", "INT8 over FP32 with TF32: as measured"),
)
"""Pairs whose latencies are compared, and what the first over the second should be."""
