"""What a comparison found, and the verdict on outputs that were computed before."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trt_qat.comparison.bisect import Bisection
from trt_qat.comparison.judged import MIN_SQNR_DB, Limits, judged
from trt_qat.comparison.layerwise import LayerDifference
from trt_qat.comparison.tally import Tally, TensorDifference
from trt_qat.measure.outputs import Axes
from trt_qat.runners.protocol import Outputs

Verdict = Literal["passed", "failed", "undecided"]


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; `to_dict` is its JSON.

    Attributes:
        passed: every output is within what was asked of it.
        verdict: failed where one is not; undecided where that was found on random inputs and one
            of the two is calibrated.
        inputs: what was fed, in words.
        changed: answers that only the reference has right, lost, and only the candidate, gained.
    """

    ref: str
    cand: str
    samples: int
    outputs: tuple[TensorDifference, ...]
    passed: bool
    layers: tuple[LayerDifference, ...] = ()
    first_divergence: LayerDifference | None = None
    accuracy: dict[str, float] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    bisection: Bisection | None = None
    worst_layer: LayerDifference | None = None
    verdict: Verdict = "passed"
    inputs: str = "given"

    def to_dict(self) -> dict[str, Any]:
        """Return the stable JSON form."""
        document = asdict(self)
        document["outputs"] = list(document["outputs"])
        document["layers"] = list(document["layers"])
        if not self.accuracy:
            del document["accuracy"], document["changed"]
        if self.bisection is None:
            del document["bisection"]
        else:
            document["bisection"] = self.bisection.to_dict()
        return document


def verdict_of(passed: bool) -> Verdict:
    """Return the word for it."""
    return "passed" if passed else "failed"


def judged_outputs(tally: Tally, limits: Limits) -> tuple[TensorDifference, ...]:
    """Return every output with its verdict."""
    return tuple(judged(output, limits) for output in tally.outputs())


def compare_outputs(
    ref: tuple[str, Outputs],
    cand: tuple[str, Outputs],
    *,
    labels: NDArray[np.int64] | None = None,
    min_agreement: float | None = None,
    min_sqnr_db: float = MIN_SQNR_DB,
    axes: Axes | None = None,
) -> Comparison:
    """Compare outputs that were computed before; each side is its name and its outputs."""
    tally = Tally(axes or Axes())
    tally.update(ref[1], cand[1], labels)
    outputs = judged_outputs(tally, Limits(min_agreement, min_sqnr_db))
    passed = all(output.passed for output in outputs)
    return Comparison(
        ref=ref[0],
        cand=cand[0],
        samples=tally.samples,
        outputs=outputs,
        passed=passed,
        accuracy=tally.accuracy(),
        changed=tally.changed(),
        verdict=verdict_of(passed),
    )
