"""The report: its JSON contract, its exit decision, SARIF, JUnit and text."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from onnx import ModelProto, TensorProto
from rich.console import Console

from tests.graph.build import Builder, int8_chain
from tests.lint.violations import CASES
from tests.runs import command_line
from trt_qat.cli.tables.preflight import render_text
from trt_qat.errors import InputError
from trt_qat.lint.fate import LayerFate
from trt_qat.lint.preflight import PreflightReport, preflight
from trt_qat.lint.reports import to_junit, to_sarif
from trt_qat.lint.rules import RULES


def _chain() -> ModelProto:
    return int8_chain().model("out_dq_out")


def _bad() -> PreflightReport:
    case = next(case for case in CASES if case.rule == "QDQ001")
    return preflight(case.bad(), "a100")


def test_json_contract(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(_chain().SerializeToString())
    document = json.loads(json.dumps(preflight(path, "a100", tensorrt="10.16").to_dict()))
    assert set(document) == {
        "model", "target", "tensorrt", "summary", "layers", "findings", "roofline",
    }  # fmt: skip
    assert document["model"] == str(path)
    assert document["target"] == "a100"
    assert document["summary"] == {
        "layers": 2, "quantizable": 2, "int8": 2, "int8_in_int8_out": 2, "sparse_found": 0,
        "sparse_likely": 0, "errors": 0, "warnings": 0,
    }  # fmt: skip
    assert document["layers"][0] == {
        "name": "first", "op": "Conv", "precision": "int8", "input_int8": True,
        "output_int8": True, "sparse": "dense", "sparse_likely": False, "why": [],
    }  # fmt: skip
    finding = _bad().to_dict()["findings"][0]
    keys = {"rule", "severity", "node", "message", "mend", "confirmed", "confirmed_by"}
    assert set(finding) == keys


def test_errors_come_first_and_decide() -> None:
    report = _bad()
    assert not report.passed()
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    case = next(case for case in CASES if case.rule == "QDQ101")
    assert preflight(case.bad()).passed()
    assert not preflight(case.bad()).passed(strict=True)


def test_rules_can_be_selected_and_ignored() -> None:
    case = next(case for case in CASES if case.rule == "QDQ001")
    assert preflight(case.bad(), select=["qdq1"]).count("error") == 0
    assert preflight(case.bad(), ignore=["QDQ0"]).count("error") == 0
    assert preflight(case.bad(), select=["QDQ001"]).count("error") > 0
    with pytest.raises(InputError, match="no preflight rule is called 'QDQ999'; nearest: QDQ"):
        preflight(case.bad(), select=["QDQ999"])


def test_unknown_target_and_version_are_input_errors() -> None:
    with pytest.raises(InputError, match="unknown target 'a1000'; nearest: a100"):
        preflight(_chain(), "a1000")
    with pytest.raises(InputError, match="is no TensorRT version"):
        preflight(_chain(), tensorrt="newest")


def test_roofline_of_a_convolution_by_hand() -> None:
    """8x8x16 outputs of 16 inputs and 3x3 taps: 294,912 operations a layer at batch 1."""
    roof = preflight(_chain(), "a100").roofline
    assert roof is not None
    cost = roof.rows[0].cost
    assert cost is not None
    assert cost.operations == 2 * 64 * 16 * 16 * 9
    assert cost.bytes == 16 * 16 * 9 + 2 * 64 * 16
    assert roof.rows[0].bound == "memory"
    assert roof.rows[0].floor_us == pytest.approx(cost.bytes / 2039e9 * 1e6)
    assert roof.floor_us == pytest.approx(2 * cost.bytes / 2039e9 * 1e6)


def test_roofline_follows_the_given_shape() -> None:
    one = preflight(_chain(), "a100").roofline
    eight = preflight(_chain(), "a100", shapes={"x": (8, 16, 8, 8)}).roofline
    assert one is not None
    assert eight is not None
    assert one.rows[0].cost is not None
    assert eight.rows[0].cost is not None
    assert eight.rows[0].cost.operations == 8 * one.rows[0].cost.operations
    with pytest.raises(InputError, match="the model has no input 'y'; nearest: x"):
        preflight(_chain(), shapes={"y": (1,)})
    with pytest.raises(InputError, match="input 'x' has 4 dimensions"):
        preflight(_chain(), shapes={"x": (1,)})


def test_shapes_that_are_not_known_leave_a_layer_out_of_the_roofline() -> None:
    b = int8_chain()
    b.inputs[0].type.tensor_type.shape.dim[2].dim_param = "height"
    roof = preflight(b.model("out_dq_out"), "a100").roofline
    assert roof is not None
    assert roof.unknown == 2
    assert {row.bound for row in roof.rows} == {"unknown"}


def test_sparse_weights_halve_the_arithmetic_and_shrink_the_bytes() -> None:
    def build(*, sparse: bool) -> ModelProto:
        b = Builder()
        codes = np.ones((16, 16, 3, 3), np.int8)
        codes[:, ::2] = 0 if sparse else 1
        w = b.dequantize(b.store("codes", codes), np.full(16, 0.01, np.float32), axis=0)
        x = b.qdq(b.input("x", [1, 16, 8, 8]), name="in")
        return b.model(b.qdq(b.conv(x, (16, 16), "conv", w=w), name="out"))

    costs = []
    for sparse in (False, True):
        roof = preflight(build(sparse=sparse), "a100").roofline
        assert roof is not None
        assert roof.rows[0].cost is not None
        costs.append(roof.rows[0].cost)
    weights = 16 * 16 * 9
    assert costs[0].bytes - costs[1].bytes == weights - weights * 0.625
    assert costs[0].operations == costs[1].operations


def test_sarif_has_every_rule_and_every_finding() -> None:
    report = _bad()
    log = json.loads(json.dumps(to_sarif(report)))
    run = log["runs"][0]
    assert log["version"] == "2.1.0"
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == sorted(RULES)
    assert len(run["results"]) == len(report.findings)
    first = run["results"][0]
    assert (first["ruleId"], first["level"]) == ("QDQ001", "error")
    assert first["locations"][0]["logicalLocations"][0]["fullyQualifiedName"] == "in_q"


def test_junit_fails_a_case_for_each_broken_rule() -> None:
    suite = ElementTree.fromstring(to_junit(_bad())).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == (str(len(RULES)), "1")
    failed = [case.get("name") for case in suite if case.find("failure") is not None]
    assert failed == ["QDQ001 zero point is not zero"]


def test_junit_of_warnings_depends_on_strict() -> None:
    report = preflight(next(case for case in CASES if case.rule == "QDQ101").bad())
    assert 'failures="0"' in to_junit(report)
    assert 'failures="1"' in to_junit(report, strict=True)


def test_junit_of_names_that_xml_cannot_hold() -> None:
    model = next(case for case in CASES if case.rule == "QDQ001").bad()
    model.graph.node[0].name = "\x00<&>\x1f"
    assert ElementTree.fromstring(to_junit(preflight(model))) is not None


def test_text_names_findings_layers_and_counts() -> None:
    out = io.StringIO()
    render_text(_bad(), Console(file=out, width=120))
    text = out.getvalue()
    assert "QDQ001 error in_q:" in text
    assert re.search(r"conv +Conv +int8 +int8 +int8 +dense", text)
    assert "an estimate of the limit, not a prediction of latency" in text
    assert "1 layer, 1 quantizable, 1 int8" in text


def test_a_report_is_its_findings_and_counts_as_text() -> None:
    report = _bad()
    lines = str(report).splitlines()
    assert len(lines) == len(report.findings) + 1
    assert lines[0].startswith("QDQ001 error in_q: ")
    assert lines[-1] == report.counts
    assert lines[-1].startswith("1 layer, 1 quantizable, 1 int8")
    assert "2 errors, 0 warnings" in lines[-1]
    assert "LayerFate" not in str(report)


def test_text_of_a_name_that_commands_a_terminal_is_harmless() -> None:
    model = next(case for case in CASES if case.rule == "QDQ001").bad()
    model.graph.node[0].name = "\x1b[2J"
    assert "\x1b" not in str(preflight(model))


def _told(width: int, report: PreflightReport) -> str:
    out = io.StringIO()
    render_text(report, Console(file=out, width=width))
    return out.getvalue()


def test_text_of_a_narrow_terminal_has_a_line_for_each_layer_and_its_reasons_below() -> None:
    why = ("its input is quantized and its weight is not", "a reason that is a good deal longer")
    fates = [
        LayerFate(f"stages.{i}.convolution", "Conv", "fp32", False, False, "found", True, why[i:])
        for i in (0, 1)
    ]
    report = PreflightReport("m.onnx", None, None, tuple(fates), (), quantizable=2)
    narrow = _told(80, report).splitlines()
    assert narrow[0].startswith("INT8 in 0 of 2 layers")
    row = r"stages\.{}\.convolution +Conv +fp32 +float +float +found, likely +{} *"
    assert re.fullmatch(row.format(0, "1, 2"), narrow[2])
    assert re.fullmatch(row.format(1, "2"), narrow[3])
    assert narrow[4:6] == [f"1: {why[0]}", f"2: {why[1]}"]
    wide = _told(200, report).splitlines()
    assert wide[2].rstrip().endswith("; ".join(why))


def test_text_in_a_pipe_is_not_folded(tmp_path: Path) -> None:
    """However long a name is: what reads it counts on a line for each layer."""
    b = Builder()
    model = b.model(b.qdq(b.conv(b.qdq(b.input("x", ["N", 16, 8, 8])), (16, 16)), name="out"))
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    conv.name = "convolution" * 40
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    done = command_line("preflight", tmp_path / "m.onnx")
    assert re.search(rf"^{conv.name} +Conv +int8 ", done.stdout, re.MULTILINE)


def test_text_of_names_that_look_like_markup() -> None:
    model = next(case for case in CASES if case.rule == "QDQ001").bad()
    model.graph.node[0].name = "[red]x[/nothing]"
    out = io.StringIO()
    render_text(preflight(model), Console(file=out, width=120))
    assert "[red]x[/nothing]" in out.getvalue()


def test_odd_graphs_are_read() -> None:
    """Nameless nodes, optional inputs left out, no shapes, two nodes of one name."""
    b = Builder()
    x = b.qdq(b.input("x", [None, 16, None, None]), name="in")
    y = b.node("Clip", b.conv(x, (16, 16)), "", b.store("six", 6.0))
    model = b.model(b.qdq(y, name="out"))
    for node in model.graph.node:
        node.name = "same" if node.op_type == "Conv" else ""
    report = preflight(model, "a100")
    assert [layer.name for layer in report.layers] == ["same"]
    assert report.summary["int8_in_int8_out"] == 1


def test_an_int8_network_input_is_no_dangling_dq() -> None:
    b = Builder()
    x = b.dequantize(b.input("x", ["N", 16, 8, 8], TensorProto.INT8), name="in")
    report = preflight(b.model(b.qdq(b.conv(x, (16, 16)), name="out")))
    assert [f.rule for f in report.findings if f.severity != "info"] == []
    assert report.layers[0].input_int8


def test_preflight_imports_neither_torch_nor_tensorrt() -> None:
    code = (
        "import sys, trt_qat.lint.preflight, trt_qat.lint.reports, trt_qat.mend.fix\n"
        "print([m for m in ('torch', 'modelopt', 'tensorrt', 'onnxscript') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
