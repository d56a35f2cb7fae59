"""What a recipe says of accuracy beside placement: ranges, post-training methods, recovery."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trt_qat.recipe.spec import Fraction, Patterns, Spec

Algorithm = Literal["max", "percentile", "entropy", "mse", "moving_average"]


class RangeRule(Spec):
    """How the ranges are measured of tensors whose names match a pattern."""

    algorithm: Algorithm = "mse"
    percentile: float = Field(default=99.99, gt=0.0, le=100.0)
    averaging: float = Field(
        default=0.01, gt=0.0, le=1.0, description="weight of a batch in a moving average"
    )


class PtqSpec(Spec):
    """What is done to weights before and after the ranges are measured, without training.

    All of it keeps the network's operations and their cost, but for ``smooth`` where no layer
    before can take the factors: there it puts a multiplication before the layer.
    """

    equalize: bool = Field(
        default=False, description="even out channels between layers (1906.04721, by activations)"
    )
    smooth: Fraction | Literal["search"] | None = Field(
        default=None,
        description="SmoothQuant of Linear layers (2211.10438): alpha, or searched for each",
    )
    split: bool = Field(
        default=False,
        description="costly channels again in place of constant ones, on another grid (1901.09504)",
    )
    rounding: Literal["nearest", "learned"] = Field(
        default="nearest", description="learned: up or down by the error of the output (2004.10568)"
    )
    rounding_steps: int = Field(
        default=4, ge=1, description="passes over a weight, of learned rounding"
    )
    bias_correction: bool = Field(
        default=False, description="take the mean error of each channel out of the biases"
    )

    @property
    def changes_weights(self) -> bool:
        """Whether weights after quantize are others than those of the float model."""
        return self != PtqSpec()


class RecoverySpec(Spec):
    """What training does beside following a loss; off by default, but ``as_deployed``."""

    as_deployed: bool | None = Field(
        default=None,
        description="train the function that is deployed: no dropout, no stochastic depth, no "
        "outputs of training alone; BatchNorm by freeze_batchnorm; absent: if a teacher is learned "
        "from, whose outputs have none of them",
    )
    average: Literal["none", "ema", "swa"] = Field(
        default="none", description="the weights kept are an average over steps"
    )
    ema_decay: float = Field(default=0.998, gt=0.0, lt=1.0, description="a step, of average = ema")
    average_from: Fraction = Field(
        default=0.5, description="part of the steps after which average = swa begins"
    )
    sam_rho: float = Field(
        default=0.0, ge=0.0, description="sharpness-aware minimization (2010.01412); 0.05 is usual"
    )
    dampening: float = Field(
        default=0.0, ge=0.0, description="pulls weights to their grid (2203.11086)"
    )
    reestimate_batchnorm: int = Field(
        default=0, ge=0, description="batches on which BatchNorm statistics are measured at the end"
    )


class DistillSpec(Spec):
    """What a quantized model learns of its float self; labels are not used then."""

    match: Literal["none", "outputs", "logits"] = Field(
        default="none", description="outputs: direction and length; logits: KL (1503.02531)"
    )
    temperature: float = Field(default=1.0, gt=0.0, description="of logits")
    feature_weight: float = Field(
        default=0.0, ge=0.0, description="of inner tensors, beside what is matched or alone"
    )
    features: Patterns = Field(
        default=("*",), description="modules whose outputs are inner tensors; *: norms, else layers"
    )

    @property
    def enabled(self) -> bool:
        """Whether the float model is learned from."""
        return self.match != "none" or self.feature_weight > 0
