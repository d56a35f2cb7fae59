"""How many answers may differ on so many samples, which are ties, and what knows nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trt_qat.errors import InputError
from trt_qat.measure.agreement import Agreement, allowed
from trt_qat.measure.chance import chance
from trt_qat.measure.channels import Quiet
from trt_qat.measure.outputs import Axes, kind_of, parse_axes

RANDOM = np.random.default_rng(0)


def tail(number: int, rows: int, least: float) -> float:
    """Probability that so many or more of the rows differ, term by term."""
    return sum(
        math.comb(rows, k) * (1 - least) ** k * least ** (rows - k) for k in range(number, rows + 1)
    )


@pytest.mark.parametrize("rows", [1, 16, 51, 52, 100, 450, 1000])
@pytest.mark.parametrize("least", [0.9, 0.99, 0.999])
def test_as_many_may_differ_as_chance_leaves(rows: int, least: float) -> None:
    found = allowed(rows, least)
    assert found <= rows * (1 - least) + 0.05 * rows + 1e-6
    assert tail(found + 1, rows, least) < 0.05 or found + 1 > rows * (1.05 - least) - 1e-6
    assert found == 0 or tail(found, rows, least) >= 0.05


@pytest.mark.parametrize("rows", [10**6, 10**9])
def test_of_many_samples_hardly_more_may_differ_than_the_part_says(rows: int) -> None:
    assert 0.001 * rows <= allowed(rows, 0.999) <= 0.00106 * rows


def test_one_sample_may_not_differ() -> None:
    assert allowed(1, 0.9) == 0
    assert allowed(7, 1.0) == 0


def test_a_tie_is_one_that_the_reference_hardly_prefers() -> None:
    ref = RANDOM.standard_normal((100, 10))
    cand = ref.copy()
    order = np.argsort(ref[:2], axis=1)
    for row, margin in ((0, 1e-4), (1, 0.5)):
        first, second = order[row, -1], order[row, -2]
        ref[row, second] = ref[row, first] - margin
        cand[row] = ref[row]
        cand[row, second] = ref[row, first] + 1e-6
    found = Agreement(1)
    found.update(ref, cand)
    assert (found.rows - found.equal, found.ties, found.differ) == (2, 1, 1)


def test_of_two_classes_a_tie_is_small_against_other_samples() -> None:
    margins = np.array([3.0, -2.0, 1e-4, 2.5])
    ref = np.stack([margins, np.zeros(4)], axis=1)
    cand = np.stack([margins - 2e-4, np.zeros(4)], axis=1)
    found = Agreement(1)
    found.update(ref, cand)
    assert (found.ties, found.differ) == (1, 0)


@pytest.mark.parametrize(
    ("name", "shape", "axes", "kind", "axis"),
    [
        ("logits", (8, 10), Axes(), "classes", 1),
        ("score", (8, 1), Axes(), "values", None),
        ("depth", (8, 1, 4, 4), Axes(), "values", None),
        ("out", (8, 5, 4, 4), Axes(), "values", None),
        ("out", (8, 5, 4, 4), Axes("segmentation"), "classes", 1),
        ("out", (8, 1, 4, 4), Axes("segmentation"), "values", None),
        ("out", (8, 10), Axes("regression"), "values", None),
        ("boxes", (8, 4), Axes(), "values", None),
        ("out", (8, 4, 4, 5), Axes(every=3), "classes", 3),
        ("out", (8, 4, 4, 5), Axes(every=-1), "classes", 3),
        ("out", (8, 10), Axes(none=True), "values", None),
        ("out", (8, 10), Axes(by_name={"out": None}), "values", None),
        ("out", (8, 7, 5), Axes(by_name={"out": 2}), "classes", 2),
    ],
)
def test_what_an_output_is(
    name: str, shape: tuple[int, ...], axes: Axes, kind: str, axis: int | None
) -> None:
    assert kind_of(name, RANDOM.standard_normal(shape), axes) == (kind, axis)


def test_unit_rows_are_an_embedding_and_integers_are_labels() -> None:
    rows = RANDOM.standard_normal((8, 16))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert kind_of("out", rows, Axes()) == ("values", None)
    assert kind_of("out", np.zeros((8, 4, 4), np.int64), Axes()) == ("labels", None)


def test_axes_are_read_by_output() -> None:
    found = parse_axes(["1", "boxes=none", "mask=-1"], "detection")
    assert (found.every, found.by_name, found.none) == (1, {"boxes": None, "mask": -1}, False)
    assert parse_axes(["none"]).none


@pytest.mark.parametrize(("text", "shape"), [("0", (8, 10)), ("2", (8, 10)), ("1", (8, 1))])
def test_an_axis_that_is_none_of_classes_is_refused(text: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"output 'o' is .*; the axis of its classes is one from"):
        kind_of("o", np.zeros(shape), parse_axes([text]))


def test_an_axis_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match=r"--axis 'channels': allowed are a number, none"):
        parse_axes(["channels"])


def test_small_channels_are_measured_apart_from_loud_ones() -> None:
    boxes = RANDOM.uniform(0, 640, (2, 4, 50))
    scores = RANDOM.uniform(0, 1, (2, 3, 50))
    ref = np.concatenate([boxes, scores], axis=1)
    found = Quiet()
    found.update(ref, np.concatenate([boxes, scores[..., ::-1]], axis=1))
    assert found.sqnr_db is not None
    assert found.sqnr_db < 6
    same = Quiet()
    same.update(ref, np.concatenate([boxes + 1, scores], axis=1))
    assert same.sqnr_db is None


def test_a_detector_that_sees_nothing_on_both_sides_has_no_scores_to_compare() -> None:
    boxes, faint = RANDOM.uniform(0, 640, (1, 4, 50)), RANDOM.uniform(0, 1e-3, (2, 3, 50))
    found = Quiet()
    found.update(*(np.concatenate([boxes, part[None]], axis=1) for part in faint))
    assert found.sqnr_db is None


def test_answers_that_know_nothing_are_at_chance() -> None:
    labels = RANDOM.integers(0, 10, 450)
    for answers in (RANDOM.integers(0, 10, 450), np.zeros(450, int), (labels + 1) % 10):
        assert chance(answers, labels).above is False
    assert chance(labels, labels).kappa == 1.0


def test_a_rare_event_is_found_though_accuracy_is_below_always_no() -> None:
    labels = (np.arange(1000) % 100 == 0).astype(int)
    answers = labels.copy()
    answers[np.flatnonzero(labels == 0)[:20]] = 1
    found = chance(answers, labels)
    assert np.mean(answers == labels) < np.mean(labels == 0)
    assert found.above


def test_labels_of_one_class_cannot_tell() -> None:
    assert chance(np.ones(5, int), np.ones(5, int)).above is None
