"""What is kept of the outputs of two runners while batches go by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.errors import DataError
from trt_qat.measure import metrics
from trt_qat.measure.difference import Difference
from trt_qat.runners.protocol import Outputs
from trt_qat.wording import counted


@dataclass(frozen=True)
class TensorDifference:
    """How far one output of the candidate is from the reference's, over all samples.

    ``sqnr_db`` is None where the two are equal, ``argmax_agreement`` where there are no classes,
    ``top5_agreement`` where there are five or fewer. ``relative`` is the norm of the difference
    over that of the reference; None: the reference is zero.
    """

    name: str
    max_abs: float
    mean_abs: float
    cosine: float
    sqnr_db: float | None
    argmax_agreement: float | None
    top5_agreement: float | None = None
    relative: float | None = None


@dataclass
class Tally:
    """What is kept of the batches that were compared."""

    differences: dict[str, Difference] = field(default_factory=dict)
    samples: int = 0
    labelled: int = 0
    correct: dict[str, int] = field(default_factory=lambda: {"ref": 0, "cand": 0})

    def update(self, ref: Outputs, cand: Outputs, labels: NDArray[np.int64] | None) -> None:
        """Add what both return for a batch.

        Raises:
            DataError: the outputs do not correspond, or the labels are not theirs.
        """
        pairs = list(_pairs(ref, cand))
        for name, left, right in pairs:
            self.differences.setdefault(name, Difference()).update(left, right, name)
        _, left, right = pairs[0]
        if labels is not None:
            wanted = labels[self.samples : self.samples + len(left)]
            if len(wanted) != len(left):
                message = (
                    f"compare: {counted(len(labels), 'label')} for more samples; give one each"
                )
                raise DataError(message)
            _check_labels(wanted, left)
            self.correct["ref"] += metrics.correct(left, wanted)
            self.correct["cand"] += metrics.correct(right, wanted)
            self.labelled += len(wanted)
        self.samples += len(left)

    def outputs(self) -> tuple[TensorDifference, ...]:
        """Return the difference of each output."""
        return tuple(_difference(name, found) for name, found in self.differences.items())

    def accuracy(self) -> dict[str, float]:
        """Return the accuracy of both sides; empty without labels."""
        if not self.labelled:
            return {}
        return {side: hits / self.labelled for side, hits in self.correct.items()}


def _check_labels(labels: NDArray[np.int64], logits: NDArray[Any]) -> None:
    classes = logits.shape[-1] if logits.ndim == 2 else 0
    if not classes:
        message = f"compare: labels need logits (N, classes); the first output is {logits.shape}"
        raise DataError(message)
    if labels.ndim != 1 or labels.min() < 0 or labels.max() >= classes:
        message = (
            f"compare: labels {labels.shape} from {labels.min()} to {labels.max()}, and the first "
            f"output has {classes} classes; allowed: (samples,), 0 to {classes - 1}"
        )
        raise DataError(message)


def _difference(name: str, found: Difference) -> TensorDifference:
    return TensorDifference(
        name=name,
        max_abs=found.max_abs,
        mean_abs=found.mean_abs,
        cosine=found.cosine,
        sqnr_db=found.sqnr_db,
        argmax_agreement=found.argmax_agreement,
        top5_agreement=found.top5_agreement,
        relative=found.relative,
    )


def _pairs(ref: Outputs, cand: Outputs) -> Iterable[tuple[str, NDArray[Any], NDArray[Any]]]:
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
