"""What is kept of the outputs of two runners while batches go by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.errors import DataError
from trt_qat.measure.agreement import Agreement
from trt_qat.measure.channels import Quiet
from trt_qat.measure.difference import Difference
from trt_qat.measure.outputs import Axes, Kind, kind_of
from trt_qat.measure.variation import Variation
from trt_qat.runners.protocol import Outputs
from trt_qat.wording import counted

Array = NDArray[Any]


@dataclass(frozen=True)
class TensorDifference:
    """How far one output of the candidate is from the reference's, over all samples.

    ``sqnr_db`` is None where the two are equal, ``argmax_agreement`` where there are no classes,
    ``top5_agreement`` where there are five or fewer. ``relative`` is the norm of the difference
    over that of the reference; None: the reference is zero.

    Attributes:
        kind: classes: scores along ``axis``; labels: class numbers; values: anything else.
        axis: of the classes; None: there are none.
        decisions: answers that were compared: one a sample, or one a pixel or anchor.
        differ: of them other ones, ties apart.
        ties: other ones that the reference itself hardly prefers.
        lost_classes: those that the candidate gives up.
        quiet_sqnr_db: of channels that others drown, such as scores beside boxes; None: no such
            channels, or they are equal.
        quiet_slack_db: how much less is asked of them.
        varying_db: of what varies in it over the difference; None: nothing does, or equal.
        dense: more than two dimensions: an answer for every pixel or anchor.
        passed: within what was asked.
        asked: what was asked and what was found, in words.
    """

    name: str
    max_abs: float
    mean_abs: float
    cosine: float
    sqnr_db: float | None
    argmax_agreement: float | None
    top5_agreement: float | None = None
    relative: float | None = None
    kind: Kind = "values"
    axis: int | None = None
    decisions: int = 0
    differ: int = 0
    ties: int = 0
    lost_classes: tuple[int, ...] = ()
    quiet_sqnr_db: float | None = None
    quiet_slack_db: float = 0.0
    varying_db: float | None = None
    dense: bool = False
    passed: bool = True
    asked: str = ""


@dataclass
class OutputTally:
    """What is kept of one output."""

    name: str
    kind: Kind
    axis: int | None
    dense: bool
    difference: Difference = field(default_factory=Difference)
    quiet: Quiet = field(default_factory=Quiet)
    variation: Variation = field(default_factory=Variation)
    agreement: Agreement | None = None

    def update(self, left: Array, right: Array) -> None:
        """Add a batch of the two, of equal shapes."""
        self.difference.update(left, right, self.name)
        if self.kind == "classes":
            self.agreement = self.agreement or Agreement(self.axis or 1)
            self.agreement.update(left, right)
        elif self.kind == "labels":
            self.agreement = self.agreement or Agreement(1)
            self.agreement.update_labels(left, right)
        else:
            self.quiet.update(left, right)
            self.variation.update(left, right)


@dataclass
class Tally:
    """What is kept of the batches that were compared."""

    axes: Axes = field(default_factory=Axes)
    found: dict[str, OutputTally] = field(default_factory=dict)
    samples: int = 0
    labelled: int = 0
    correct: dict[str, int] = field(default_factory=lambda: {"ref": 0, "cand": 0})
    lost: int = 0
    gained: int = 0

    def update(self, ref: Outputs, cand: Outputs, labels: NDArray[np.int64] | None) -> None:
        """Add what both return for a batch.

        Raises:
            DataError: the outputs do not correspond, or the labels are not theirs.
            InputError: the class axis that was given is none of an output's.
        """
        pairs = list(_pairs(ref, cand))
        name, left, right = pairs[0]
        wanted = None
        if labels is not None:
            wanted = labels[self.samples : self.samples + len(left)]
            if len(wanted) != len(left):
                message = (
                    f"compare: {counted(len(labels), 'label')} for more samples; give one each"
                )
                raise DataError(message)
        if not self.found:
            self._open(pairs, wanted)
        for key, one, other in pairs:
            self.found[key].update(one, other)
        if wanted is not None:
            self._score(self.found[name], left, right, wanted)
        self.samples += len(left)

    def _open(self, pairs: Iterable[tuple[str, Array, Array]], labels: Array | None) -> None:
        for position, (name, left, _) in enumerate(pairs):
            kind, axis = kind_of(name, left, self.axes)
            if position == 0 and labels is not None and kind != "labels":
                kind, axis = "classes", _axis_of_labels(labels, left, axis)
            self.found[name] = OutputTally(name, kind, axis, dense=left.ndim > 2)

    def _score(self, found: OutputTally, left: Array, right: Array, wanted: Array) -> None:
        if found.axis is None:  # class numbers, which are compared as they are
            answers = {"ref": left, "cand": right}
            counts = np.ones(wanted.shape, bool)
        else:
            counts = _counted(wanted, left.shape[found.axis], dense=found.dense)
            answers = {"ref": left.argmax(found.axis), "cand": right.argmax(found.axis)}
        right_by = {side: (answer == wanted) & counts for side, answer in answers.items()}
        for side, hits in right_by.items():
            self.correct[side] += int(hits.sum())
        self.lost += int((right_by["ref"] & ~right_by["cand"]).sum())
        self.gained += int((right_by["cand"] & ~right_by["ref"]).sum())
        self.labelled += int(counts.sum())

    def outputs(self) -> tuple[TensorDifference, ...]:
        """Return the difference of each output."""
        return tuple(_difference(found) for found in self.found.values())

    def accuracy(self) -> dict[str, float]:
        """Return the accuracy of both sides; empty without labels."""
        if not self.labelled:
            return {}
        return {side: hits / self.labelled for side, hits in self.correct.items()}

    def changed(self) -> dict[str, int]:
        """Return how many labelled answers only one side has right; empty without labels."""
        return {"lost": self.lost, "gained": self.gained} if self.labelled else {}


def _axis_of_labels(labels: Array, logits: Array, known: int | None) -> int:
    """Return the axis that the labels have not: there the classes are."""
    places = [known] if known is not None else [1, logits.ndim - 1]
    for axis in places:
        if axis < logits.ndim and labels.shape == logits.shape[:axis] + logits.shape[axis + 1 :]:
            return axis
    if logits.ndim == 2:
        return 1  # told below, with the labels' range
    message = (
        f"compare: labels need logits (N, classes), or (N, classes, H, W) for labels (N, H, W); "
        f"the first output is {logits.shape}, the labels are {labels.shape}"
    )
    raise DataError(message)


def _counted(labels: Array, classes: int, *, dense: bool) -> NDArray[np.bool_]:
    """Return which labels count; of a map of them those outside are pixels to be ignored."""
    inside = (labels >= 0) & (labels < classes)
    if dense:
        return inside
    if labels.ndim != 1 or not inside.all():
        message = (
            f"compare: labels {labels.shape} from {labels.min()} to {labels.max()}, and the first "
            f"output has {classes} classes; allowed: (samples,), 0 to {classes - 1}"
        )
        raise DataError(message)
    return inside


def _difference(found: OutputTally) -> TensorDifference:
    apart, alike = found.difference, found.agreement
    return TensorDifference(
        name=found.name,
        max_abs=apart.max_abs,
        mean_abs=apart.mean_abs,
        cosine=apart.cosine,
        sqnr_db=apart.sqnr_db,
        argmax_agreement=None if alike is None else alike.part,
        top5_agreement=None if alike is None else alike.top5,
        relative=apart.relative,
        kind=found.kind,
        axis=found.axis,
        decisions=0 if alike is None else alike.rows,
        differ=0 if alike is None else alike.differ,
        ties=0 if alike is None else alike.ties,
        lost_classes=() if alike is None else tuple(alike.lost()),
        quiet_sqnr_db=found.quiet.sqnr_db,
        quiet_slack_db=found.quiet.slack_db,
        varying_db=found.variation.sqnr_db,
        dense=found.dense,
    )


def _pairs(ref: Outputs, cand: Outputs) -> Iterable[tuple[str, Array, Array]]:
    """Pair outputs by name; by position where the names differ, as torch's have none."""
    if len(ref) != len(cand):
        message = f"compare: the reference returns {list(ref)}, the candidate {list(cand)}"
        raise DataError(message)
    by_name = set(ref) == set(cand)
    for position, (name, right) in enumerate(cand.items()):
        left = ref[name] if by_name else list(ref.values())[position]
        if left.shape != right.shape:
            message = (
                f"compare: output {name!r} is {left.shape} in the reference, {right.shape} here"
            )
            raise DataError(message)
        yield name, left, right
