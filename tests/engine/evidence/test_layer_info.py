"""Layer information of TensorRT 8, 10 and 11 in one schema.

The samples are recorded output of real engines; ``tests/recordings/layer_info/README.md`` says
where each comes from.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trt_qat.engine.evidence import layer_info, oneline
from trt_qat.engine.evidence.layer_info import Layer, LayerInfo
from trt_qat.engine.evidence.tactics import compute_type, is_sparse, precision_of
from trt_qat.errors import InputError

DATA = Path(__file__).parents[2] / "recordings" / "layer_info"
SAMPLES = sorted(path for path in DATA.iterdir() if path.suffix in (".json", ".txt"))


def sample(name: str) -> LayerInfo:
    return layer_info.parse((DATA / name).read_text(), name)


def named(info: LayerInfo, part: str) -> Layer:
    (layer,) = [each for each in info.layers if part in each.name and each.profile == 0]
    return layer


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_every_sample_is_read_and_read_again_from_our_own_schema(path: Path) -> None:
    info = layer_info.parse(path.read_text(), path.name)
    assert info.layers
    again = layer_info.from_schema(json.loads(json.dumps(info.to_dict())), path.name)
    assert again == info


def test_tensorrt_8_tells_formats_and_types_together() -> None:
    info = sample("8-detailed.json")
    assert info.inspector == "combined"
    conv = named(info, "Conv_121")
    assert conv.precision == "int8"
    assert conv.precision_in == ("int8", "int8")
    assert conv.precision_out == ("int8",)
    assert conv.formats_out == ("Thirty-two wide channel vectorized row major Int8 format",)
    assert conv.sparse == "dense"
    assert conv.sparse_weights is False


def test_a_quantize_layer_that_fused_with_nothing_is_told_from_a_reformat() -> None:
    layer = sample("8-detailed.json").layers[0]
    assert layer.purpose == "qdq"
    assert (layer.precision_in, layer.precision_out) == (("fp32",), ("int8",))


def test_a_kernel_without_a_name_is_not_called_dense() -> None:
    """A depthwise convolution has a number for a tactic, which tells nothing of sparsity."""
    depthwise = named(sample("8-detailed.json"), "Conv_23")
    assert depthwise.tactic == "0x0000000000000001"
    assert depthwise.sparse == "unknown"
    assert depthwise.precision == "int8"


def test_dynamic_shapes_hide_formats_and_the_kernel_still_tells_the_precision() -> None:
    info = sample("8-dynamic.json")
    conv = info.layers[1]
    assert conv.precision_in == (None,)
    assert conv.precision == "int8"
    assert info.layers[0].purpose == "reformat"


def test_the_inspector_of_8_6_writes_control_characters_and_is_read() -> None:
    """It parts the metadata of nodes by 0x1E, unescaped."""
    text = (DATA / "8.6-dynamic.json").read_text()
    with pytest.raises(json.JSONDecodeError, match="Invalid control character"):
        json.loads(text)
    conv = layer_info.parse(text).layers[3]
    assert conv.onnx == ("conv1", "add", "relu1")
    assert (conv.precision, conv.sparse, conv.sparse_weights) == ("int8", "dense", True)
    assert (conv.precision_in, conv.precision_out) == ((None, None), (None,))


def test_an_engine_of_8_6_with_one_shape_tells_types() -> None:
    info = sample("8.6-one-shape.json")
    assert info.layers[0].purpose == "qdq"
    shortcut = named(info, "layer1.0.conv3 + Add")
    assert shortcut.precision_in == ("int8", "int8")
    assert shortcut.precision_out == ("int8",)


def test_default_verbosity_tells_names_alone() -> None:
    info = sample("8-names.json")
    assert not info.detailed
    assert info.layers[0] == Layer("Conv__25 + Relu")
    assert info.layers[2].purpose == "reformat"
    assert [tensor["name"] for tensor in info.inputs_outputs] == ["x:0", "z:0"]


def test_a_sparse_int8_kernel_is_recognised() -> None:
    layer = named(sample("10-sparse.json"), "stage3_conv4")
    assert layer.sparse == "sparse"
    assert layer.sparse_weights is True
    assert layer.precision == "int8"
    assert layer.onnx == ("resnetv15_stage3_conv4_fwd", "resnetv15_stage3_batchnorm4_fwd")


def test_tensorrt_10_as_text() -> None:
    info = sample("10-oneline.txt")
    assert (info.inspector, info.detailed) == ("combined", True)
    conv = info.layers[1]
    assert conv.name == "node_conv2d + node_relu"
    assert (conv.type, conv.precision, conv.sparse) == ("CaskConvolution", "fp16", "dense")
    assert conv.onnx == ("node_conv2d", "node_relu")
    assert [layer.purpose for layer in info.layers] == [
        "reformat", "compute", "none", "none", "reformat", "compute", "compute", "compute",
    ]  # fmt: skip
    assert [tensor["name"] for tensor in info.inputs_outputs] == ["x", "y", "z"]


def test_layers_belong_to_a_profile() -> None:
    info = sample("10-oneline.txt")
    assert [layer.profile for layer in info.layers] == [0, 0, 0, 0, 0, 0, 0, 1]
    assert info.layers[-1].name == "node_conv2d_1 + node_relu_1"


def test_tensorrt_11_parts_format_and_type() -> None:
    info = sample("11-oneline.txt")
    assert info.inspector == "split"
    gemm = named(info, "node_linear")
    assert (gemm.type, gemm.precision, gemm.sparse) == ("gemm", "tf32", "dense")
    assert gemm.precision_in == ("fp32",)
    assert gemm.formats_in == ("(Linear) Row major linear format",)
    assert named(info, "__myl_Move").purpose == "reformat"
    assert named(info, "node_max_pool2d").sparse == "n/a"


def test_text_and_json_of_tensorrt_11_say_the_same() -> None:
    text, document = sample("11-oneline.txt"), sample("11.json")
    assert text.layers == document.layers
    assert document.inputs_outputs[0] == {
        "name": "x", "mode": "Input", "type": "Float", "shape": [-1, 1, 28, 28],
    }  # fmt: skip


def test_weights_of_tensorrt_11_are_no_inputs() -> None:
    """11 lists constants beside inputs; they must not count as what a layer reads."""
    assert len(named(sample("11.json"), "node_linear").precision_in) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "neither JSON nor the inspector's text"),
        ("", "neither JSON"),
        ("[]", "JSON without a list 'Layers'"),
        ('{"Layers": 3}', "JSON without a list 'Layers'"),
        ('{"Layers": [3]}', "layer 0 is '3', neither a name nor an object"),
        ('{"Layers": [{"LayerType": "x"}]}', "layer 0 is .*, neither a name nor an object"),
    ],
)
def test_what_is_no_layer_information_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        layer_info.parse(text, "file.json")


def test_an_engine_without_layers_is_read() -> None:
    assert layer_info.parse('{"Layers": [], "Bindings": []}').layers == []


def test_text_that_is_not_the_inspectors_is_not_taken_for_it() -> None:
    assert oneline.parse("Name: x\nAddress: y\n") is None


def test_names_with_commas_and_brackets_stay_whole() -> None:
    line = "Layers:\nName: PWN(a, b) + c [profile 1], LayerType: kgen, Inputs: [], Outputs: []"
    parsed = oneline.parse(line)
    assert parsed is not None
    assert parsed["Layers"][0]["Name"] == "PWN(a, b) + c [profile 1]"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Row major linear FP32", "fp32"),
        ("Channel major FP16 format where channel % 16 == 0", "fp16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Half", "fp16"),
        ("Float", "fp32"),
        ("Int64", "int64"),
        ("BFloat16", "bf16"),
        ("N/A due to dynamic shapes", None),
    ],
)
def test_the_words_for_types(text: str, kind: str | None) -> None:
    assert precision_of(text) == kind


def test_sparse_kernels_are_known_by_their_names() -> None:
    """The names of TensorRT issue 4020 and of cuSPARSELt, whose kernels TensorRT shares."""
    assert is_sparse("sm80_xmma_fprop_avdt_sparse_int8int8_tilesize64x64x64")
    assert is_sparse("sm80_xmma_sparse_gemm_f16f16_f16f32_f32_tt_t_sptensor16x8x32")
    assert not is_sparse("sm80_xmma_gemm_f16f16_f16f16_f16_tn_n_tilesize32x32x64")


def test_a_kernel_that_says_nothing_computes_in_what_it_reads() -> None:
    assert compute_type("0x01", ("int8",), ("fp32",)) == "int8"
    assert compute_type("__myl_MulAdd_0x12f16f16", (None, "fp16"), ()) == "fp16"
    assert compute_type("", (), ()) is None


def test_bare_control_characters_are_read() -> None:
    """TensorRT parts the nodes that a layer computes by a record separator."""
    text = '{"Layers": [{"Name": "a", "Metadata": "[ONNX Layer: x]\x1e[ONNX Layer: y]"}]}'
    assert layer_info.parse(text).layers[0].onnx == ("x", "y")
