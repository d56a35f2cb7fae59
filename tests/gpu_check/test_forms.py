"""Forms of one network that are derived instead of carried: the same codes, the same function."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from benchmarks.gpu import forms, net
from trt_qat.runners.ort import OrtRunner


def answer(path: Path) -> NDArray[Any]:
    with OrtRunner(path) as runner:
        return runner.infer(net.feed(2, channels=16, size=6))[net.OUTPUT]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return net.write(tmp_path / "dense.onnx", channels=16, size=6)


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_float_weights_give_the_same_codes(small: Path, tmp_path: Path) -> None:
    path = forms.file_of(tmp_path, "dense", tmp_path / "made", weights="fp32")
    assert np.array_equal(answer(path), answer(small))
    assert operators(path)["QuantizeLinear"] == operators(small)["QuantizeLinear"] + 2
    kinds = {t.name: t.data_type for t in onnx.load(path).graph.initializer}
    assert kinds["conv0_weight_codes.float"] == onnx.TensorProto.FLOAT


def test_a_missing_zero_point_is_written_because_quantize_would_take_uint8(
    small: Path, tmp_path: Path
) -> None:
    model = onnx.load(small)
    for node in model.graph.node:
        if node.name == "conv0_weight_dq":
            del node.input[2]
    onnx.save(model, tmp_path / "two.onnx")
    onnx.save(forms.with_float_weights(model), tmp_path / "made.onnx")
    assert np.array_equal(answer(tmp_path / "made.onnx"), answer(small))


def test_int8_weights_are_float_weights_undone(small: Path, tmp_path: Path) -> None:
    floats = forms.with_float_weights(onnx.load(small))
    onnx.save(forms.with_int8_weights(floats), tmp_path / "back.onnx")
    assert np.array_equal(answer(tmp_path / "back.onnx"), answer(small))
    assert operators(tmp_path / "back.onnx") == operators(small)


def test_the_float_network_has_no_pair_and_computes_nearly_the_same(
    small: Path, tmp_path: Path
) -> None:
    path = forms.file_of(tmp_path, "fp32", tmp_path / "made")
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(operators(path))
    want, got = answer(small), answer(path)
    assert 0 < np.abs(want - got).max() < 0.1 * np.abs(want).max()


def test_a_derived_file_is_made_once(small: Path, tmp_path: Path) -> None:
    first = forms.file_of(tmp_path, "fp32", tmp_path / "made")
    stamp = first.stat().st_mtime_ns
    assert forms.file_of(tmp_path, "fp32", tmp_path / "made").stat().st_mtime_ns == stamp
    assert forms.file_of(tmp_path, "dense", tmp_path / "made") == small


def test_an_output_behind_a_pair_keeps_its_name(tmp_path: Path) -> None:
    builder = onnx.helper
    graph = builder.make_graph(
        [
            builder.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            builder.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        "pair",
        [builder.make_tensor_value_info("x", 1, [2])],
        [builder.make_tensor_value_info("y", 1, [2])],
        [
            onnx.numpy_helper.from_array(np.float32(0.5), "s"),
            onnx.numpy_helper.from_array(np.int8(0), "z"),
        ],
    )
    model = builder.make_model(graph, opset_imports=[builder.make_opsetid("", 17)], ir_version=8)
    onnx.save(forms.without_pairs(model), tmp_path / "m.onnx")
    with OrtRunner(tmp_path / "m.onnx") as runner:
        assert runner.infer({"x": np.array([0.3, 2.0], np.float32)})["y"].tolist() == pytest.approx(
            [0.3, 2]
        )


@pytest.mark.parametrize(("version", "pairs"), [((8, 6), 4), ((10, 0), 2)])
def test_the_small_network_is_in_the_form_that_the_version_is_documented_for(
    small: Path, tmp_path: Path, version: tuple[int, int], pairs: int
) -> None:
    path = net.write_for(version, tmp_path / "m.onnx", channels=16, size=6)
    assert operators(path)["QuantizeLinear"] == pairs
    assert np.array_equal(answer(path), answer(small))
