"""A metric scores every sample where it can, and what it cannot take is one clear error."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from trt_qat.errors import BackendUnavailable, DataError, InputError, RecipeError
from trt_qat.gate.task_metrics import measure
from trt_qat.measure import metrics

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 10, 500)
LOGITS = RANDOM.normal(size=(500, 10)).astype(np.float32)
LOGITS[np.arange(500), LABELS] += 2

MODULE = """
import numpy as np
def margin(outputs, labels):
    return outputs[np.arange(len(labels)), labels] - outputs.max(axis=1)
def balanced(outputs, labels):
    right = outputs.argmax(1) == labels
    return np.mean([right[labels == c].mean() for c in np.unique(labels)])
def right(outputs, labels):
    return outputs.argmax(1) == labels
def fails(outputs, labels):
    raise KeyError("threshold")
def nan(outputs, labels):
    return float("nan")
def half(outputs, labels):
    return np.ones(len(labels) // 2)
def text(outputs, labels):
    return "good"
def matrix(outputs, labels):
    return outputs
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The import path of a module of the user's in the working folder."""
    name = f"mine_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


# Built in


def test_top1_is_the_accuracy_of_every_other_report() -> None:
    found = measure("top1", LOGITS, LABELS)
    assert found.encoding == "bits"
    assert found.value == metrics.accuracy(LOGITS, LABELS)
    assert found.array.tolist() == (LOGITS.argmax(1) == LABELS).tolist()


def test_top5_takes_the_five_largest() -> None:
    largest = np.argsort(-LOGITS, axis=1)[:, :5]
    expected = [label in row for label, row in zip(LABELS, largest, strict=True)]
    assert measure("top5", LOGITS, LABELS).array.tolist() == expected


def test_of_equal_logits_the_first_class_counts_as_argmax_has_it() -> None:
    ties = np.zeros((3, 10), np.float32)
    labels = np.array([0, 4, 5])
    assert metrics.top_k_correct(ties, labels, 1).tolist() == [True, False, False]
    assert metrics.top_k_correct(ties, labels, 5).tolist() == [True, True, False]


# A function of the user's


def test_a_function_may_score_every_sample(mine: str) -> None:
    found = measure(f"{mine}:margin", LOGITS, LABELS)
    assert found.encoding == "float32"
    assert found.count == 500
    assert found.value == pytest.approx(found.array.mean(dtype=np.float64))


def test_truth_values_are_right_and_wrong(mine: str) -> None:
    assert measure(f"{mine}:right", LOGITS, LABELS) == measure("top1", LOGITS, LABELS)


def test_a_function_of_the_whole_set_is_measured_on_resamples(mine: str) -> None:
    found = measure(f"{mine}:balanced", LOGITS, LABELS, resamples=50)
    assert (found.encoding, found.count) == ("replicates", 50)
    accuracy = metrics.accuracy(LOGITS, LABELS)
    expected = (accuracy * (1 - accuracy) / 500) ** 0.5
    assert found.array.std() == pytest.approx(expected, rel=0.35)


# What cannot be


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("fails", "failed: KeyError: 'threshold'"),
        ("nan", "returned NaN or infinity"),
        ("half", "250 scores for 500 samples"),
        ("text", "returned <U4; allowed: numbers or truth values"),
        ("matrix", r"an array \(500, 10\); allowed: \(N,\) or one number"),
    ],
)
def test_what_a_function_must_not_do(mine: str, function: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        measure(f"{mine}:{function}", LOGITS, LABELS)


def test_a_function_that_is_not_there(mine: str) -> None:
    with pytest.raises(RecipeError, match=r"has no 'rihgt'; nearest: 'right'"):
        measure(f"{mine}:rihgt", LOGITS, LABELS)


def test_a_metric_of_whole_sets_needs_more_than_one_sample(mine: str) -> None:
    with pytest.raises(DataError, match="needs at least 2 samples"):
        measure(f"{mine}:balanced", LOGITS[:1], LABELS[:1])


@pytest.mark.parametrize(
    ("name", "outputs", "labels", "message"),
    [
        ("top2", LOGITS, LABELS, "no such metric; did you mean 'top5'"),
        ("top5", LOGITS[:, :5], LABELS % 5, "top5 of 5 classes is always right"),
        ("top1", LOGITS[:, :9], LABELS, "labels from 0 to 9 for outputs of 9 classes"),
        ("top1", LOGITS, LABELS - 1, "labels from -1 to 8"),
        ("top1", LOGITS[:, 0], LABELS, r"got \(500,\)"),
        ("top1", LOGITS, LABELS / 2, "got .* and float64"),
    ],
)
def test_arrays_that_a_metric_cannot_take(
    name: str, outputs: np.ndarray, labels: np.ndarray, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        measure(name, outputs, labels)


# torchmetrics


@pytest.mark.skipif(
    importlib.util.find_spec("torchmetrics") is not None, reason="torchmetrics is installed"
)
@pytest.mark.parametrize("name", ["miou", "map"])
def test_without_torchmetrics_the_error_says_what_to_install(name: str) -> None:
    with pytest.raises(BackendUnavailable, match=rf"{name} needs torchmetrics .*pip install"):
        measure(name, LOGITS, LABELS)


def test_miou_is_the_mean_over_the_classes() -> None:
    """Seven pixels that count, two of class 0 and a third taken for it: IoU 2/3 and 4/5."""
    pytest.importorskip("torchmetrics")
    labels = np.array([[[0, 0], [1, 1]], [[0, 1], [1, 255]]])
    answered = np.array([[[0, 0], [1, 1]], [[1, 1], [1, 0]]])
    outputs = np.stack([answered == c for c in range(2)], axis=1).astype(np.float32)
    assert measure("miou", outputs, labels, resamples=4).value == pytest.approx((2 / 3 + 4 / 5) / 2)
    with pytest.raises(InputError, match=r"miou takes outputs \(N, classes, H, W\)"):
        measure("miou", LOGITS, LABELS)
    with pytest.raises(InputError, match="label 7 for outputs of 2 classes"):
        measure("miou", outputs, np.where(labels == 1, 7, labels))


def test_map_is_cocos() -> None:
    """Every box found is 1; half of them missed, at full precision, is about a half."""
    pytest.importorskip("torchmetrics")
    pytest.importorskip("pycocotools")
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        pytest.skip(f"torchvision: {error}")
    corners = RANDOM.uniform(0, 100, (8, 2, 2))
    boxes = np.concatenate([corners, corners + 40], axis=2)
    classes = np.zeros((8, 2, 1))
    labels = np.concatenate([boxes, classes], axis=2)
    outputs = np.concatenate([boxes, np.full((8, 2, 1), 0.9), classes], axis=2)
    assert measure("map", outputs, labels, resamples=2).value == pytest.approx(1.0)
    outputs[:, 1, 4] = -1  # left out
    assert measure("map", outputs, labels, resamples=2).value == pytest.approx(0.505, abs=0.01)
    with pytest.raises(InputError, match=r"map takes outputs \(N, D, 6\)"):
        measure("map", LOGITS, LABELS)
