"""Trials for a budget: each layer alone in each of its options, then choices for all of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

from trt_qat.errors import InputError, ModelError, RecipeError
from trt_qat.qat.budgeted import LayerChoice
from trt_qat.qat.choices import FLOAT, Assignment, Choice, Option, applied, path, rules_of
from trt_qat.qat.floors import Floors, made
from trt_qat.qat.judge import EQUAL_DB, Judge
from trt_qat.qat.quantize import ranges_of
from trt_qat.qat.reports import report_of
from trt_qat.qat.trials import Trials
from trt_qat.recipe.accuracy import Algorithm

Say = Callable[[str], None]

WORTH = 0.02
"""Of the noise that is left: layers that add less together keep the recipe's algorithm."""

HELPS = 0.9
"""Of a layer's noise: an algorithm that leaves more is not worth a line in the recipe."""

TAKEN_BACK = 12
"""Trials, at most, of what the choice that was found may do without."""


class Search:
    """Trials that are counted, and what each layer was found to cost."""

    def __init__(self, trials: Trials, judge: Judge, limit: int | None, say: Say) -> None:
        self.trials, self._judge, self._say = trials, judge, say
        whole = trials.quantized(trials.spec)
        self.whole = judge.quality(whole)
        self._algorithms = tuple(
            a
            for a in get_args(Algorithm)
            if a not in ("moving_average", trials.calibration.algorithm)
        )
        self._base = Choice(trials.formats[0])
        self._noise: dict[tuple[str, Choice], float] = {}
        self._tensors: dict[str, tuple[str, ...]] = {}
        self.layers = tuple(note.name for note in report_of(whole).quantized)
        self._limit = self._checked(limit)

    def _checked(self, limit: int | None) -> int:
        """Return how many trials there may be.

        Raises:
            InputError: fewer than the search cannot do without.
        """
        count, masks = len(self.layers), len(self.trials.masks & set(self.layers))
        masks = masks if self.trials.chooses_masks else 0
        formats = len(self.trials.formats) - 1
        exports = formats * (2 if masks else 1) + 1
        self._reserve = exports + math.ceil(math.log2(count * (len(self.trials.formats) + 2) + 1))
        needed = self.trials.count + (count + masks) * formats + self._reserve
        most = needed + count * len(self._algorithms) + TAKEN_BACK
        if limit is not None and limit < needed:
            message = f"budget: limit {limit}: {count} layers take at least {needed} quantizations"
            raise InputError(message)
        found = most if limit is None else min(limit, most)
        self._say(f"{count} layers: at most {found} quantizations")
        return found

    def measure_alone(self) -> Search:
        """Measure every layer alone in every format; those that no recipe can name drop out."""
        names = self.layers
        for number, name in enumerate(names, 1):
            noise = min(self._alone(name, Choice(each)) for each in self.trials.formats[:-1])
            self._say(f"{number} of {len(names)}: {name}: {_db(noise):.1f} dB")
        self.layers = tuple(
            n
            for n in names
            if any(math.isfinite(self._noise[n, Choice(f)]) for f in self.trials.formats[:-1])
        )
        masks = self.trials.masks if self.trials.chooses_masks else frozenset()
        for name in (each for each in self.layers if each in masks):
            for each in self.trials.formats:
                self._alone(name, Choice(each, sparse=True))
        return self

    def options(self, floors: Floors) -> dict[str, list[Option]]:
        """Return what may be chosen, with other algorithms where it matters."""
        self._try_algorithms(self._base)
        found: dict[str, list[Option]] = {}
        for (name, choice), noise in self._noise.items():
            if math.isfinite(noise):
                found.setdefault(name, []).append(Option(choice, noise, floors.of(name, choice)))
        for name in self.layers:
            found[name].append(Option(Choice(FLOAT), 0.0, floors.of(name, Choice(FLOAT))))
        return found

    def _try_algorithms(self, base: Choice) -> None:
        """Measure layers with the other algorithms, the noisiest first, while it is worth it.

        What a layer is left with counts only where an algorithm helped: one that none of them
        helps will be float, and must not hide what the others add.
        """
        known = [name for name in self.layers if math.isfinite(self._noise[name, base])]
        ranked = sorted(known, key=lambda name: -self._noise[name, base])
        rest, helped = sum(self._noise[name, base] for name in ranked), 0.0
        for name in ranked:
            if rest <= WORTH * helped or self._left() < len(self._algorithms):
                return
            before = self._noise[name, base]
            tried = {a: self._alone(name, replace(base, algorithm=a)) for a in self._algorithms}
            for algorithm, noise in tried.items():
                if noise > HELPS * before:
                    del self._noise[name, replace(base, algorithm=algorithm)]
                    continue
                masked = self._noise.get((name, replace(base, sparse=True)))
                if masked is not None:  # what masks and ranges add is nearly the sum of both
                    added = max(masked + noise - before, 0.0)
                    self._noise[name, replace(base, sparse=True, algorithm=algorithm)] = added
            best = min(tried, key=lambda a: tried[a])
            rest -= before
            helped += tried[best] if tried[best] < before / 2 else 0.0
            self._say(f"{name} by {best}: {_db(tried[best]):.1f} dB")

    def _alone(self, name: str, choice: Choice) -> float:
        """Measure the noise of a layer alone; infinite where no recipe can name it."""
        trials, sparse = self.trials, (name,) if choice.sparse else ()
        if choice.format == FLOAT:
            model = trials.float_model(sparse)
        else:
            spec = applied(trials.spec.model_copy(update={"include": (name,)}), {name: choice})
            try:
                model = trials.quantized(spec, sparse=sparse, algorithm=choice.algorithm or None)
            except (ModelError, RecipeError):  # a product of an attention, or an island (P9)
                self._noise[name, choice] = math.inf
                return math.inf
            if choice.format == self._base.format:
                self._tensors.setdefault(name, tuple(ranges_of(model).amax))
        noise = self._noise[name, choice] = 10 ** (-self._judge.db(model) / 10)
        return noise

    def within(
        self, options: dict[str, list[Option]], floors: Floors, least: float
    ) -> tuple[Assignment, float]:
        """Return the first choice on the way to float within the budget, and its quality."""
        way = path(options)
        low, high, found = 0, len(way) - 1, self._judge.float_quality
        while low < high:
            middle = (low + high) // 2
            quality = self._quality(way[middle])
            self._say(f"step {middle} of {len(way) - 1} towards float: {self._shown(quality)}")
            if quality >= least:
                high, found = middle, quality
            else:
                low = middle + 1
        if high == len(way) - 1:
            found = self._quality(way[high])
        return self._taken_back(way[: high + 1], floors, least, found)

    def _taken_back(
        self, way: list[Assignment], floors: Floors, least: float, found: float
    ) -> tuple[Assignment, float]:
        """Undo steps, the last first, that the budget does not need."""
        chosen, tried = way[-1], 0
        for before, after in reversed(list(itertools.pairwise(way[:-1]))):
            name = next(n for n in after if after[n] != before[n])
            faster = floors.of(name, before[name]) < floors.of(name, after[name])
            if chosen[name] != after[name] or not faster:
                continue
            if tried == TAKEN_BACK or self.trials.count >= self._limit - 1:
                break
            tried += 1
            quality = self._quality({**chosen, name: before[name]})
            if quality >= least:
                chosen, found = {**chosen, name: before[name]}, quality
                self._say(f"{name} back to {before[name].format}: {self._shown(quality)}")
        return chosen, found

    def _quality(self, chosen: Assignment) -> float:
        return self._judge.quality(made(self.trials, chosen, self.rules(chosen)))

    def rules(self, chosen: Assignment) -> dict[str, str]:
        """Return the algorithms by tensor of a choice."""
        noise = {name: self._noise[name, self._base] for name in self.layers}
        return rules_of(chosen, self._tensors, noise)

    def row(self, name: str, choice: Choice, floors: Floors) -> LayerChoice:
        """Return what is reported of a layer."""
        noise = self._noise.get((name, choice), 0.0)
        parts = (choice.format, choice.sparse, choice.algorithm)
        return LayerChoice(name, *parts, round(_db(noise), 3), floors.of(name, choice))

    def _left(self) -> int:
        return self._limit - self.trials.count - self._reserve

    def _shown(self, quality: float) -> str:
        return f"{quality:.1f} dB" if self._judge.by == "sqnr" else f"{quality:.2%}"


def _db(noise: float) -> float:
    return EQUAL_DB if noise <= 10 ** (-EQUAL_DB / 10) else -10 * math.log10(noise)
