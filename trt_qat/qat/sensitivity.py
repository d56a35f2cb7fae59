"""Which layers cost accuracy in INT8, and which to keep float for a given budget.

Each layer is judged as it would be deployed: placement is made again with that layer alone
included, and with it alone excluded, because leaving a layer out also moves the pairs around it.
The idea of ranking layers one at a time is that of "Integer Quantization for Deep Learning
Inference" (2004.09602), section 5.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from trt_qat.errors import ModelError, RecipeError
from trt_qat.qat.judge import EQUAL_DB, By, Judge, must_be_a_part
from trt_qat.qat.reports import report_of
from trt_qat.qat.trials import Trials
from trt_qat.recipe.specs import CalibrationSpec, PtqSpec, QuantizeSpec
from trt_qat.tasks.score import Measure

Say = Callable[[str], None]


@dataclass(frozen=True)
class LayerSensitivity:
    """What one layer costs.

    Attributes:
        name: the module's path, as a pattern of the recipe.
        alone_db: SQNR of the outputs against the float model with this layer alone in INT8.
        without_db: the same with every layer but this one in INT8.
    """

    name: str
    alone_db: float
    without_db: float


@dataclass(frozen=True)
class Sensitivity:
    """Every layer, the most sensitive first.

    Attributes:
        full_db: SQNR of the outputs with every layer in INT8.
        layers: by ``alone_db``, lowest first.
    """

    full_db: float
    layers: tuple[LayerSensitivity, ...]

    def to_dict(self, suggestion: Suggestion | None = None) -> dict[str, Any]:
        """Return the JSON form, with what was suggested."""
        return asdict(self) | {"suggestion": None if suggestion is None else suggestion.to_dict()}


@dataclass(frozen=True)
class Suggestion:
    """Layers to keep float so that the accuracy stays within a budget.

    Attributes:
        exclude: for ``quantize.exclude`` of the recipe.
        fp32: accuracy of the float model, 0 to 1.
        int8: accuracy with every layer in INT8.
        accuracy: accuracy with ``exclude`` kept float, on the same samples.
        within: whether that is within the budget.
    """

    exclude: tuple[str, ...]
    fp32: float
    int8: float
    accuracy: float
    within: bool

    def recipe_lines(self) -> str:
        """Return lines to paste into the engine's TOML."""
        names = ", ".join(f'"{name}"' for name in self.exclude)
        return f"[quantize]\nexclude = [{names}]\n"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self) | {"recipe": self.recipe_lines()}


class Study:
    """A float model, quantized again and again on the same calibration batches.

    Args:
        model: float, dense or with 2:4 masks; never changed.
        calibration_batches: as `quantize` takes them.
        split: samples to judge by: batches of ``(inputs, targets)``, or ``.images`` and
            ``.labels``; of inputs alone with ``by = "agreement"``.
        spec: what the recipe excludes already, heads, attention.
        calibration: the algorithm.
        measure: what the samples are scored by; None: their class.
        teacher: its outputs are the targets; None: the samples have them.
        ptq: what is done to weights each time.
        by: what a budget is of, as `Judge` takes it.

    Raises:
        ModelError: the model cannot be copied.
    """

    def __init__(
        self,
        model: nn.Module,
        calibration_batches: Any,
        split: Any,
        *,
        spec: QuantizeSpec | Mapping[str, Any] | None = None,
        calibration: CalibrationSpec | Mapping[str, Any] | None = None,
        measure: Measure | None = None,
        teacher: nn.Module | None = None,
        ptq: PtqSpec | Mapping[str, Any] | None = None,
        by: By = "score",
    ) -> None:
        self.trials = Trials(
            model, calibration_batches, spec=spec, calibration=calibration, ptq=ptq
        )
        self.spec = self.trials.spec
        self.judge = Judge(model, split, by=by, measure=measure, teacher=teacher)
        self.layers = tuple(note.name for note in report_of(self._quantized(self.spec)).quantized)

    def sensitivity(self, say: Say = lambda line: None) -> Sensitivity:
        """Measure every layer alone, and every layer left out."""
        rows = []
        for number, name in enumerate(self.layers, 1):
            say(f"{number} of {len(self.layers)}: {name}")
            alone = self.spec.model_copy(update={"include": (name,)})
            rows.append(LayerSensitivity(name, self._db(alone), self._db(self._without((name,)))))
        rows.sort(key=lambda row: (row.alone_db, row.name))
        return Sensitivity(self._db(self.spec), tuple(rows))

    def suggest(
        self, ranked: Sensitivity, budget: float, say: Say = lambda line: None
    ) -> Suggestion:
        """Leave out layers, the most sensitive first, until the accuracy is within the budget.

        A layer that was left out on the way and is not needed for it is taken back at the end.

        Args:
            ranked: of `sensitivity`.
            budget: accuracy that may be lost against the float model, 0 to 1.
            say: called with one line at a time.

        Raises:
            InputError: the budget is no number from 0 to 1, or the targets are not classes.
        """
        must_be_a_part(budget)
        fp32 = self.judge.float_quality
        kept: tuple[str, ...] = ()
        full = found = self._accuracy(kept)
        for layer in ranked.layers:
            if fp32 - found <= budget:
                break
            kept = (*kept, layer.name)
            found = self._accuracy(kept)
            say(f"without {', '.join(kept)}: {found:.2%}")
        if fp32 - found <= budget:
            kept, found = self._needed(kept, found, fp32 - budget)
        return Suggestion(kept, fp32, full, found, fp32 - found <= budget)

    def _needed(
        self, kept: tuple[str, ...], found: float, least: float
    ) -> tuple[tuple[str, ...], float]:
        for name in kept[:-1]:
            fewer = tuple(other for other in kept if other != name)
            accuracy = self._accuracy(fewer)
            if accuracy >= least:
                kept, found = fewer, accuracy
        return kept, found

    def _without(self, names: tuple[str, ...]) -> QuantizeSpec:
        return self.spec.model_copy(update={"exclude": (*self.spec.exclude, *names)})

    def _accuracy(self, kept: tuple[str, ...]) -> float:
        if set(kept) == set(self.layers):
            return self.judge.float_quality
        return self.judge.quality(self._quantized(self._without(kept)))

    def _db(self, spec: QuantizeSpec) -> float:
        try:
            model = self._quantized(spec)
        except (ModelError, RecipeError):  # nothing is left to quantize, or it is no layer
            return EQUAL_DB
        return self.judge.db(model)

    def _quantized(self, spec: QuantizeSpec) -> nn.Module:
        return self.trials.quantized(spec)


def sensitivity(
    model: nn.Module,
    calibration_batches: Any,
    samples: Any,
    *,
    budget: float | None = None,
    spec: QuantizeSpec | Mapping[str, Any] | None = None,
    calibration: CalibrationSpec | Mapping[str, Any] | None = None,
    measure: Measure | None = None,
    teacher: nn.Module | None = None,
    ptq: PtqSpec | Mapping[str, Any] | None = None,
    by: By = "score",
) -> tuple[Sensitivity, Suggestion | None]:
    """Rank layers by what INT8 costs them, and with a budget say which to keep float.

    Args:
        model: float, dense or with 2:4 masks; never changed.
        calibration_batches: as `quantize` takes them.
        samples: to judge by: batches of ``(inputs, targets)`` that can be read again.
        budget: score that may be lost, 0 to 1; None: nothing is suggested.
        spec: what is excluded already, heads, attention.
        calibration: the algorithm.
        measure: what the samples are scored by; None: their class.
        teacher: its outputs are the targets; None: the samples have them.
        ptq: what is done to weights each time, as `quantize` takes it.
        by: what the budget is of: ``score``, or ``agreement`` with the float model's classes, for
            which samples need no labels.

    Raises:
        TrtQatError: as of `Study`.
    """
    study = Study(
        model,
        calibration_batches,
        samples,
        spec=spec,
        calibration=calibration,
        measure=measure,
        teacher=teacher,
        ptq=ptq,
        by=by,
    )
    ranked = study.sensitivity()
    return ranked, None if budget is None else study.suggest(ranked, budget)
