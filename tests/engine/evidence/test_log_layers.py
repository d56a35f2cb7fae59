"""A builder's layer lines, from TensorRT 8.0 to 11: names, types and what is a lone Q or DQ."""

from __future__ import annotations

from typing import Any

import pytest

from trt_qat.engine.evidence.build_log import parse
from trt_qat.engine.evidence.layer_info import from_document
from trt_qat.engine.evidence.log_layers import line_entry

FORMS = {
    "8.0, decimal tactic": (
        "Layer(Reformat): Reformatting CopyNode for Input Tensor 0 to Conv_0, Tactic: 0, "
        "images[Float(1,3,64,64)] -> Reformatted Input Tensor 0 to Conv_0[Int8(1,3,64,64)]",
        ["fp32"], ["int8"],
    ),
    "8.2": (
        "Layer(CaskConvolution): head.weight + QuantizeLinear_4 + Conv_6, Tactic: 0x91a0ba60, "
        "1305[Int8(1,64,20,20)] -> Reformatted Output Tensor 0 to head.weight + Conv_6"
        "[Half(1,2,20,20)]",
        ["int8"], ["fp16"],
    ),
    "8.5, vectors of 32 channels, two inputs": (
        "Layer(CaskConvolution): b.weight + QuantizeLinear_9 + Conv_13 + Add_14, "
        "Tactic: 0x11123639b0546a5d, 581 (Int8[1,96:32,80,91]), 577 (Int8[1,64:32,80,91]) -> "
        "596 (Int8[1,64:32,80,91])",
        ["int8", "int8"], ["int8"],
    ),
    "10, a name with an arrow's parts and brackets": (
        "Layer(Myelin): {ForeignNode[gemm1.weight...ONNXTRT_castHelper_9]}, Tactic: 0x0,"
        " (Unnamed Layer* 3) [Shuffle]_output (Float[1,64]) -> y (Float[1,10]), z (Int64[1])",
        ["fp32"], ["fp32", "int64"],
    ),
    "11, named kernel": (
        "Layer(kgen): __myl_MulAdd_myl0_1, Tactic: __myl_MulAdd_0x2f56, x (BFloat16[1,8]) -> "
        "y (FP8[1,8])",
        ["bf16"], ["fp8"],
    ),
    "a constant has no input": (
        "Layer(Constant): shape, Tactic: 0x0000000000000000,  -> s (Int32[1])", [], ["int32"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("indent", ["", "    ", "\t"])
def test_lines_may_be_indented_as_polygraphy_prints_them(indent: str) -> None:
    line, read, _ = FORMS["8.2"]
    (entry,) = parse(f"[V] Engine Layer Information:\n{indent}{line}\n").layers
    (layer,) = from_document({"Layers": [entry]}, "log").layers
    assert list(layer.precision_in) == read


def test_a_region_of_many_operations_claims_no_type_that_it_need_not_compute_in() -> None:
    line = "Layer(Myelin): {ForeignNode[a...b]}, Tactic: 0x0, x (Int8[1,8]) -> y (Half[1,8])"
    (layer,) = from_document({"Layers": [line_entry(line)]}, "line").layers
    assert (layer.purpose, layer.precision) == ("compute", None)


@pytest.mark.parametrize("kind", ["Constant", "Shape", "NoOp"])
def test_what_runs_no_kernel_computes_in_nothing(kind: str) -> None:
    (entry,) = [line_entry(f"Layer({kind}): s, Tactic: 0x0,  -> s (Int8[4])")]
    (layer,) = from_document({"Layers": [entry]}, "line").layers
    assert (layer.purpose, layer.precision) == ("none", None)


@pytest.mark.parametrize("form", FORMS)
def test_types_stand_in_the_line(form: str) -> None:
    line, read, written = FORMS[form]
    (layer,) = from_document({"Layers": [line_entry(line)]}, form).layers
    assert [list(layer.precision_in), list(layer.precision_out)] == [read, written]


@pytest.mark.parametrize(
    ("name", "kind", "purpose"),
    [
        ("QuantizeLinear_2", "Reformat", "qdq"),
        ("DequantizeLinear_374 + QuantizeLinear_378_clone_4", "Scale", "qdq"),
        ("/backbone/conv1/_input_quantizer/QuantizeLinear", "Reformat", "qdq"),
        ("Reformatting CopyNode for Input Tensor 0 to QuantizeLinear_2", "Reformat", "reformat"),
        ("w + QuantizeLinear_9 + Conv_13", "CaskConvolution", "compute"),
    ],
)
def test_a_quantizer_that_fused_with_nothing_is_one(name: str, kind: str, purpose: str) -> None:
    line = f"Layer({kind}): {name}, Tactic: 0x1, x (Float[1,8]) -> y (Int8[1,8])"
    (layer,) = from_document({"Layers": [line_entry(line)]}, "line").layers
    assert layer.purpose == purpose


LISTED = """\
[01/10/2024-21:55:13] [I] Layer Information:
[01/10/2024-21:55:13] [I] [TRT] [MemUsageChange] Init CUDA: CPU +0, GPU +0, now: CPU 1, GPU 2 (MiB)
[01/10/2024-21:55:13] [I] Layers:
Name: q, LayerType: Reformat, Inputs: [ { Name: x, Dimensions: [1,3,8,8], Format/Datatype: Row \
major linear FP32 }], Outputs: [ { Name: c, Dimensions: [1,3,8,8], Format/Datatype: Row major Int8 \
format }], Origin: QDQ, TacticValue: 0x3ea
[01/10/2024-21:55:13] [W] [TRT] a message of stderr
Name: w + q/Q + conv, LayerType: CaskConvolution, Inputs: [ { Name: c, Dimensions: [1,3,8,8], \
Format/Datatype: Row major Int8 format }], Outputs: [ { Name: y, Dimensions: [1,8,8,8], \
Format/Datatype: Row major Int8 format }], TacticName: ampere_imma_fwd, TacticValue: 0x9a

Bindings:
x
y
[01/10/2024-21:55:14] [I] Starting inference
"""


def listed(text: str) -> dict[str, Any]:
    found = parse(text).listing
    assert found is not None
    return found


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_inspectors_text_is_found_among_trtexecs_messages(end: str) -> None:
    found = listed(LISTED.replace("\n", end))
    assert [layer["Name"] for layer in found["Layers"]] == ["q", "w + q/Q + conv"]
    assert found["Bindings"] == ["x", "y"]


def test_a_log_that_breaks_off_gives_the_layers_before() -> None:
    cut = LISTED[: LISTED.index("\n\nBindings:")]
    assert len(listed(cut)["Layers"]) == 2


def test_names_alone_are_layers_too() -> None:
    text = "[I] Layers:\nconv1 + relu\nfc\n\nBindings:\nx\n[I] Starting inference\n"
    assert listed(text) == {"Layers": ["conv1 + relu", "fc"], "Bindings": ["x"]}
