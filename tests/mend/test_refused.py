"""What TensorRT refuses, mended: the same answers, and the real parser and builder take it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.aot.rtx import needs_rtx
from tests.lint.violations import CASES
from trt_qat.engine.aot.child import Compiler
from trt_qat.engine.confirm.preflight import preflight
from trt_qat.lint.preflight import preflight as judge
from trt_qat.mend.fix import fix

MENDED = ("QDQ019", "QDQ020", "QDQ021")


@pytest.fixture(scope="module")
def compiler() -> Iterator[Compiler]:
    with Compiler() as running:
        yield running


def broken(rule: str, folder: Path) -> Path:
    path = folder / "bad.onnx"
    model = next(case for case in CASES if case.rule == rule).bad()
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("rule", MENDED)
def test_the_mend_removes_the_finding_and_changes_no_answer(rule: str, tmp_path: Path) -> None:
    bad, good = broken(rule, tmp_path), tmp_path / "good.onnx"
    report = fix(bad, good, select=(rule,), shapes={"x": (1, 16, 8, 8)})
    assert [change.rule for change in report.changes] == [rule]
    if rule == "QDQ021":  # onnxruntime does not run the broken model either
        assert "two nodes with same node name" in report.not_compared
    else:
        assert report.largest_difference == 0.0
    assert rule in {finding.rule for finding in judge(bad).findings}
    assert rule not in {finding.rule for finding in judge(good).findings}


def test_a_kernel_shape_is_written_for_releases_that_do_not_infer_it(tmp_path: Path) -> None:
    bad, good = broken("QDQ317", tmp_path), tmp_path / "good.onnx"
    assert fix(bad, good, tensorrt="10.4", select=("QDQ317",)).changes == ()
    report = fix(bad, good, tensorrt="10.3", select=("QDQ317",))
    assert [change.what for change in report.changes] == ["Stated kernel_shape [3, 3]."]
    assert report.largest_difference == 0.0
    found = [judge(path, tensorrt="10.3", select=("QDQ317",)).findings for path in (bad, good)]
    assert [[each.node for each in each_file] for each_file in found] == [["conv"], []]


@needs_rtx
@pytest.mark.parametrize("rule", MENDED)
def test_the_real_code_refuses_what_is_broken_and_builds_what_is_mended(
    rule: str, tmp_path: Path, compiler: Compiler
) -> None:
    bad, good = broken(rule, tmp_path), tmp_path / "good.onnx"
    shapes = {"x": (1, 16, 8, 12)} if rule == "QDQ020" else None
    fix(bad, good, select=(rule,), shapes={"x": (1, 16, 8, 8)})
    before, after = (
        preflight(path, "l4", shapes=shapes, confirm="rtx", compiler=compiler).confirmation
        for path in (bad, good)
    )
    assert before is not None
    assert after is not None
    assert not before.built
    assert after.built, after.refused
    assert {refused.rule for refused in before.refused} == {rule}
