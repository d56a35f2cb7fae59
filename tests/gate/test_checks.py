"""What only one of a run and its baseline has is skipped with a word, never judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gate.test_gate import COUNT, evaluation, logits
from tests.gate.test_snapshot import Document, changed, made
from trt_qat.gate.checks import shown
from trt_qat.gate.gate import check


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Document:
    return made(tmp_path_factory.mktemp("baseline"))


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluation(tmp_path_factory.mktemp("cand") / "run", fp32=logits(np.ones(COUNT, bool)))


PREFLIGHT: Document = {
    "target": None, "tensorrt": None, "errors": 0, "warnings": 0, "int8": 3, "rules": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        (lambda d: d["test"].update(images_sha256="a" * 64), "test images", "only one of the two"),
        (lambda d: d["sizes"].update({"gone.onnx": 5}), "size gone.onnx", "run has no gone.onnx"),
        (lambda d: d.update(preflight=PREFLIGHT), "preflight", "this run has no preflight.json"),
        (lambda d: d.update(sparsity={"reported": 2, "proven": 2}), "2:4 proven", "no compare.js"),
    ],
)
def test_a_part_that_one_lacks_is_skipped(
    baseline: Document,
    candidate: Path,
    tmp_path: Path,
    change: Callable[[Document], Any],
    name: str,
    message: str,
) -> None:
    report = check(candidate, changed(baseline, tmp_path, change))
    (found,) = [entry for entry in report.checks if entry.name == name]
    assert found.status == "skipped"
    assert message in found.message
    assert report.passed(strict=False)
    assert not report.passed(strict=True)


def test_values_are_shown_with_their_unit() -> None:
    assert [shown(2.34567, "ms"), shown(0.5, "percent"), shown(1234, "bytes")] == [
        "2.346 ms", "50.00%", "1,234 B"
    ]  # fmt: skip
    assert shown(None, "ms") == ""
