"""The operators that TensorRT imports, with element types and the release that first took each.

Two sources. What a release documents: docs/operators.md of onnx-tensorrt, of 8.4, 8.5, 9.2 and
10.15. What the parser does: each operator in each type that ONNX allows, put to the parser of
TensorRT for RTX 1.7.1, which has the importer of TensorRT 11.4 (``benchmarks/rtx_operators.py``).
Where the two differ about 11 the parser is right.
`trt_qat.lint.operator_table` shows it: ``trt-qat explain MatMul``, and a page of the documentation.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import TensorProto as T

from trt_qat.lint.releases import OPERATOR_SINCE
from trt_qat.targets import Version

NOT_IMPORTED = frozenset(
    {
        "AffineGrid", "Bernoulli", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr",
        "BitwiseXor", "CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "CumProd", "DFT",
        "Det", "ImageDecoder", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix", "Multinomial",
        "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement", "OptionalHasElement",
        "RegexFullMatch", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
        "SequenceInsert", "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss",
        "SplitToSequence", "StringConcat", "StringNormalizer", "StringSplit", "SwiGLU",
        "TfIdfVectorizer", "Unique",
    }
)  # fmt: skip
"""Standard operators that no release imports, but for `QUANTIZED`."""

QUANTIZED = frozenset(
    {"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"}
)
"""Operators that stand for quantized layers; no release imports them."""

BF16_SINCE: Version = (9, 0)

FLOATS = frozenset({T.FLOAT, T.FLOAT16, T.BFLOAT16})
NUMBERS = FLOATS | {T.INT32, T.INT64}
ALL = NUMBERS | {T.BOOL}
_HALF = frozenset({T.FLOAT, T.FLOAT16})
_CASTS = ALL | {T.UINT8}
_REDUCTIONS = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
    "ReduceSum ReduceSumSquare"
)


def _table(*rows: tuple[frozenset[int], str]) -> dict[str, frozenset[int]]:
    return {op: kinds for kinds, ops in rows for op in ops.split()}


DOCUMENTED: Mapping[str, frozenset[int]] = _table(
    (
        FLOATS,
        "Acos Acosh Asin Asinh Atan Atanh Attention AveragePool BatchNormalization Ceil Celu Clip "
        "Conv ConvTranspose Cos Cosh CumSum Dropout Einsum Elu Erf Exp Floor GRU Gemm "
        "GlobalAveragePool GlobalLpPool GlobalMaxPool GroupNormalization HardSigmoid HardSwish "
        "Hardmax InstanceNormalization IsInf LRN LSTM LayerNormalization LeakyRelu Log LogSoftmax "
        "LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization PRelu QuantizeLinear "
        "RMSNormalization RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike "
        "Reciprocal Resize RotaryEmbedding Round Scan Selu Sigmoid Sin Sinh Softmax Softplus "
        "Softsign Sqrt Tan Tanh ThresholdedRelu Upsample",
    ),
    (
        NUMBERS,
        "Abs Add ArgMax ArgMin DepthToSpace Div Equal Gelu Greater GreaterOrEqual IsNaN Less "
        "LessOrEqual Max Mean Min Mod Mul Neg Pad Pow Range Relu Scatter ScatterElements ScatterND "
        f"Shrink Sign SpaceToDepth Sub Sum TopK {_REDUCTIONS}",
    ),
    (
        ALL,
        "Concat Constant ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND "
        "Identity If Loop OneHot Reshape ReverseSequence Shape Size Slice Split Squeeze Tile "
        "Transpose Trilu Unsqueeze Where",
    ),
    (_CASTS, "Cast CastLike"),
    (
        _HALF,
        "BlackmanWindow DeformConv GridSample HammingWindow HannWindow Mish NonMaxSuppression "
        "NonZero RoiAlign",
    ),
    (frozenset({T.FLOAT}), "STFT"),
    (FLOATS | {T.INT32}, "TensorScatter"),
    (frozenset({T.BOOL}), "And Not Or Xor"),
)
"""Element types by operator as 10.15 documents them; quantized ones, which pairs give, left out."""

_NARROWER_IN_8: Mapping[str, frozenset[int]] = _table(
    (_HALF, f"Pow Relu ReverseSequence {_REDUCTIONS}"),
    (frozenset({T.FLOAT}), "ConstantOfShape"),
)
_ALSO_UP_TO_8_5 = _table((_HALF, "ArgMax ArgMin TopK"))  # INT32 since 8.6 (Changelog)

_NO_BYTES = (
    "Abs Add ArgMax ArgMin Concat Div Expand EyeLike Flatten Gather GatherElements GatherND "
    "Greater GreaterOrEqual Less LessOrEqual Max MaxPool Min Mod Mul OneHot Pad Reshape "
    "ReverseSequence Scatter ScatterElements ScatterND Shrink Sign Slice Split Squeeze Sub Tile "
    "TopK Transpose Trilu Unsqueeze"
)
REFUSED: Mapping[tuple[str, int], frozenset[int]] = {
    **{(op, 0): frozenset({T.UINT8}) for op in _NO_BYTES.split()},
    **{(op, 0): frozenset({T.INT32, T.INT64}) for op in ("Gemm", "MatMul", "PRelu", "ReduceL2")},
    **{
        (op, 0): frozenset({T.UINT8, T.BOOL})
        for op in ("DepthToSpace", "ReduceMax", "ReduceMin", "SpaceToDepth")
    },
    **{
        (op, 0): frozenset({T.UINT8, T.BOOL, T.INT32, T.INT64})
        for op in ("GridSample", "Resize", "Upsample")
    },
    **{
        (op, 0): frozenset({T.BFLOAT16})
        for op in ("GRU", "HardSwish", "LpNormalization", "LpPool", "Mish")
    },
    **{(op, 0): frozenset({T.BFLOAT16, T.FLOAT16}) for op in ("Celu", "MeanVarianceNormalization")},
    ("Clip", 0): frozenset({T.UINT8, T.INT8}),
    ("Einsum", 0): frozenset({T.UINT8, T.INT32, T.INT64}),
    ("OneHot", 2): frozenset({T.UINT8}),
    ("Range", 0): frozenset({T.FLOAT16, T.BFLOAT16}),
    ("Relu", 0): frozenset({T.INT32}),
    ("TensorScatter", 0): frozenset({T.UINT8, T.INT8, T.BOOL, T.INT32, T.INT64}),
    ("Where", 1): frozenset({T.UINT8}),
}
"""Operator and position of its input, to the types that ONNX allows there and the parser refuses.

Measured. Q and DQ are left out: their types have rules of their own (QDQ002, QDQ010).
"""


def documented(op: str, version: Version) -> frozenset[int] | None:
    """Return the element types that the documents of a release give for an operator's data.

    INT64 counts where INT32 does: releases before 9.0 cast it.

    Args:
        op: name of a standard operator.
        version: of TensorRT.

    Returns:
        ONNX element types without the quantized ones; empty: the release does not import the
        operator; None: no table names it.
    """
    kinds = DOCUMENTED.get(op)
    if op in NOT_IMPORTED or version < OPERATOR_SINCE.get(op, (0, 0)):
        return frozenset()
    if kinds is None or version >= BF16_SINCE:
        return kinds
    kinds = _NARROWER_IN_8.get(op, kinds)
    if version < OPERATOR_SINCE["LayerNormalization"]:  # 8.6
        kinds = _ALSO_UP_TO_8_5.get(op, kinds)
    return kinds - {T.BFLOAT16}
