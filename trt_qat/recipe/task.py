"""The ``[task]`` of a recipe: what the model is for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from trt_qat.recipe.spec import Spec


class TaskSpec(Spec):
    """What the model is for: how it is trained, and how its answers are scored."""

    kind: Literal[
        "classification", "segmentation", "detection", "regression", "embedding", "own"
    ] = Field(default="classification", description="embedding: as the float model, no labels")
    loss: str | None = Field(
        default=None, description="package.module:function(outputs, targets); absent: the kind's"
    )
    metrics: str | None = Field(
        default=None,
        description="package.module:function(outputs, targets), (N,) scores or a number, or a "
        "dict of such whose first is judged; higher is better; absent: the kind's",
    )
    collate: str | None = Field(
        default=None, description="package.module:function(samples); absent: arrays are stacked"
    )
    decode: str | None = Field(
        default=None, description="package.module:function(outputs), before the metrics"
    )
    output: str | None = Field(
        default=None, description="which of several outputs is judged, a key or a position"
    )
    ignored: int = Field(default=255, description="label of pixels that do not count")

    @model_validator(mode="after")
    def _complete(self) -> TaskSpec:
        needed = {"own": ("loss", "metrics"), "detection": ("loss",)}.get(self.kind, ())
        if lacking := [key for key in needed if getattr(self, key) is None]:
            message = f"kind = {self.kind!r} needs {' and '.join(lacking)}, an import path each"
            raise ValueError(message)
        return self
