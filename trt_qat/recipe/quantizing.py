"""What a recipe says of quantization: which layers, to which number format."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from trt_qat.recipe.spec import Patterns, Spec

Format = Literal["int8", "fp8"]
LayerFormat = Literal["int8", "fp8", "float"]


class QuantizeSpec(Spec):
    """Where Q/DQ pairs go, beyond what the placement rules decide from the graph."""

    format: Format = Field(
        default="int8", description="of numbers; fp8: E4M3, TensorRT 9 on Ada, Hopper, Blackwell"
    )
    layers: dict[str, LayerFormat] = Field(
        default_factory=dict, description="formats by patterns of layers' names; the last wins"
    )
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
    zero_point: Literal["zero"] = Field(default="zero", description="TensorRT INT8 is symmetric")

    @model_validator(mode="after")
    def _scales_that_can_be_learned(self) -> QuantizeSpec:
        others = {self.format, *self.layers.values()} - {"int8", "float"}
        if self.learned_scales and others:
            message = (
                f"quantize.learned_scales is of INT8 grids, and layers are {min(others)}: rounding "
                "is relative there, so a scale has nothing to learn; leave the key out"
            )
            raise ValueError(message)
        return self

    @field_validator("zero_point", mode="before")
    @classmethod
    def _no_learned_zero_point(cls, value: Any) -> Any:
        if value != "zero":
            message = (
                "TensorRT INT8 is symmetric, so a zero point other than zero cannot be deployed; "
                "leave the key out"
            )
            raise ValueError(message)
        return value
