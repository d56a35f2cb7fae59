"""What a recipe says of quantization: which layers, to which number format."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from trt_qat.recipe.spec import Patterns, Spec

Format = Literal["int8", "fp8", "int4", "nvfp4"]
LayerFormat = Literal["int8", "fp8", "int4", "nvfp4", "float"]
Method = Literal["round-to-nearest", "awq", "gptq"]
ZeroPoint = Literal["zero", "folded", "padded"]
NVFP4_BLOCK = 16


class QuantizeSpec(Spec):
    """Where Q/DQ pairs go, beyond what the placement rules decide from the graph."""

    format: Format = Field(
        default="int8",
        description="of numbers; fp8: E4M3, TensorRT 9 on Ada, Hopper, Blackwell; int4: of the "
        "weights of linear layers alone, TensorRT 10 on Ampere and later; nvfp4: likewise, "
        "TensorRT 10.8 on Blackwell",
    )
    layers: dict[str, LayerFormat] = Field(
        default_factory=dict, description="formats by patterns of layers' names; the last wins"
    )
    int4_block: Literal[64, 128] = Field(
        default=128, description="INT4 weights that share a scale; TensorRT documents 64 and 128"
    )
    int4_method: Method = Field(
        default="round-to-nearest",
        description="awq: channels scaled by their inputs (2306.00978); gptq: what rounding loses "
        "is made up for by the rest of a row (2210.17323)",
    )
    nvfp4_method: Method = Field(default="round-to-nearest", description="as int4_method, of NVFP4")
    include: Patterns = ("*",)
    exclude: Patterns = ()
    heads: Literal["float", "int8"] = Field(
        default="float", description="layers whose output is a network output"
    )
    attention: Literal["float", "int8"] = Field(
        default="float", description="matrix products next to a softmax"
    )
    weights: Literal["per_channel", "per_tensor"] = "per_channel"
    sparse_epilogue: bool = Field(
        default=True, description="an INT8 output for every 2:4 layer expected to gain"
    )
    learned_scales: bool = Field(default=False, description="LSQ: train the scales (1902.08153)")
    zero_point: ZeroPoint = Field(
        default="zero",
        description="of activations; folded: what a ReLU writes has all 256 codes where layers "
        "alone read it, and biases take the zero point in; padded: also where one of them pads",
    )

    @property
    def methods(self) -> dict[str, Method]:
        """Which formats, of those used, have weights chosen by what layers are given, and how."""
        used = {self.format, *self.layers.values()}
        asked: dict[str, Method] = {"int4": self.int4_method, "nvfp4": self.nvfp4_method}
        return {
            name: method
            for name, method in asked.items()
            if name in used and method != "round-to-nearest"
        }

    def as_placed(self) -> QuantizeSpec:
        """Return the spec that places the same and leaves weights as they are."""
        nearest = {"int4_method": "round-to-nearest", "nvfp4_method": "round-to-nearest"}
        return self.model_copy(update=nearest)

    def block_of(self, kind: str) -> int:
        """Return how many weights share a scale in a format of weights alone."""
        return NVFP4_BLOCK if kind == "nvfp4" else int(self.int4_block)

    @model_validator(mode="after")
    def _scales_that_can_be_learned(self) -> QuantizeSpec:
        others = {self.format, *self.layers.values()} - {"int8", "float"}
        if self.learned_scales and others:
            message = (
                f"quantize.learned_scales is of INT8 grids, and layers are {min(others)}, whose "
                "scales stay as they are measured; leave the key out"
            )
            raise ValueError(message)
        return self

    @field_validator("zero_point", mode="before")
    @classmethod
    def _no_learned_zero_point(cls, value: Any) -> Any:
        if value not in get_args(ZeroPoint):
            message = (
                "TensorRT INT8 is symmetric, so a zero point of its own cannot be deployed; "
                "'folded' puts half of a ReLU's range into biases, 'zero' is the default"
            )
            raise ValueError(message)
        return value
