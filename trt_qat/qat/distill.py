"""Learning from the float model: outputs, logits and inner tensors, without labels.

Of logits the Kullback-Leibler divergence of softened classes (Hinton et al., 1503.02531), of other
outputs their direction and length, of inner tensors the squared error over the teacher's power.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trt_qat.errors import ModelError, RecipeError
from trt_qat.qat.batches import logits_of
from trt_qat.qat.evaluate import taught
from trt_qat.qat.losses import distance
from trt_qat.qat.placement.kinds import WEIGHTED_MODULES
from trt_qat.qat.placement.layers import check_patterns, matches
from trt_qat.qat.reports import report_of
from trt_qat.recipe.given import spec_of
from trt_qat.recipe.specs import DistillSpec

if TYPE_CHECKING:
    from typing_extensions import Self

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


class Distillation:
    """The distance of a student to its teacher, as a loss for any training loop.

    ::

        with tq.Distillation(student, teacher, {"match": "logits", "feature_weight": 1.0}) as loss:
            for inputs in batches:
                loss(inputs, student(inputs)).backward()

    Args:
        student: quantized, pruned or both. In evaluation mode what is deployed is taught; dropout
            and stochastic depth keep it from what the teacher says.
        teacher: the float model, with the same modules by the same names; evaluated, never changed.
        spec: what is matched.

    Raises:
        RecipeError: a pattern of ``features`` matches no module, or all that it matches write
            other channels than the teacher's: those of a few are left out.
        ModelError: on the first call: no inner tensor is made by both.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        spec: DistillSpec | Mapping[str, Any] | None = None,
    ) -> None:
        if spec is None:
            spec = DistillSpec(match="logits")
        self.spec = spec_of(DistillSpec, spec, "distill")
        self.teacher = teacher
        self._ours: dict[str, Tensor] = {}
        self._theirs: dict[str, Tensor] = {}
        self._handles: list[Any] = []
        if self.spec.feature_weight:
            points = _points(teacher, self.spec, report_of(student).moved)
            for model, kept in ((student, self._ours), (teacher, self._theirs)):
                modules = dict(model.named_modules())
                self._handles += [
                    modules[name].register_forward_hook(_keeping(kept, name))
                    for name in points
                    if name in modules
                ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the hooks off both models."""
        for handle in self._handles:
            handle.remove()
        self._ours.clear()
        self._theirs.clear()

    def __call__(self, inputs: Any, outputs: Any) -> Tensor:
        """Return the loss of what the student has just answered, a scalar.

        Args:
            inputs: a tensor, a tuple, or a dict of keyword arguments.
            outputs: of the student on them.
        """
        wanted = taught(self.teacher, inputs)
        loss = _of_outputs(outputs, wanted, self.spec)
        if self.spec.feature_weight:
            loss = loss + self.spec.feature_weight * self._of_features()
        return loss

    def _of_features(self) -> Tensor:
        shared = [name for name, value in self._theirs.items() if _alike(self._ours, name, value)]
        if not shared:
            message = (
                "distill.feature_weight: no module's output is made by both models; the teacher "
                "must be the float model that the student was made from"
            )
            raise ModelError(message)
        tiny = torch.finfo(torch.float32).tiny
        each = []
        for name in shared:
            ours, theirs = self._ours[name].float(), self._theirs[name].float()
            each.append(F.mse_loss(ours, theirs) / theirs.square().mean().clamp_min(tiny))
        self._ours.clear()
        self._theirs.clear()
        return torch.stack(each).mean()


def _points(teacher: nn.Module, spec: DistillSpec, moved: tuple[str, ...]) -> list[str]:
    """Return the modules whose outputs are compared, without those of other channels by now.

    Raises:
        RecipeError: a pattern matches nothing, or nothing is left.
    """
    asked = _asked(teacher, spec)
    left = [[name for name in names if name not in moved] for names in asked]
    if any(asked) and not any(left):
        names = ", ".join(next(filter(None, asked))[:3])
        message = (
            f"distill.feature_weight: what {names} write has other channels than the teacher's "
            "since sparsity.permute, ptq.equalize, ptq.smooth or ptq.split; name other modules in "
            "distill.features, or set distill.feature_weight = 0"
        )
        raise RecipeError(message)
    return next(filter(None, left), [])


def _asked(teacher: nn.Module, spec: DistillSpec) -> list[list[str]]:
    """Return the modules that are asked for: by name, or norms, and layers where there are none."""
    modules = dict(teacher.named_modules())
    names = list(filter(None, modules))
    if spec.features != ("*",):
        check_patterns(spec.features, names, "distill.features")
        return [[name for name in names if matches(name, spec.features)]]
    return [
        [name for name in names if isinstance(modules[name], kind)]
        for kind in (_NORMS, WEIGHTED_MODULES)
    ]


def _keeping(kept: dict[str, Tensor], name: str) -> Any:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            kept[name] = output

    return hook


def _alike(kept: Mapping[str, Tensor], name: str, value: Tensor) -> bool:
    return name in kept and kept[name].shape == value.shape


def _of_outputs(outputs: Any, wanted: Any, spec: DistillSpec) -> Tensor:
    ours, theirs = logits_of(outputs), logits_of(wanted)
    if spec.match == "none":
        return 0.0 * ours.sum()
    if spec.match == "outputs":
        return distance(ours, theirs)
    warm = spec.temperature
    found = F.kl_div(
        F.log_softmax(ours.float() / warm, 1),
        F.log_softmax(theirs.float() / warm, 1),
        reduction="none",
        log_target=True,
    )
    return found.sum(1).mean() * warm**2
