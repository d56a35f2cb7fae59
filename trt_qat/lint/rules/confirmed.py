"""QDQ5xx: what NVIDIA's code says and no rule foresaw. They are found by ``--confirm`` alone."""

from __future__ import annotations

from collections.abc import Iterator

from trt_qat.lint.rule import Context, Hit, rule

PARSER, BUILDER, CRASH, FLOAT = "QDQ501", "QDQ502", "QDQ503", "QDQ504"
FP16 = "QDQ505"


@rule(PARSER, "refused by NVIDIA's parser", "error")
def refused_by_parser(context: Context) -> Iterator[Hit]:
    """The parser refuses what no rule objects to."""
    return iter(())


@rule(BUILDER, "refused by NVIDIA's builder", "error")
def refused_by_builder(context: Context) -> Iterator[Hit]:
    """The parser accepts the model and the builder makes no plan of it."""
    return iter(())


@rule(CRASH, "NVIDIA's parser or builder crashes", "error")
def crash(context: Context) -> Iterator[Hit]:
    """Its process ends on this model."""
    return iter(())


@rule(FLOAT, "INT8 predicted, float compiled", "info")
def float_compiled(context: Context) -> Iterator[Hit]:
    """The compiler of TensorRT for RTX computes a layer in float that has INT8 on both sides."""
    return iter(())


@rule(FP16, "FP16 moves less than INT8 on RTX", "info")
def fp16_moves_less(context: Context) -> Iterator[Hit]:
    """The same compiler makes fewer kernels of the FP16 form, which move fewer bytes.

    On 1.7.1 an INT8 convolution writes float, and a generated kernel behind it quantizes.
    """
    return iter(())
