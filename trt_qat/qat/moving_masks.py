"""2:4 masks that are chosen anew in training, until they are frozen.

A mask that is chosen once, by the float network's magnitudes, decides before training which half
of the weights can ever learn: ModelOpt's masks, like those of apex's ASP, multiply the weight, so
what is behind them gets no gradient. Choosing again by magnitude alone, as ASP's
``allow_recompute_mask`` allows, hardly moves them then: a weight comes back only where one before
the mask has shrunk below a value that stood still. So while masks may move, the gradient goes
straight through to every weight, and those behind the mask are pulled to 0 a little, which keeps
masks from going to and fro: SR-STE (Zhou et al., "Learning N:M Fine-grained Structured Sparse
Neural Networks From Scratch", 2102.04010).

There the pull is a term of the gradient; here it is a part taken off at each choice, so that it is
the same under any optimizer, loss scale and number of batches a step, as AdamW takes its decay.
The paper's 2e-4 is too little for that: an adaptive optimizer moves a weight whose gradient nothing
answers by its rate a step, so what is behind the masks wanders until it is as large as what stays,
and masks follow it. On Fashion-MNIST that cost a ViT 1.7 points and a MobileNet 0.7 against masks
that stand still; with half taken off at each choice masks move and nothing is lost.
After the freeze step everything is as with masks that never moved.
"""

from __future__ import annotations

import torch
from torch import nn

from trt_qat.errors import InputError, ModelError
from trt_qat.qat.channels import own_weight
from trt_qat.qat.masked import masked_layers, pass_gradients
from trt_qat.qat.masks import magnitude_mask
from trt_qat.recipe.specs import FinetuneSpec, TrainSpec


def recompute_masks(model: nn.Module, *, decay: float = 0.5, freeze: bool = False) -> float:
    """Choose the 2:4 masks of a model anew, by the magnitudes of its dense weights.

    In a loop of your own call it before the first step, every few steps after
    ``optimizer.step()``, and once more with ``freeze`` at the step from which masks are to stand
    still. In between the weights behind the masks get gradients too: without any a mask would
    hardly move (SR-STE, 2102.04010; the head of this file says more).

    Args:
        model: with masks of `sparsify`, quantized or not; wrappers of torch's are looked through.
        decay: part of the weights behind the masks that is taken off before, 0 to 1.
        freeze: this is the last choice: what is behind the masks gets no gradient from here on.

    Returns:
        The part of the places where the mask is another now, 0 to 1.

    Raises:
        ModelError: the model holds no 2:4 mask.
        InputError: ``decay`` is no part of 1.
    """
    if not 0 <= decay <= 1:
        message = f"recompute_masks: decay {decay}: allowed: a part of 1, as 0.5"
        raise InputError(message)
    layers = masked_layers(model)
    if not layers:
        raise ModelError(_NO_MASK)
    moved, places = 0, 0
    with torch.no_grad():
        for layer in layers.values():
            mask, weight = layer._buffers["_weight_mask"], own_weight(layer)
            assert mask is not None
            weight.sub_(decay * weight * ~mask)
            found = magnitude_mask(weight)
            moved += int((found != mask).sum())
            places += mask.numel()
            mask.copy_(found)
            pass_gradients(layer, through=not freeze)
    return moved / places


_NO_MASK = "recompute_masks: the model holds no 2:4 mask; call sparsify first, or leave the key out"


class MovingMasks:
    """The masks of a training run, from its first step to the one that freezes them.

    Of several processes each chooses for itself: their weights are the same bits.

    Args:
        model: that is trained.
        spec: ``recompute_masks``, ``recompute_every``, ``mask_decay``; other than fine-tuning has
            none of them, and does nothing here.
        total: steps of the run.

    Raises:
        ModelError: masks are to move, and the model holds none.
    """

    def __init__(self, model: nn.Module, spec: TrainSpec, total: int) -> None:
        self._model = model
        self._spec = spec if isinstance(spec, FinetuneSpec) else FinetuneSpec()
        self._until = round(self._spec.recompute_masks * total)
        self.moved = 0.0
        if self._until and not masked_layers(model):
            raise ModelError(_NO_MASK)

    def begin(self, step: int) -> None:
        """Let gradients through from ``step`` on, if masks still move there."""
        for layer in masked_layers(self._model).values() if self._until else ():
            pass_gradients(layer, through=step < self._until)

    def after_step(self, step: int) -> None:
        """Choose masks after ``step`` steps, if it is time, the last time at the freeze step."""
        if step > self._until or not self._until:
            return
        freeze = step == self._until
        if freeze or step % self._spec.recompute_every == 0:
            decay = self._spec.mask_decay
            self.moved += recompute_masks(self._model, decay=decay, freeze=freeze)

    def row(self) -> dict[str, float]:
        """Return what a row of the history says of masks: how many places moved since the last."""
        if not self._until:
            return {}
        moved, self.moved = self.moved, 0.0
        return {"masks_moved": moved}

    def close(self) -> None:
        """Leave the masks as any are, also where training broke off."""
        for layer in masked_layers(self._model).values() if self._until else ():
            pass_gradients(layer, through=False)
