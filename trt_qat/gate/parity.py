"""Whether an exported ONNX is what was trained, and knows anything: the failures of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from trt_qat.comparison.result import Comparison
from trt_qat.gate.significance import mcnemar
from trt_qat.measure.chance import Chance, chance, graded_chance
from trt_qat.recipe.specs import Tolerances
from trt_qat.wording import counted

Failure = dict[str, str]


def parity_failures(parity: Comparison, tolerances: Tolerances) -> Iterator[Failure]:
    """Yield where ONNX and torch are further apart than a recipe tolerates.

    Args:
        parity: of the two on the test set; its verdict is by ``tolerances.argmax_agreement``.
        tolerances: of the recipe.
    """
    for output in parity.outputs:
        if output.passed:
            continue
        if output.kind == "values":
            yield _failure("outputs", f"output {output.name!r} of onnxruntime is not torch's: "
                           f"{output.asked}")  # fmt: skip
            continue
        yield _failure(
            "argmax_agreement",
            f"onnxruntime and torch agree on {output.argmax_agreement or 0.0:.4%} of the test "
            f"images: {output.asked}; tolerances.argmax_agreement = {tolerances.argmax_agreement}",
        )
    gap = abs(parity.accuracy["ref"] - parity.accuracy["cand"])
    # One answer of a small test set is a large part of it, and no gap.
    by_chance = bool(parity.changed) and mcnemar(**parity.changed) >= tolerances.significance
    if gap > tolerances.accuracy_gap and not by_chance:
        yield _failure(
            "accuracy_gap",
            f"the accuracies of onnxruntime and torch differ by {gap:.4%}; "
            f"tolerances.accuracy_gap = {tolerances.accuracy_gap}",
        )


def chance_of(answers: NDArray[Any], labels: NDArray[Any]) -> Chance | None:
    """Return whether answers know anything of the labels; None where they are not classes.

    Args:
        answers: ``(N, classes)`` scores; of any other shape: None.
        labels: ``(N,)`` integers.
    """
    if (
        answers.ndim != 2
        or answers.shape[1] < 2
        or labels.ndim != 1
        or labels.dtype.kind not in "iu"
    ):
        return None
    return chance(answers.argmax(axis=1), labels)


def graded_chance_of(entry: Mapping[str, Any], blind: float | None) -> Chance | None:
    """Return whether a graded score is more than chance; None where that is not known of it.

    Args:
        entry: of ``metrics.json``.
        blind: the score of answers that know nothing.
    """
    if blind is None:
        return None
    low, high = entry["interval95"]
    return graded_chance(entry["accuracy"], (low, high), blind, entry["samples"])


def chance_failures(found: Chance | None, entry: Mapping[str, Any]) -> Iterator[Failure]:
    """Yield that answers know nothing, if they do.

    Args:
        found: of the ONNX's answers.
        entry: of ``metrics.json``, the ONNX's.
    """
    if found is not None and found.above is False:
        yield _failure("chance", at_chance(found.to_dict(), entry))


def at_chance(found: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """Say that answers know nothing."""
    metric = entry.get("metric", "top1")
    if metric != "top1":
        return (
            f"the ONNX is at chance level: {metric} {entry['accuracy']:.2%} on "
            f"{counted(entry['samples'], 'test sample')}, and answers that know nothing get "
            f"{found['expected']:.2%}"
        )
    return (
        f"the ONNX is at chance level: {entry['accuracy']:.2%} of "
        f"{counted(entry['samples'], 'test sample')} are right, and answers of the same "
        f"frequencies that know nothing get {found['expected']:.2%}"
    )


def _failure(check: str, message: str) -> Failure:
    return {"check": check, "message": message}
