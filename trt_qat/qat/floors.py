"""The floors of a network's layers in every format, read off exports of the whole of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import nn

from trt_qat import targets
from trt_qat.errors import ModelError
from trt_qat.qat.choices import FLOAT, Assignment, Choice, applied, sparse_in
from trt_qat.qat.predicted import by_module, predict
from trt_qat.qat.trials import Trials

Say = Callable[[str], None]


class Floors:
    """The roofline of every layer in every format, read off whole exports."""

    def __init__(
        self,
        trials: Trials,
        target: targets.Target,
        batch: int,
        remainder: Literal["fp16", "fp32"],
        layers: tuple[str, ...],
        say: Say,
    ) -> None:
        self._trials, self._layers = trials, layers
        self._how: dict[str, Any] = {"target": target, "batch": batch, "remainder": remainder}
        self._each: dict[tuple[str, str, bool], float] = {}
        self.totals: dict[str, float] = {}
        for name in trials.formats:
            for sparse in (False, True) if trials.chooses_masks else (False,):
                chosen = {n: Choice(name, sparse and n in trials.masks) for n in layers}
                try:
                    total = self.total(chosen, {}, sparse=sparse)
                except ModelError:  # no layer has it, as none of a convolution network has INT4
                    continue
                self.totals[f"{name}_2_4" if sparse else name] = total
                say(f"{name}{' and 2:4' if sparse else ''}: at least {total:.2f} us")

    def total(
        self, chosen: Assignment, rules: Mapping[str, str], *, sparse: bool | None = None
    ) -> float:
        """Return the floor of a choice as it would be exported, in microseconds."""
        model = made(self._trials, chosen, rules)
        report = predict(model, self._trials.example, **self._how)
        assert report.roofline is not None
        if sparse is not None:
            for name, each in by_module(report, self._layers).items():
                known = [row.floor_us for row in each.rows if row.floor_us is not None]
                self._each[name, chosen[name].format, sparse] = sum(known)
        return report.roofline.floor_us

    def of(self, name: str, choice: Choice) -> float:
        """Return the floor of a layer; where it is not known, the highest known of it, or 0.0."""
        most = max((us for key, us in self._each.items() if key[0] == name), default=0.0)
        return self._each.get((name, choice.format, choice.sparse), most)


def made(trials: Trials, chosen: Assignment, rules: Mapping[str, str]) -> nn.Module:
    """Return a copy of the model as it was chosen, float where no layer is quantized."""
    if all(choice.format == FLOAT for choice in chosen.values()):
        return trials.float_model(sparse_in(chosen))
    return trials.quantized(applied(trials.spec, chosen), sparse=sparse_in(chosen), rules=rules)
