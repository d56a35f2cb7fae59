"""Whether an output is near enough: what is asked fits what it is and how many samples there are.

Printed with every output, so that nobody has to guess why something passed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from trt_qat.comparison.tally import TensorDifference
from trt_qat.measure.agreement import allowed
from trt_qat.measure.variation import LEAST_VARIATION_DB

MIN_AGREEMENT = 0.999
"""Of answers, one a sample."""

MIN_DENSE_AGREEMENT = 0.99
"""Of answers for pixels or anchors, those at the borders of regions apart."""

MIN_MAP_AGREEMENT = 0.95
"""Of maps of class numbers, whose borders cannot be told from the rest."""

MIN_SQNR_DB = 20.0
"""For outputs without classes: noise of a tenth of the signal's amplitude."""

EQUAL_DB = 300.0


@dataclass(frozen=True)
class Limits:
    """What is asked of outputs.

    Attributes:
        agreement: least part of equal answers; None: by what the output is.
        sqnr_db: least, of outputs without classes.
    """

    agreement: float | None = None
    sqnr_db: float = MIN_SQNR_DB

    def agreement_of(self, output: TensorDifference) -> float:
        """Return the least agreement of an output."""
        if self.agreement is not None:
            return self.agreement
        if not output.dense:
            return MIN_AGREEMENT
        return MIN_MAP_AGREEMENT if output.kind == "labels" else MIN_DENSE_AGREEMENT


def judged(output: TensorDifference, limits: Limits) -> TensorDifference:
    """Return an output with its verdict, and what was asked of it in words."""
    passed, asked = (_distance if output.kind == "values" else _answers)(output, limits)
    return replace(output, passed=passed, asked=asked)


def _answers(output: TensorDifference, limits: Limits) -> tuple[bool, str]:
    least = limits.agreement_of(output)
    may = allowed(output.decisions, least)
    passed = output.differ <= may and not output.lost_classes
    text = (
        f"{output.differ:,} of {output.decisions:,} answers differ; at most {may:,} may "
        f"({100 * least:.6g} % is asked)"
    )
    if output.ties:
        where = "at borders" if output.dense else "on ties"
        text += f"; {output.ties:,} more {where}, where the reference hardly prefers its answer"
    if output.lost_classes:
        text += f"; given up: class {', '.join(map(str, output.lost_classes[:5]))}"
        text += ", ..." if len(output.lost_classes) > 5 else ""
    return passed, text


def _distance(output: TensorDifference, limits: Limits) -> tuple[bool, str]:
    found = EQUAL_DB if output.sqnr_db is None else output.sqnr_db
    parts = list(_distances(output, limits))
    passed = found >= limits.sqnr_db and all(good for good, _ in parts)
    shown = "equal" if output.sqnr_db is None else f"{output.sqnr_db:.1f} dB"
    if output.relative is not None and output.sqnr_db is not None:
        shown += f" (relative error {output.relative:.2%})"
    text = f"by distance: {shown}; at least {limits.sqnr_db:g} dB"
    return passed, "; ".join([text, *(told for _, told in parts)])


def _distances(output: TensorDifference, limits: Limits) -> Iterator[tuple[bool, str]]:
    if output.quiet_sqnr_db is not None:
        least = limits.sqnr_db - output.quiet_slack_db
        told = f"its small channels {output.quiet_sqnr_db:.1f} dB; at least {least:g} dB"
        yield output.quiet_sqnr_db >= least, told
    if output.varying_db is not None and output.varying_db < LEAST_VARIATION_DB:
        yield False, f"it hardly follows its input: {output.varying_db:.1f} dB of what varies"
