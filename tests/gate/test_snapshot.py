"""A baseline that says something impossible is refused, even where its digest is right."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gate.test_gate import COUNT, evaluation, logits
from trt_qat import artifact
from trt_qat.errors import InputError
from trt_qat.gate.gate import update
from trt_qat.gate.snapshot import Scores, read_baseline

Document = dict[str, Any]


def made(folder: Path) -> Document:
    """The baseline of an evaluation of the user's own."""
    update(evaluation(folder / "run", fp32=logits(np.ones(COUNT, bool))), folder / "b.json")
    document: Document = json.loads((folder / "b.json").read_text())
    return document


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Document:
    return made(tmp_path_factory.mktemp("baseline"))


def changed(baseline: Document, folder: Path, change: Callable[[Document], Any]) -> Path:
    """The baseline with something changed, and a digest that fits."""
    document: Document = json.loads(json.dumps(baseline))
    document.pop("sha256")
    change(document)
    document["sha256"] = artifact.fingerprint(baseline=document)
    path = folder / "b.json"
    path.write_text(json.dumps(document))
    return path


def scores(document: Document) -> Document:
    found: Document = document["metrics"]["top1"]["onnx"]
    return found


def floats(*values: float) -> Document:
    data = base64.b64encode(np.array(values, "<f4").tobytes()).decode()
    return {"value": 0.5, "encoding": "float32", "count": len(values), "data": data}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: scores(d).update(data="~~~~"), "metrics.top1.onnx: .*the scores are no base64"),
        (lambda d: scores(d).update(count=COUNT + 99), r"bytes of scores for 10099 bits"),
        (lambda d: scores(d).update(floats(1.0, np.nan)), "the scores hold NaN or infinity"),
        (lambda d: scores(d).update(floats(1.0, 0.5)), "stage onnx: 2 scores, not 10000"),
        (lambda d: d.update(stage="engine"), "has no scores of the judged stage engine"),
        (lambda d: d.update(colour="red"), "colour: Extra inputs"),
    ],
)
def test_an_impossible_baseline_is_refused(
    baseline: Document, tmp_path: Path, change: Callable[[Document], Any], message: str
) -> None:
    path = changed(baseline, tmp_path, change)
    with pytest.raises(InputError, match=rf"b\.json: damaged: .*{message}"):
        read_baseline(path)


def test_what_was_changed_keeps_its_digest_otherwise(baseline: Document, tmp_path: Path) -> None:
    assert read_baseline(changed(baseline, tmp_path, lambda d: d.update(name="other"))).name


def test_a_baseline_with_no_number_is_damaged(baseline: Document, tmp_path: Path) -> None:
    document = baseline | {"sizes": {"model.onnx": float("nan")}}
    (tmp_path / "b.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"b\.json"):
        read_baseline(tmp_path / "b.json")


def test_scores_of_each_kind_come_back() -> None:
    hits, grades = np.array([True, False, True]), np.array([0.25, 0.5], np.float32)
    np.testing.assert_array_equal(Scores.of(hits).array, hits)
    np.testing.assert_array_equal(Scores.of(grades).array, grades)
    np.testing.assert_array_equal(Scores.of(grades, 0.4).array, grades.astype(np.float64))
