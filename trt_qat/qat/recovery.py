"""What training does beside following a loss: averages, distillation, masks, dampening, SAM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from trt_qat.qat.averaging import Average, reestimate_norms
from trt_qat.qat.distill import Distillation
from trt_qat.qat.flatness import sharpness
from trt_qat.qat.layer_weights import weight_quantizers
from trt_qat.qat.moving_masks import MovingMasks
from trt_qat.qat.quantize import is_quantized, quantized
from trt_qat.qat.quantizers.dampen import distance_to_grid
from trt_qat.recipe.specs import DistillSpec, TrainSpec

if TYPE_CHECKING:
    from modelopt.torch.quantization.nn import TensorQuantizer

Batches = Callable[[], Iterator[tuple[Any, Any]]]
LossOf = Callable[[Any, Any], tuple[Tensor, Any]]


class Recovery:
    """The keys of a recipe's training that work around its loop; of a default one it does nothing.

    Attributes:
        average: of the weights over steps.
        masks: of 2:4, which may move.
        sharpness: before and after a run of SAM, and the rho that it was measured with.
    """

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module | None,
        spec: TrainSpec,
        distill: DistillSpec | None,
        total: int,
    ) -> None:
        self._model, self._spec = model, spec
        self.average = Average(model, spec, total)
        self.masks = MovingMasks(model, spec, total)
        self.sharpness: dict[str, float] = {}
        self._distillation = None
        if distill is not None and teacher is not None:
            self._distillation = Distillation(model, teacher, distill)

    def begin(self, step: int, batches: Batches, loss: LossOf) -> None:
        """Begin at a step; measure the sharpness before the first one of a run with SAM."""
        self.masks.begin(step)
        if self._spec.sam_rho and not self.sharpness:
            self.sharpness = {"rho": self._spec.sam_rho, "before": self._sharpness(batches, loss)}

    def learned(self, inputs: Any, outputs: Any) -> Tensor:
        """Return the distance to the teacher."""
        assert self._distillation is not None
        return self._distillation(inputs, outputs)

    def with_pull(self, loss: Tensor) -> Tensor:
        """Return a loss with what dampening adds: how far weights are from their grid."""
        if not self._spec.dampening or not is_quantized(self._model):
            return loss
        each = [
            distance_to_grid(cast("Tensor", layer._parameters["weight"]), quantizer)
            for _, layer, quantizer in weight_quantizers(self._model)
        ]
        placed = quantized(self._model).placed
        for quantizer, source, _ in placed.functional_weights.values():
            if isinstance(source, nn.Parameter):
                each.append(distance_to_grid(source, cast("TensorQuantizer", quantizer)))
        return loss + self._spec.dampening * torch.stack(each).mean() if each else loss

    def after_step(self, step: int) -> None:
        """Take in the weights after ``step`` steps."""
        self.masks.after_step(step)
        self.average.update(step)

    def end(self, best: dict[str, Any] | None, batches: Batches, loss: LossOf) -> None:
        """Put the weights into the model that are kept: the best ones, or the average."""
        if best is not None:
            self._model.load_state_dict(best["model"])
        else:
            self.average.put()
        if self._spec.reestimate_batchnorm:
            inputs = (inputs for inputs, _ in batches())
            reestimate_norms(self._model, inputs, self._spec.reestimate_batchnorm)
        if self._spec.sam_rho:
            self.sharpness["after"] = self._sharpness(batches, loss)

    def close(self) -> None:
        """Take hooks off the models."""
        self.masks.close()
        if self._distillation is not None:
            self._distillation.close()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"average": self.average.state(), "sharpness": self.sharpness} | {
            "masks_moved": self.masks.moved
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.average.restore(state["average"])
        self.sharpness, self.masks.moved = state["sharpness"], state["masks_moved"]

    def _sharpness(self, batches: Batches, loss: LossOf) -> float:
        return sharpness(
            self._model, batches(), lambda batch: loss(*batch)[0], self._spec.sam_rho
        )  # fmt: skip
