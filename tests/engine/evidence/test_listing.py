"""The compiler's own listing: what it tells of every kernel, and what it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trt_qat.engine.evidence import layer_info
from trt_qat.engine.evidence.differences import differences
from trt_qat.engine.evidence.listing import Kernel, Listing, Tensor, ends_in_int8, listing_of
from trt_qat.engine.evidence.reading import read

DATA = Path(__file__).parents[2] / "recordings" / "rtx"
LOG = DATA / "resnet18.dense.SM89.log"
VIT = DATA / "vit_explicit.dense.SM89.txt"
TURING = DATA / "resnet18.dense16.SM75.txt"


def listing(path: Path) -> Listing:
    found = listing_of(path.read_text())
    assert found is not None
    return found


def kernel(found: Listing, name: str) -> Kernel:
    return next(each for each in found.kernels if each.name.startswith(name) and each.multiplies)


def test_a_verbose_log_is_read_as_it_is() -> None:
    document = read(LOG)
    assert document["census"]["layers"] == 41
    assert document["memory"] == {
        "scratch_bytes": 8355840,
        "activation_bytes": 8355840,
        "weight_bytes": 731652,
    }
    assert "not what TensorRT 8 to 11 build" in document["scope"]


def test_inputs_and_outputs_have_names_though_their_lines_are_indented() -> None:
    (given, made) = read(LOG)["inputs_outputs"]
    assert given == {"name": "x", "mode": "Input", "type": "Float", "shape": [8, 3, 32, 32]}
    assert made["name"] == "linear"


def test_a_convolution_reads_and_multiplies_codes_and_writes_float() -> None:
    conv = kernel(listing(LOG), "layer1.0.conv1")
    assert conv.type == "correlation"
    assert conv.precision == "int8"
    assert [tensor.dtype for tensor in conv.outputs] == ["Float"]
    assert conv.outputs[0].dims == (8, 16, 8, 8)
    assert conv.outputs[0].size == 8 * 16 * 8 * 8 * 4


def test_the_kernel_generated_behind_it_ends_in_codes() -> None:
    found = listing(LOG)
    assert ends_in_int8(found.kernels, kernel(found, "layer1.0.conv1"))
    head = next(each for each in found.kernels if "CastMulFc" in each.name)
    assert not ends_in_int8(found.kernels, head)


def test_a_product_whose_kernel_dequantizes_its_weight_is_float() -> None:
    fused = [each for each in listing(VIT).kernels if "CastMulFc" in each.name]
    assert fused
    assert {each.precision for each in fused} == {"fp32"}
    layers = layer_info.parse(VIT.read_text()).layers
    assert {layer.precision for layer in layers if "CastMulFc" in layer.name} == {"fp32"}


def test_turing_has_no_int8_convolution() -> None:
    products = [each for each in listing(TURING).kernels if each.type == "correlation"]
    assert products
    assert {each.precision for each in products} == {"fp16"}


@pytest.mark.parametrize("path", [LOG, VIT, TURING], ids=lambda path: path.name)
def test_neither_sparsity_nor_tactics_are_claimed(path: Path) -> None:
    document = read(path)
    assert set(document["census"]["sparse"]) <= {"unknown", "n/a"}
    assert {layer["tactic"] for layer in document["layers"]} == {"unknown"}
    assert document["sparsity"] is None


def test_bytes_of_layers_add_up_to_those_of_the_whole() -> None:
    document = read(LOG)
    for key in ("bytes_read", "bytes_written"):
        told = [layer[key] for layer in document["layers"] if key in layer]
        assert sum(told) <= document["traffic"][key]
    assert document["traffic"] == {
        "kernels": 41,
        "bytes_read": 677184,
        "bytes_written": 541312,
        "bytes_constants": 733284,
    }
    conv = next(layer for layer in document["layers"] if layer["type"] == "correlation")
    assert conv["bytes_written"] == 8 * 16 * 16 * 16 * 4
    assert conv["epilogue_int8"] is True


def test_open_shapes_tell_no_sizes() -> None:
    open_ = LOG.read_text().replace("[8,", "[-1,")
    found = listing_of(open_)
    assert found is not None
    assert found.traffic()["bytes_read"] is None
    assert found.traffic()["kernels"] == 41
    assert Tensor("x", "Float", (-1, 3)).size is None
    assert Tensor("x", "Int4", (3, 4)).size == 6


def test_sizes_come_from_the_same_network_with_its_shapes_fixed() -> None:
    open_, fixed = listing_of(LOG.read_text().replace("[8,", "[-1,")), listing(LOG)
    assert open_ is not None
    assert all(layer.bytes_read is None for layer in open_.info().layers)
    sized = open_.info(fixed).layers
    assert sum(layer.bytes_read is not None for layer in sized) > 30


def test_a_document_of_ours_reads_back(tmp_path: Path) -> None:
    document = read(LOG)
    (tmp_path / "layers.json").write_text(json.dumps(document))
    assert read(tmp_path / "layers.json") == document


def test_two_builds_are_set_against_each_other() -> None:
    found = differences(read(LOG), read(TURING))
    changed = {entry["name"]: entry for entry in found["changed"]}
    assert any(entry.get("precision") == ["int8", "fp16"] for entry in changed.values())


def test_a_log_without_a_listing_tells_none() -> None:
    assert listing_of("[I] Engine generation completed\n") is None
    assert listing_of("[V] Layers:\nnothing of the kind\n") is None
