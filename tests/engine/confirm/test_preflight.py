"""``--confirm``: NVIDIA's own word on each finding, and what it alone objects to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto

import trt_qat as tq
from tests.engine.aot.rtx import needs_rtx
from tests.graph.build import Builder, int8_chain
from tests.graph.fuzz import confirmed, fuzz
from tests.lint.violations import CASES
from tests.runs import command_line
from trt_qat.engine.aot import load
from trt_qat.engine.aot.child import Compiler
from trt_qat.engine.confirm.judge import BY_BUILDER
from trt_qat.engine.confirm.preflight import preflight
from trt_qat.errors import BackendUnavailable, InputError
from trt_qat.lint.preflight import PreflightReport
from trt_qat.lint.rule import Finding

DATA = Path(__file__).parents[2] / "recordings" / "rtx"


@pytest.fixture(scope="module")
def compiler() -> Iterator[Compiler]:
    with Compiler() as running:
        yield running


def only(report: PreflightReport, rule: str) -> Finding:
    (finding,) = (found for found in report.findings if found.rule == rule)
    return finding


def violation(rule: str) -> ModelProto:
    return next(case for case in CASES if case.rule == rule).bad()


def test_without_confirm_nothing_is_claimed() -> None:
    report = tq.preflight(violation("QDQ001"))
    assert report.confirmation is None
    assert {finding.confirmed for finding in report.findings} == {None}
    assert "confirmation" not in report.to_dict()


def test_another_way_to_confirm_names_the_one_there_is() -> None:
    with pytest.raises(InputError, match=r"confirm 'trt': allowed is 'rtx'"):
        tq.preflight(violation("QDQ001"), confirm="trt")


def test_without_the_compiler_confirm_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "RTX_MODULES", ("no_such_module",))
    with pytest.raises(BackendUnavailable, match=r"pip install 'trt-qat\[rtx\]'"):
        tq.preflight(violation("QDQ001"), confirm="rtx")


@needs_rtx
def test_a_clean_network_is_accepted_and_built(compiler: Compiler) -> None:
    model = int8_chain().model("out_dq_out")
    report = preflight(model, "rtx-4090", confirm="rtx", compiler=compiler)
    told = report.confirmation
    assert told is not None
    assert (told.parsed, told.built, told.targets) == (True, True, ("8.9",))
    assert told.agreement is not None
    assert told.agreement["precision"] == 2
    assert report.passed()
    document = report.to_dict()
    assert json.loads(json.dumps(document))["confirmation"]["built"] is True


@needs_rtx
def test_a_finding_that_the_parser_shares_has_its_words(compiler: Compiler) -> None:
    """It stops at the Q, so what it would say of the DQ behind it is not known."""
    report = preflight(violation("QDQ001"), confirm="rtx", compiler=compiler)
    at_q, at_dq = (found for found in report.findings if found.rule == "QDQ001")
    assert (at_q.confirmed, at_dq.confirmed) == (True, None)
    assert "shiftIsAllZeros" in str(at_q.confirmed_by)
    assert at_q.severity == "error"


@needs_rtx
def test_a_finding_that_the_parser_contradicts_is_a_warning(compiler: Compiler) -> None:
    finding = only(preflight(violation("QDQ013"), confirm="rtx", compiler=compiler), "QDQ013")
    assert (finding.confirmed, finding.severity) == (False, "warning")
    assert "accepted" in str(finding.confirmed_by)


@needs_rtx
def test_for_an_older_tensorrt_the_rule_stands(compiler: Compiler) -> None:
    report = preflight(violation("QDQ013"), tensorrt="8.6", confirm="rtx", compiler=compiler)
    assert only(report, "QDQ013").severity == "error"


@needs_rtx
def test_what_the_parser_takes_and_computes_otherwise_is_not_acquitted(compiler: Compiler) -> None:
    for rule in ("QDQ005", "QDQ006"):
        finding = only(preflight(violation(rule), confirm="rtx", compiler=compiler), rule)
        assert (finding.confirmed, finding.severity) == (None, "error")
    asked = preflight(violation("QDQ006"), "l4", confirm="rtx", compiler=compiler)
    assert only(asked, "QDQ006").confirmed is True
    assert "multiplies in fp32" in str(only(asked, "QDQ006").confirmed_by)


@needs_rtx
def test_what_no_rule_foresaw_is_a_finding_of_its_own(compiler: Compiler) -> None:
    """The training form of BatchNormalization: the operator is known, its attribute is not."""
    b = Builder()
    x = b.input("x", [1, 4, 8, 8])
    for name in ("scale", "bias", "mean", "var"):
        b.store(name, np.ones(4, np.float32))
    y = b.node("TopK", x, b.store("k", np.array([2])), name="top", outputs=2, sorted=0)
    model = b.model(y)
    del model.graph.node[0].attribute[:]
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("axis", 9))
    report = preflight(model, confirm="rtx", compiler=compiler)
    found = [finding for finding in report.findings if finding.confirmed]
    assert found
    assert found[0].node == "top"
    assert found[0].severity == "error"
    assert not report.passed()


@needs_rtx
def test_a_rule_that_is_left_out_stays_out(compiler: Compiler) -> None:
    report = preflight(violation("QDQ001"), ignore=("QDQ001",), confirm="rtx", compiler=compiler)
    assert all(finding.rule != "QDQ001" for finding in report.findings)


@needs_rtx
def test_a_crash_is_a_finding_and_no_traceback(compiler: Compiler) -> None:
    report = preflight(DATA / "crash.onnx", confirm="rtx", compiler=compiler)
    finding = only(report, "QDQ503")
    assert "SIGSEGV" in finding.message
    assert not report.passed()
    assert preflight(violation("QDQ001"), confirm="rtx", compiler=compiler).confirmation


@needs_rtx
def test_int8_that_is_compiled_in_float_is_told(compiler: Compiler) -> None:
    b = Builder()
    x = b.qdq(b.input("x", ["N", 16, 8, 8]), name="in")
    y = b.node("ConvTranspose", x, b.weight("w", (16, 16, 2, 2), None), name="up", strides=[2, 2])
    report = preflight(b.model(b.qdq(y, name="out")), "l4", confirm="rtx", compiler=compiler)
    finding = only(report, "QDQ504")
    assert (finding.node, finding.severity) == ("up", "info")
    assert "no INT8 ConvTranspose" in finding.message
    assert report.confirmation is not None
    assert (report.confirmation.agreement or {})["foreseen"] == 1


@needs_rtx
def test_what_a_rule_foresaw_is_confirmed_by_the_listing_and_said_once(compiler: Compiler) -> None:
    report = preflight(violation("QDQ125"), "l4", confirm="rtx", compiler=compiler)
    finding = only(report, "QDQ125")
    assert finding.confirmed is True
    assert "listing: it multiplies in fp" in str(finding.confirmed_by)
    assert "QDQ504" not in {each.rule for each in report.findings}


@needs_rtx
def test_where_fp16_moves_less_it_is_a_finding(compiler: Compiler) -> None:
    """On 1.7 an INT8 convolution writes float, and a kernel behind it quantizes."""
    model = int8_chain().model("out_dq_out")
    report = preflight(model, "rtx-4090", confirm="rtx", compiler=compiler)
    finding = only(report, "QDQ505")
    assert (finding.severity, finding.confirmed) == ("info", True)
    assert "FP16 is the better engine" in finding.message
    assert report.confirmation is not None
    sides = report.confirmation.against_fp16
    assert sides is not None
    assert sides["fp16"]["kernels"] < sides["int8"]["kernels"]
    left = preflight(model, "rtx-4090", ignore=("QDQ505",), confirm="rtx", compiler=compiler)
    assert left.confirmation is not None
    assert left.confirmation.against_fp16 is None


@needs_rtx
@pytest.mark.parametrize(
    ("target", "shape", "reason"),
    [
        (None, ["N", 16, 8, 8], "no target was named"),
        ("orin-agx", ["N", 16, 8, 8], r"no compute capability 8.7"),
        ("l4", ["N", 16, "H", "W"], "build.batch sets a dynamic first dimension only"),
    ],
)
def test_why_it_was_not_built_is_told(
    compiler: Compiler, target: str | None, shape: list[int | str], reason: str
) -> None:
    b = Builder()
    model = b.model(b.conv(b.input("x", shape), (16, 16), quantized=False))
    told = preflight(model, target, confirm="rtx", compiler=compiler).confirmation
    assert told is not None
    assert (told.parsed, told.built) == (True, None)
    assert reason in told.note


@needs_rtx
def test_shapes_that_are_given_are_built(compiler: Compiler) -> None:
    b = Builder()
    model = b.model(b.conv(b.input("x", ["N", 16, "H", "W"]), (16, 16), quantized=False))
    told = preflight(
        model, "l4", shapes={"x": (2, 16, 12, 12)}, confirm="rtx", compiler=compiler
    ).confirmation
    assert told is not None
    assert told.built


@needs_rtx
def test_what_the_builder_judges_is_asked_for_the_target(compiler: Compiler) -> None:
    b = Builder(21)
    b.initializers.append(
        TensorProto(name="codes", data_type=17, dims=[16, 16], raw_data=bytes(256))
    )
    w = b.node("DequantizeLinear", "codes", b.store("s", 0.1), name="w_dq")
    model = b.model(b.node("MatMul", b.input("x", ["N", 16]), w, name="mm"))
    report = preflight(model, "a10", confirm="rtx", compiler=compiler)
    assert "QDQ310" in BY_BUILDER
    assert only(report, "QDQ310").confirmed is True
    assert "fp8_e4m3" in str(only(report, "QDQ310").confirmed_by)


@needs_rtx
def test_the_command_says_it(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(violation("QDQ001").SerializeToString())
    done = command_line("preflight", path, "--confirm", "rtx")
    assert done.returncode == 1
    assert "Confirmed: TensorRT for RTX" in done.stdout
    assert "the parser refuses it" in done.stdout


@needs_rtx
def test_damaged_models_are_told_and_never_a_crash_of_ours(
    compiler: Compiler, tmp_path: Path
) -> None:
    """`benchmarks/fuzz_preflight.py --confirm` runs more of them."""
    outcomes = fuzz(40, 0, tmp_path, confirmed(compiler))
    assert sum(outcomes.values()) == 40
    assert outcomes["accepted"] + outcomes["built"]
    assert outcomes["refused"]
