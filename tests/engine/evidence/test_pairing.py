"""Layers of two engines are paired though their exports number nodes differently."""

from __future__ import annotations

from pathlib import Path

from trt_qat.engine.evidence import reading
from trt_qat.engine.evidence.differences import differences
from trt_qat.engine.evidence.layer_info import Layer
from trt_qat.engine.evidence.pairing import fuses, paired, parts

RECORDED = Path(__file__).parents[2] / "recordings" / "engines"


def _pairs(a: list[str], b: list[str]) -> list[tuple[str, str]]:
    sides = [[Layer(name) for name in names] for names in (a, b)]
    return [(x.name, y.name) for x, y in paired(*sides)]


def test_a_name_is_parted_into_what_was_fused() -> None:
    assert parts("w + QuantizeLinear_7 + Conv_9 + PWN(PWN(Sigmoid_10), Mul_11)") == [
        "w", "QuantizeLinear_7", "Conv_9", "PWN", "PWN", "Sigmoid_10", "Mul_11",
    ]  # fmt: skip
    assert fuses(Layer("w + QuantizeLinear_7 + Conv_9 + Add_12")) == "Conv + Add"


def test_layers_are_paired_by_a_parameter_then_by_an_operator_that_both_have_once() -> None:
    a = ["conv1.weight + QuantizeLinear_7 + Conv_9", "MaxPool_12", "fc.weight + Gemm_257"]
    b = ["fc.weight + Gemm_305", "conv1.weight + QuantizeLinear_8 + Conv_10", "MaxPool_14"]
    assert _pairs(a, b) == [(a[0], b[1]), (a[1], b[2]), (a[2], b[0])]


def test_layers_that_could_be_several_are_not_paired() -> None:
    assert _pairs(["Softmax_1", "Softmax_2"], ["Softmax_3", "Softmax_4"]) == []
    assert _pairs(["a.w + Conv_1", "b.w + Conv_2"], ["c.w + Conv_1", "d.w + Conv_2"]) == []


def test_a_copy_is_not_paired_with_the_layer_that_it_is_for() -> None:
    copy = Layer("Reformatting CopyNode for Input Tensor 0 to w + Conv_1", purpose="reformat")
    layer = Layer("w + Conv_2")
    assert paired([copy], [layer]) == []
    assert paired([copy, Layer("w + Conv_1")], [layer]) == [(Layer("w + Conv_1"), layer)]


def test_engines_of_one_network_with_other_pairs_differ_where_the_pairs_do() -> None:
    """ResNet-18 with Q/DQ on its convolutions alone, and on shortcuts and the pool too."""
    names = ("resnet18-qat", "resnet18-qat-residual-qgap")
    found = differences(*(reading.read(RECORDED / f"{name}.json") for name in names))
    writes = {x["name"].split(".weight")[0]: x.get("precision_out") for x in found["changed"]}
    assert writes["layer1.0.conv2"] == [("fp16",), ("int8",)]
    assert writes["layer4.1.conv2"] == [("fp16",), ("int8",)]
    assert sum(each == [("fp16",), ("int8",)] for each in writes.values()) == 12
    stem = next(x for x in found["changed"] if x["name"].startswith("conv1.weight"))
    assert stem["fuses"] == ["Conv", "Conv + MaxPool"]
    downsample = next(x for x in found["changed"] if "layer2.0.downsample" in x["name"])
    assert downsample["fuses"] == ["Conv + Add + Relu", "Conv"]
    lost = [name for name in found["only_a"] if name.startswith("QuantizeLinear")]
    assert len(lost) == 9
    assert [name.split("(")[0] for name in found["only_b"]] == ["copied_squeeze_after_"]
