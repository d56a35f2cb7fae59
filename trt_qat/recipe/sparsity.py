"""What a recipe says of 2:4: which layers hold it, by which masks, and until when masks move."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trt_qat.recipe.spec import Fraction, Patterns, Spec


class SparsitySpec(Spec):
    """Which layers are pruned to 2:4."""

    enabled: bool = True
    include: Patterns = ("*",)
    exclude: Patterns = ()
    skip_first: bool = Field(default=True, description="leave the layer that reads the input dense")
    where: Literal["fits", "gains"] = Field(
        default="fits",
        description="gains: dense where preflight expects no sparse kernel to win on the target",
    )
    method: Literal["magnitude", "wanda", "sparsegpt"] = Field(
        default="magnitude",
        description="wanda: by the inputs too (2306.11695); sparsegpt: and makes up for what goes",
    )
    permute: bool = Field(
        default=False, description="put channels in the order in which 2:4 keeps most (2104.08378)"
    )


class MovingMasksSpec(Spec):
    """Whether training chooses 2:4 masks anew, off by default."""

    recompute_masks: Fraction = Field(
        default=0.0, description="part of the steps in which 2:4 masks are chosen anew, then frozen"
    )
    recompute_every: int = Field(default=10, ge=1, description="steps between two choices of masks")
    mask_decay: Fraction = Field(
        default=0.5,
        description="of the weights behind a mask, taken off at each choice (SR-STE, 2102.04010)",
    )


def masks_must_move(moving: MovingMasksSpec, sparsity: SparsitySpec) -> None:
    """Refuse masks that are to be chosen anew where there are none, or chosen by more.

    Raises:
        ValueError: what is to be changed, for pydantic to name the key with.
    """
    if not moving.recompute_masks:
        return
    if not sparsity.enabled:
        message = "recompute_masks moves 2:4 masks: set sparsity.enabled = true"
        raise ValueError(message)
    if sparsity.method != "magnitude":
        message = (
            "recompute_masks chooses by magnitude, which undoes sparsity.method = "
            f"{sparsity.method!r}: leave one of the two out"
        )
        raise ValueError(message)
