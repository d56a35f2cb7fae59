"""A float model, quantized again and again on the same batches: as a whole, or layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from trt_qat.errors import DataError, ModelError
from trt_qat.qat.channels import own_weight
from trt_qat.qat.choices import FLOAT
from trt_qat.qat.inputs import input_batches
from trt_qat.qat.masked import masked_layers, sparse_layers
from trt_qat.qat.placement.layers import matches
from trt_qat.qat.quantize import quantize, ranges_of
from trt_qat.qat.sparsify import sparsify
from trt_qat.recipe.accuracy import RangeRule
from trt_qat.recipe.given import spec_of
from trt_qat.recipe.specs import CalibrationSpec, PtqSpec, QuantizeSpec, SparsitySpec


class Trials:
    """Copies of a float model in any choice of formats, ranges and masks.

    Args:
        model: float, dense or with 2:4 masks; never changed.
        calibration_batches: as `quantize` takes them.
        spec: where Q/DQ go.
        calibration: how ranges are measured.
        ptq: what is done to weights, in every trial.
        sparsity: masks that a trial may have, beside those of the model; None: no others.
        formats: that a layer may have, the first as it is; None: the spec's, or float.

    Attributes:
        count: trials so far.
        spec: where Q/DQ go.
        calibration: how ranges are measured.
        sparsity: which masks a trial may have.
        formats: that a layer may have.
        masks: paths of the layers that may hold masks, or hold them already.
    """

    def __init__(
        self,
        model: nn.Module,
        calibration_batches: Any,
        *,
        spec: QuantizeSpec | Mapping[str, Any] | None = None,
        calibration: CalibrationSpec | Mapping[str, Any] | None = None,
        ptq: PtqSpec | Mapping[str, Any] | None = None,
        sparsity: SparsitySpec | Mapping[str, Any] | None = None,
        formats: Iterable[str] | None = None,
    ) -> None:
        again = isinstance(calibration_batches, Iterator)
        self._batches = list(calibration_batches) if again else calibration_batches
        self._model = model
        self.spec = spec_of(QuantizeSpec, spec, "sensitivity")
        self.calibration = spec_of(CalibrationSpec, calibration, "sensitivity")
        self._ptq = spec_of(PtqSpec, ptq, "sensitivity")
        self.formats = (self.spec.format, FLOAT) if formats is None else tuple(formats)
        self.example = next(input_batches(model, self._batches), None)
        if self.example is None:
            message = "calibration: no batch was given; give at least one"
            raise DataError(message)
        self.count = 0
        off = {"enabled": False} if sparsity is None else sparsity
        self.sparsity = spec_of(SparsitySpec, off, "sensitivity")
        self._pruned, self._dense = self._with_masks(self.sparsity)
        self.masks = frozenset(sparse_layers(model if self._pruned is None else self._pruned))

    def _with_masks(
        self, sparsity: SparsitySpec
    ) -> tuple[nn.Module | None, dict[str, torch.Tensor]]:
        """Return the model with all masks, and its dense weights in the order of its channels."""
        if not sparsity.enabled or masked_layers(self._model):
            return None, {}
        pruned = sparsify(
            self._copied(self._model), self.example, sparsity, calibration_batches=self._batches
        )
        plain = pruned
        if sparsity.method == "sparsegpt":  # which changes what stays as well
            magnitude = sparsity.model_copy(update={"method": "magnitude"})
            plain = sparsify(self._copied(self._model), self.example, magnitude)
        dense = {n: own_weight(m).detach().clone() for n, m in masked_layers(plain).items()}
        return pruned, dense

    @property
    def chooses_masks(self) -> bool:
        """Whether a trial may have other masks than the model."""
        return self._pruned is not None

    def float_model(self, sparse: Iterable[str] = ()) -> nn.Module:
        """Return a float copy in which these of the layers that may hold masks hold them."""
        if self._pruned is None:
            return self._copied(self._model)
        model, kept = self._copied(self._pruned), set(sparse)
        for name, layer in masked_layers(model).items():
            if name not in kept:
                layer.set_mask(None)  # type: ignore[operator]
                own_weight(layer).data.copy_(self._dense[name])
        return model

    def quantized(
        self,
        spec: QuantizeSpec,
        *,
        sparse: Iterable[str] = (),
        algorithm: str | None = None,
        rules: Mapping[str, str] | None = None,
    ) -> nn.Module:
        """Return a quantized copy.

        Args:
            spec: where Q/DQ go.
            sparse: paths of the layers that hold masks.
            algorithm: of all ranges, in place of the recipe's and its rules.
            rules: algorithms by names of tensors, beside the recipe's; those that this placement
                has no tensor for are left out, and so are rules of the recipe.

        Raises:
            ModelError: nothing is left to quantize.
        """
        self.count += 1
        calibration = self.calibration
        if algorithm is not None:
            changed: dict[str, Any] = {"algorithm": algorithm, "layers": {}}
        else:
            changed = {"layers": self.rules(spec, sparse, rules or {})}
        calibration = calibration.model_copy(update=changed)
        return quantize(
            self.float_model(sparse),
            self._batches,
            spec=spec,
            calibration=calibration,
            ptq=self._ptq,
        )

    def rules(
        self, spec: QuantizeSpec, sparse: Iterable[str], chosen: Mapping[str, str]
    ) -> dict[str, RangeRule]:
        """Return the recipe's rules and those chosen for tensors, where a placement has them."""
        wanted = {
            name: RangeRule.model_validate({"algorithm": algorithm})
            for name, algorithm in chosen.items()
        }
        found = {**self.calibration.layers, **wanted}
        there = self._tensors(spec, sparse) if found else []
        return {k: rule for k, rule in found.items() if any(matches(n, (k,)) for n in there)}

    def _tensors(self, spec: QuantizeSpec, sparse: Iterable[str]) -> list[str]:
        """Return the names of the tensors that have ranges in a placement."""
        once = {"algorithm": "max"}
        model = quantize(self.float_model(sparse), [self.example], spec=spec, calibration=once)
        return list(ranges_of(model).amax)

    @staticmethod
    def _copied(model: nn.Module) -> nn.Module:
        try:
            return copy.deepcopy(model)
        except Exception as error:
            message = f"{type(model).__name__} cannot be copied: {error}"
            raise ModelError(message) from error
