"""Messages explained: every row of the table by a message as it was printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trt_qat.engine.evidence.build_log import parse
from trt_qat.engine.evidence.explain import (
    Entry,
    Explained,
    cause,
    explain,
    facts,
    release_of_tag,
    table,
)
from trt_qat.engine.evidence.log_text import messages
from trt_qat.lint import preflight  # noqa: F401 - enters the rules
from trt_qat.lint.rules import RULES


def only(text: str) -> Explained:
    (found,) = explain(messages(text))
    return found


@pytest.mark.parametrize("entry", table(), ids=lambda entry: entry.id)
def test_a_row_explains_its_example(entry: Entry) -> None:
    """And no row before it does: the first that fits is taken."""
    assert only(entry.example).entry.id == entry.id


def test_rules_that_are_named_exist() -> None:
    assert {entry.rule for entry in table() if entry.rule} <= set(RULES)


def test_every_row_says_what_to_do_and_who_said_so() -> None:
    for entry in table():
        assert entry.means, entry.id
        assert entry.mend, entry.id
        assert entry.source, entry.id
        assert entry.fixed is None or re.fullmatch(r"\d+\.\d+", entry.fixed), entry.id


def test_every_report_stands_in_the_documentation() -> None:
    told = (Path(__file__).parents[3] / "docs" / "evidence.md").read_text(encoding="utf-8")
    rows = {entry.id for entry in table() if "issue" in entry.source}
    assert {row for row in rows if f"`{row}`" not in told} == set()


NO_KERNEL = "Could not find any implementation for node {0}."


@pytest.mark.parametrize(
    ("node", "rule"),
    [
        ("m.10.attn.pe.conv.weight + m.10.attn.pe.conv.weight_QuantizeLinear + "
         "/m.10/attn/pe/conv/Conv + /m.10/attn/Add", "QDQ101"),
        ("layer4.weight + QuantizeLinear_222_quantize_scale_node + Conv_224 + Add_243 + Relu_244",
         "QDQ101"),
        ("w + QuantizeLinear_3 + ConvTranspose_5", "QDQ006"),
        ("w + QuantizeLinear_3 + Conv_5 + PWN(Sigmoid_6, Mul_7)", "QDQ114"),
        ("/address/Conv + PWN(/act/Sigmoid)", None),
        ("002_convolutional", None),
    ],
)  # fmt: skip
def test_a_layer_without_a_kernel_is_told_by_what_it_fuses(node: str, rule: str | None) -> None:
    wrapped = (
        "Error[10]: [optimizer.cpp::computeCosts::3869] Error Code 10: Internal Error "
        f"({NO_KERNEL.format(node)})"
    )
    found = only(f"[E] Error[10]: {NO_KERNEL.format(node)}\n[E] {wrapped}")
    assert (found.entry.rule, found.nodes, found.count) == (rule, [node], 2)
    assert found.severity == "error"


def test_a_parsers_error_is_of_the_node_being_parsed() -> None:
    found = only(
        '[E] [TRT] ModelImporter.cpp:771: While parsing node number 4 [QuantizeLinear -> "q_1"]:\n'
        "[E] [TRT] ModelImporter.cpp:777: ERROR: builtin_op_importers.cpp:1235 In function "
        "QuantDequantLinearHelper:\n[6] Assertion failed: shiftIsAllZeros(zeroPoint)\n"
    )
    assert (found.entry.rule, found.nodes) == ("QDQ001", ["q_1"])


def test_a_parsers_error_of_tensorrt_10_names_its_node() -> None:
    found = only(
        "[E] In node 12 with name: /conv/Q and operator: QuantizeLinear (QuantDequantLinear): "
        "INVALID_NODE: Assertion failed: shiftIsAllZeros(zeroPoint)"
    )
    assert (found.entry.rule, found.nodes) == ("QDQ001", ["/conv/Q"])


@pytest.mark.parametrize(("operator", "rule"), [("QLinearConv", "QDQ007"), ("Det", "QDQ011")])
def test_an_operator_that_is_not_imported_is_told_by_its_kind(operator: str, rule: str) -> None:
    found = explain(
        messages(
            f'[E] [TRT] ModelImporter.cpp:726: While parsing node number 3 [{operator} -> "y"]:\n'
            "[E] [TRT] ModelImporter.cpp:732: ERROR: builtin_op_importers.cpp:5428 In function "
            "importFallbackPluginImporter:\n"
            '[8] Assertion failed: creator && "Plugin not found, are the plugin name, version, and '
            'namespace correct?"\n'
        )
    )
    assert {each.entry.rule for each in found} == {rule}
    assert found[0].severity == "error"


def test_a_message_printed_bare_is_as_grave_as_it_says() -> None:
    assert only("Could not find any implementation for node conv.").severity == "error"
    assert only("Missing scale and zero-point for tensor x, expect fall back").severity == "warning"


def test_many_messages_of_one_kind_are_one_explanation() -> None:
    line = "[W] [TRT] Missing scale and zero-point for tensor t{0}, expect fall back to non-int8"
    found = only("\n".join(line.format(i) for i in range(50)))
    assert found.count == 50
    assert found.nodes[:2] == ["t0", "t1"]


def test_the_gravest_comes_first() -> None:
    text = (
        "[W] Using an engine plan file across different models of devices is not recommended\n"
        "[E] Could not find any implementation for node conv.\n"
    )
    assert [each.severity for each in explain(messages(text))] == ["error", "warning"]


def test_verbose_chatter_is_not_explained() -> None:
    assert explain(messages("[V] [TRT] Skipping: the weights are affected by this issue")) == []


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8601] # trtexec --onnx=a", "8.6.1"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v101602] [b10] # trtexec", "10.16.2"),
        ("[08/02/2024-14:21:11] [I] TensorRT version: 8.6.1", "8.6.1"),
        ("TensorRT: starting export with TensorRT 10.3.0...", "10.3.0"),
    ],
)
def test_the_version_is_read_off(line: str, version: str) -> None:
    assert facts(messages(line)).tensorrt == version


def test_a_serialization_version_names_its_release() -> None:
    found = only(
        "[E] 1: Serialization (Serialization assertion stdVersionRead == serializationVersion "
        "failed.Version tag does not match. Note: Current Version: 213, Serialized Engine Version: "
        "205)"
    )
    assert found.facts == {"current": "213", "serialized": "205"}
    assert (release_of_tag("213"), release_of_tag("205"), release_of_tag("1")) == (
        "8.4",
        "8.2",
        None,
    )


def test_a_failed_build_is_told_apart_from_one_that_passed() -> None:
    assert parse("[I] Engine built in 5.1 sec.").facts.outcome == "passed"
    assert parse("[E] Engine could not be created from network").facts.outcome == "failed"
    assert parse("[I] Start parsing network model").facts.outcome is None
    cut = "&&&& RUNNING TensorRT.trtexec [TensorRT v8601] # trtexec\n[I] Start parsing"
    assert parse(cut).facts.outcome == "unfinished"


def test_a_build_that_fails_here_is_explained_in_one_sentence() -> None:
    """As the logger keeps messages: ``[E] text``."""
    said = cause(["[V] trying", "[E] Could not find any implementation for node w + Q_quantized."])
    assert said.startswith("that is, no INT8 kernel for this quantized layer")
    assert "QDQ315" in said
    assert cause(["[V] nothing wrong"]) == ""


def test_a_name_of_thousands_of_nodes_is_no_work() -> None:
    nodes = " + ".join(f"w{i}" for i in range(20_000))
    line = f"[E] Error[10]: Could not find any implementation for node {nodes} + q_QuantizeLinear."
    (told,) = explain(messages(line))
    assert told.entry.id == "no-kernel-quantized"
    assert len(told.line) < 5000
