"""Comparing what two runners return for the same feeds: the candidate against the reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat import metrics
from trt_qat.errors import DataError
from trt_qat.runners import Feed, Outputs, Runner, runner

MIN_AGREEMENT = 0.999
MIN_SQNR_DB = 20.0
"""For outputs without classes: noise of a tenth of the signal's amplitude."""


@dataclass(frozen=True)
class TensorDifference:
    """How far one output of the candidate is from the reference's, over all samples.

    ``sqnr_db`` is None where the two are equal, ``argmax_agreement`` where there are no classes.
    """

    name: str
    max_abs: float
    mean_abs: float
    cosine: float
    sqnr_db: float | None
    argmax_agreement: float | None


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; `to_dict` is its JSON."""

    ref: str
    cand: str
    samples: int
    outputs: tuple[TensorDifference, ...]
    passed: bool
    layers: tuple[TensorDifference, ...] = ()
    first_divergence: TensorDifference | None = None
    accuracy: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the stable JSON form."""
        document = asdict(self)
        document["outputs"] = list(document["outputs"])
        document["layers"] = list(document["layers"])
        if not self.accuracy:
            del document["accuracy"]
        return document


def compare(
    ref: str | Runner,
    cand: str | Runner,
    feeds: Feed | Iterable[Feed],
    *,
    labels: NDArray[np.int64] | None = None,
    min_agreement: float = MIN_AGREEMENT,
    min_sqnr_db: float = MIN_SQNR_DB,
) -> Comparison:
    """Run both on the same feeds and compare their outputs.

    Args:
        ref: the reference, a SPEC or a runner.
        cand: the candidate, likewise.
        feeds: one batch or several, arrays by input name.
        labels: ``(samples,) int64``; with them the accuracies of the first output are compared.
        min_agreement: of argmax, for a pass, of every output that has classes.
        min_sqnr_db: for a pass, of every output that has none.

    Raises:
        DataError: no feeds, or outputs that do not correspond.
    """
    batches: list[Feed] = [feeds] if isinstance(feeds, Mapping) else list(feeds)
    if not batches:
        message = "compare: no feeds; give at least one batch"
        raise DataError(message)
    left = runner(ref) if isinstance(ref, str) else ref
    right = runner(cand) if isinstance(cand, str) else cand
    with left, right:
        reference = run_all(left, batches)
        candidate = run_all(right, batches)
    return compare_outputs(
        (ref if isinstance(ref, str) else ref.name, reference),
        (cand if isinstance(cand, str) else cand.name, candidate),
        labels=labels,
        min_agreement=min_agreement,
        min_sqnr_db=min_sqnr_db,
    )


def compare_outputs(
    ref: tuple[str, Outputs],
    cand: tuple[str, Outputs],
    *,
    labels: NDArray[np.int64] | None = None,
    min_agreement: float = MIN_AGREEMENT,
    min_sqnr_db: float = MIN_SQNR_DB,
) -> Comparison:
    """Compare outputs that were computed before; each side is its name and its outputs."""
    pairs = list(_pairs(ref[1], cand[1]))
    outputs = tuple(difference(name, a, b) for name, a, b in pairs)
    accuracy = {}
    if labels is not None:
        _, a, b = pairs[0]
        accuracy = {"ref": metrics.accuracy(a, labels), "cand": metrics.accuracy(b, labels)}
    return Comparison(
        ref=ref[0],
        cand=cand[0],
        samples=len(pairs[0][1]),
        outputs=outputs,
        passed=all(_passes(output, min_agreement, min_sqnr_db) for output in outputs),
        accuracy=accuracy,
    )


def difference(name: str, ref: NDArray[Any], cand: NDArray[Any]) -> TensorDifference:
    """Measure one pair of arrays of the same shape."""
    return TensorDifference(
        name=name,
        max_abs=metrics.max_abs(ref, cand),
        mean_abs=metrics.mean_abs(ref, cand),
        cosine=metrics.cosine(ref, cand),
        sqnr_db=metrics.sqnr_db(ref, cand),
        argmax_agreement=metrics.argmax_agreement(ref, cand),
    )


def run_all(runner: Runner, batches: Iterable[Feed]) -> Outputs:
    """Run every batch; outputs are joined along the batch axis.

    Raises:
        DataError: an output holds NaN or infinity.
    """
    parts: dict[str, list[NDArray[Any]]] = {}
    for batch in batches:
        for name, array in runner.infer(batch).items():
            parts.setdefault(name, []).append(np.atleast_1d(array))
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    for name, array in joined.items():
        if not np.isfinite(array).all():
            message = f"{runner.name}: output {name!r} holds NaN or infinity"
            raise DataError(message)
    return joined


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


def _passes(output: TensorDifference, min_agreement: float, min_sqnr_db: float) -> bool:
    if output.argmax_agreement is not None:
        return output.argmax_agreement >= min_agreement
    return output.sqnr_db is None or output.sqnr_db >= min_sqnr_db
