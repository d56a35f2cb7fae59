"""Scores of every kind of task: by hand, and held against torchmetrics and pycocotools."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trt_qat.errors import DataError, ModelError
from trt_qat.tasks.classes import miou, top1
from trt_qat.tasks.detection import mean_average_precision
from trt_qat.tasks.numbers import cosine, r2
from trt_qat.tasks.own import own
from trt_qat.tasks.score import Measure, Meter, Score

Array = NDArray[Any]


def scored(measure: Measure, outputs: Any, targets: Any, size: int = 5) -> Score:
    """Score in batches, as every caller does."""
    meter = Meter(measure)
    for start in range(0, len(targets), size):
        part = slice(start, start + size)
        meter.update(outputs[part], targets[part])
    return meter.score()


def detections(seed: int, images: int = 12, classes: int = 3) -> tuple[list[Any], list[Any]]:
    """Return boxes that nearly are the objects, some of them missing or of another class."""
    random = np.random.default_rng(seed)
    found, wanted = [], []
    for _ in range(images):
        count = int(random.integers(0, 5))
        low = random.uniform(0, 60, (count, 2))
        boxes = np.concatenate([low, low + random.uniform(8, 30, (count, 2))], 1).astype(np.float32)
        labels = random.integers(classes, size=count)
        wanted.append({"boxes": boxes, "labels": labels})
        near = np.repeat(boxes, 2, 0) + random.normal(0, 2, (2 * count, 4)).astype(np.float32)
        kinds = np.where(random.random(2 * count) < 0.8, np.repeat(labels, 2), 0)
        scores = random.random(2 * count).astype(np.float32)
        found.append({"boxes": near.astype(np.float32), "scores": scores, "labels": kinds})
    return found, wanted


class TestAgainstTorchmetrics:
    """The same numbers, on random answers."""

    def test_classification(self) -> None:
        functional = pytest.importorskip("torchmetrics.functional")
        random = np.random.default_rng(0)
        logits, labels = random.normal(size=(64, 7)), random.integers(7, size=64)
        wanted = functional.accuracy(
            torch.tensor(logits), torch.tensor(labels), task="multiclass", num_classes=7
        )
        assert scored(top1(), logits, labels).value == pytest.approx(float(wanted))

    @pytest.mark.parametrize("classes", [3, 9])
    def test_segmentation(self, classes: int) -> None:
        functional = pytest.importorskip("torchmetrics.functional.classification")
        random = np.random.default_rng(1)
        scores = random.normal(size=(11, classes, 6, 5))
        labels = random.integers(min(classes, 6), size=(11, 6, 5))
        labels[random.random(labels.shape) < 0.1] = 255
        wanted = functional.multiclass_jaccard_index(
            torch.tensor(scores).argmax(1),
            torch.tensor(labels),
            num_classes=classes,
            ignore_index=255,
        )
        assert scored(miou(), scores, labels).value == pytest.approx(float(wanted))

    def test_regression(self) -> None:
        functional = pytest.importorskip("torchmetrics.functional")
        random = np.random.default_rng(2)
        targets = random.normal(size=(40, 3)) * [1, 5, 0.1]
        answers = targets + random.normal(size=(40, 3)) * [0.5, 1, 0.1]
        wanted = functional.r2_score(torch.tensor(answers), torch.tensor(targets))
        assert scored(r2(), answers, targets).value == pytest.approx(float(wanted))

    def test_embedding(self) -> None:
        functional = pytest.importorskip("torchmetrics.functional")
        random = np.random.default_rng(3)
        left, right = random.normal(size=(2, 20, 8))
        wanted = functional.cosine_similarity(
            torch.tensor(left), torch.tensor(right), reduction="mean"
        )
        assert scored(cosine(), left, right).value == pytest.approx(float(wanted))

    @pytest.mark.parametrize("seed", range(4))
    def test_detection(self, seed: int) -> None:
        """Held against COCOeval itself: MeanAveragePrecision, which wraps it, needs torchvision."""
        found, wanted = detections(seed)
        expected = coco_map(found, wanted)
        assert 0.1 < expected < 0.9
        assert scored(mean_average_precision(), found, wanted).value == pytest.approx(
            expected, abs=1e-6
        )


def coco_map(found: list[Any], wanted: list[Any]) -> float:
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    truth = coco.COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": at} for at in range(len(wanted))],
        "categories": [{"id": at} for at in range(3)],
        "annotations": [
            {"image_id": at, "category_id": int(label), "iscrowd": 0, **_box(box)}
            for at, image in enumerate(wanted)
            for box, label in zip(image["boxes"], image["labels"], strict=True)
        ],
    }
    for number, annotation in enumerate(truth.dataset["annotations"], 1):
        annotation["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        answers = truth.loadRes(
            [
                {"image_id": at, "category_id": int(label), "score": float(score), **_box(box)}
                for at, image in enumerate(found)
                for box, label, score in zip(
                    image["boxes"], image["labels"], image["scores"], strict=True
                )
            ]
        )
        judge = evaluation.COCOeval(truth, answers, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return float(judge.stats[0])


def _box(box: Array) -> dict[str, Any]:
    left, top, right, bottom = map(float, box)
    sides = right - left, bottom - top
    return {"bbox": [left, top, *sides], "area": sides[0] * sides[1]}


def test_a_sample_has_a_score_and_the_whole_an_interval() -> None:
    random = np.random.default_rng(4)
    labels = random.integers(3, size=(20, 8, 8))
    scores = np.eye(3)[labels].transpose(0, 3, 1, 2) + random.normal(0, 0.5, (20, 3, 8, 8))
    found = scored(miou(), scores, labels)
    assert found.samples.shape == (20,)
    low, high = found.interval95
    assert low < found.value < high
    assert high - low < 0.1


def test_one_channel_is_a_class_and_its_absence() -> None:
    labels = np.array([[[1, 1], [0, 0]]])
    logits = np.array([[[[2.0, -1.0], [-1.0, -1.0]]]])
    assert scored(miou(), logits, labels).value == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_images_without_objects_count_against_boxes_that_are_found_there() -> None:
    empty = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0, int)}
    box = {"boxes": np.array([[0, 0, 4, 4.0]]), "labels": np.array([0]), "scores": np.ones(1)}
    nothing = empty | {"scores": np.zeros(0)}
    each = scored(mean_average_precision(), [nothing, box, box], [empty, empty, box]).samples
    assert each.tolist() == [1.0, 0.0, 1.0]


def test_boxes_may_be_padded_arrays() -> None:
    rows = np.full((1, 3, 6), -1.0)
    rows[0, 0] = [0, 0, 4, 4, 0.9, 1]
    wanted = np.full((1, 2, 5), -1.0)
    wanted[0, 0] = [0, 0, 4, 4, 1]
    assert scored(mean_average_precision(), rows, wanted).value == pytest.approx(1.0)


class TestOwnMetrics:
    """Whatever a user's function returns, every sample has a score."""

    def test_a_number_is_asked_sample_by_sample(self) -> None:
        def closeness(outputs: Array, targets: Array) -> float:
            return -float(np.abs(outputs - targets).mean())

        found = scored(own(closeness, "m:closeness", lambda x: x), np.zeros(6), np.arange(6.0))
        assert found.metric == "closeness"
        assert found.samples.tolist() == [0, -1, -2, -3, -4, -5]

    def test_a_dict_is_judged_by_its_first_and_shows_the_rest(self) -> None:
        def both(outputs: Array, targets: Array) -> dict[str, Array]:
            return {"right": outputs == targets, "far": np.abs(outputs - targets)}

        found = scored(own(both, "m:both", lambda x: x), np.zeros(4), np.arange(4.0))
        assert found.value == pytest.approx(0.25)
        assert found.more == {"right": 0.25, "far": 1.5}

    def test_one_that_fails_is_told_as_the_users(self) -> None:
        def broken(outputs: Array, targets: Array) -> float:
            raise KeyError(outputs.size)

        with pytest.raises(DataError, match=r"task.metrics = 'm:broken' failed: KeyError: 4"):
            scored(own(broken, "m:broken", lambda x: x), np.zeros(4), np.zeros(4))

    def test_scores_of_another_number_of_samples_are_refused(self) -> None:
        with pytest.raises(DataError, match=r"for 4 samples; allowed: \(N,\) or one number"):
            scored(own(lambda o, t: o[:2], "m:f", lambda x: x), np.zeros(4), np.zeros(4))


@pytest.mark.parametrize(
    ("measure", "outputs", "targets", "message"),
    [
        (top1(), np.zeros((2, 3, 4)), np.zeros(2, int), "classification' takes outputs"),
        (miou(), np.zeros((2, 3, 4, 4)), np.zeros((2, 3, 3), int), "segmentation' takes"),
        (miou(), np.zeros((2, 3, 4, 4)), np.full((2, 4, 4), 7), "classes from 0 to 2"),
        (r2(), np.zeros((2, 3)), np.zeros((2, 4)), "regression' takes outputs"),
        (cosine(), np.zeros((2, 3)), np.zeros((2, 4)), "embedding' takes outputs"),
        (mean_average_precision(), np.zeros((2, 4)), np.zeros((2, 3, 5)), "task.decode"),
    ],
)
def test_answers_that_do_not_suit_the_task_are_told_with_their_shapes(
    measure: Measure, outputs: Array, targets: Array, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        scored(measure, outputs, targets)


def test_an_output_that_is_not_there_is_told() -> None:
    with pytest.raises(ModelError, match=r"task.output = 'mask': the model returns logits, aux"):
        Meter(miou("mask")).update({"logits": np.zeros(1), "aux": np.zeros(1)}, np.zeros(1))
