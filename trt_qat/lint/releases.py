"""What each TensorRT release took in, as data.

Sources: docs/operators.md (8.0, 8.4, 8.5, 9.2, 10.15) and docs/Changelog.md (up to 10.15) of
onnx-tensorrt; the importer of Q and DQ, ``QuantDequantLinearHelper``, at several releases.
"""

from __future__ import annotations

from collections.abc import Mapping

from trt_qat.targets import Version

_ADDED: Mapping[Version, str] = {
    (8, 2): "Einsum GatherND IsNaN Round Scatter ScatterElements ScatterND Sign",
    (8, 4): "Shrink Xor",
    (8, 5): "GridSample HardSwish MeanVarianceNormalization Mod NonZero OneHot RandomNormal "
    "RandomNormalLike RoiAlign Trilu",
    (8, 6): "GroupNormalization IsInf LayerNormalization",
    (9, 0): "CastLike",
    (9, 2): "Hardmax",
    (10, 0): "Gelu Mish",  # in no table up to 9.2
    (10, 1): "DeformConv",
    (10, 4): "BlackmanWindow HammingWindow HannWindow",
    (10, 5): "STFT",
    (10, 14): "Attention",
    (10, 15): "RMSNormalization RotaryEmbedding TensorScatter",
}
OPERATOR_SINCE: Mapping[str, Version] = {
    op: since for since, ops in _ADDED.items() for op in ops.split()
}

ZERO_POINT_OPTIONAL: Version = (9, 0)
"""Before, the importer "requires 3 inputs"."""

SCALE_TYPES_READ: Version = (9, 0)
"""Before, the importer reads the bytes of a scale as FP32, whatever type it has."""

AXIS_DEFAULT_1: Version = (10, 2)
"""Before, the importer takes axis 0 where none is stated; ONNX says 1."""

SCALE_FREE: Version = (10, 13)
"""Before, a scale is a Constant, or a Constant behind a Cast (NvInfer.h)."""

KERNEL_SHAPE_INFERRED: Version = (10, 4)
"""Before, a Conv of a computed weight or bias needs kernel_shape (changelog of onnx-tensorrt)."""

WEIGHT_AS_TENSOR: Version = (8, 5)
"""Before, a convolution whose weight cannot be folded is refused (issues 1864, 2131)."""

SCALES_AROUND_RELU: Version = (8, 6)
"""Before, pairs of two scales around a Relu that several nodes read do not build (issue 2664)."""

DEPTHWISE_ADD_BUILDS: Version = (10, 0)
"""Before, an INT8 depthwise convolution with a float Add does not build (issue 3579)."""
