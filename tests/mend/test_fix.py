"""``--fix`` mends what it says, writes a new file, and the network computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from tests.graph.build import Builder, int8_chain, residual
from tests.lint.violations import CASES, fixed_parameter
from trt_qat.errors import GraphError, InputError
from trt_qat.graph.qdq import Graph
from trt_qat.lint.preflight import preflight
from trt_qat.lint.validity import complaint
from trt_qat.mend.fix import fix
from trt_qat.mend.mends import quantize_shortcuts, share_concat_scales

# Changes of scale or of rounding move outputs by a few codes; the others by nothing.
_EXACT = {
    "QDQ004", "QDQ010", "QDQ017", "QDQ106", "QDQ107", "QDQ108", "QDQ119", "QDQ125", "QDQ311"
}  # fmt: skip


def _saved(folder: Path, model: ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _violating(rule: str) -> ModelProto:
    return next(case for case in CASES if case.rule == rule).bad()


def _asymmetric(kind: type[np.integer[Any]], point: int) -> ModelProto:
    """Activations and the weight as onnxruntime quantizes them by default."""
    b = Builder()
    zero = kind(point)
    x = b.qdq(b.input("x", ["N", 16, 8, 8]), 0.05, zero, name="in")
    codes = b.store("codes", b.draw.integers(0, 128, (16, 16, 3, 3)).astype(kind))
    points = np.arange(16).astype(kind)
    w = b.dequantize(codes, np.linspace(0.001, 0.002, 16, dtype=np.float32), points, axis=0)
    return b.model(b.qdq(b.conv(x, (16, 16), w=w), 0.2, zero, name="out"))


def _two_equal() -> ModelProto:
    b = Builder()
    x = b.input("x", ["N", 16, 8, 8])
    one = b.conv(b.qdq(x, 0.1, name="a"), (16, 16), "one")
    two = b.conv(b.qdq(x, 0.1, name="b"), (16, 16), "two")
    return b.model(b.qdq(one, name="out_a"), b.qdq(two, name="out_b"))


def _doubled_equal() -> ModelProto:
    b = Builder()
    x = b.qdq(b.qdq(b.input("x", ["N", 16, 8, 8]), name="a"), name="b")
    return b.model(b.qdq(b.conv(x, (16, 16)), name="out"))


def _shortcut_with_a_scale() -> ModelProto:
    b = Builder()
    first = b.conv(b.qdq(b.input("x", ["N", 16, 8, 8]), name="in"), (16, 16), "stem", relu=True)
    out = residual(b, b.qdq(first, name="block_in"), "block", shortcut=first)
    return b.model(b.qdq(out, name="out"))


_MODELS = {
    "QDQ001": lambda: _asymmetric(np.int8, 20),
    "QDQ002": lambda: _asymmetric(np.uint8, 128),
    "QDQ004": lambda: fixed_parameter("zero"),
    "QDQ017": lambda: _violating("QDQ017"),
    "QDQ119": lambda: _violating("QDQ119"),
    "QDQ125": lambda: _violating("QDQ125"),
    "QDQ311": lambda: _violating("QDQ311"),
    "QDQ010": lambda: _violating("QDQ010"),
    "QDQ101": _shortcut_with_a_scale,
    "QDQ102": lambda: _violating("QDQ102"),
    "QDQ103": lambda: _violating("QDQ103"),
    "QDQ106": _two_equal,
    "QDQ107": lambda: _violating("QDQ107"),
    "QDQ108": _doubled_equal,
}


@pytest.mark.parametrize("rule", _MODELS)
def test_mend_removes_the_finding_and_adds_none(tmp_path: Path, rule: str) -> None:
    path, out = _saved(tmp_path, _MODELS[rule]()), tmp_path / "mended.onnx"
    before = path.read_bytes()
    assert rule in {finding.rule for finding in preflight(path).findings}
    report = fix(path, out)
    assert rule in {change.rule for change in report.changes}
    assert {f.rule for f in preflight(out).findings if f.severity != "info"} == set()
    assert rule not in {f.rule for f in preflight(out).findings}
    assert path.read_bytes() == before


@pytest.mark.parametrize("rule", _MODELS)
def test_mend_keeps_what_the_network_computes(tmp_path: Path, rule: str) -> None:
    report = fix(_saved(tmp_path, _MODELS[rule]()), tmp_path / "mended.onnx")
    assert report.not_compared == ""
    assert report.largest_difference is not None
    assert report.largest_output
    bound = 1e-6 if rule in _EXACT else 0.1 * report.largest_output
    assert report.largest_difference <= bound


def test_the_difference_is_measured(tmp_path: Path) -> None:
    """Raising a concat's scale from 0.1 to 0.25 cannot leave every output as it was."""
    report = fix(_saved(tmp_path, _violating("QDQ102")), tmp_path / "mended.onnx")
    assert report.largest_difference is not None
    assert report.largest_difference > 0


def test_the_largest_scale_is_shared(tmp_path: Path) -> None:
    out = tmp_path / "mended.onnx"
    fix(_saved(tmp_path, _violating("QDQ102")), out)
    model = onnx.load(out)
    scales = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    shared = next(value for name, value in scales.items() if name.endswith("shared_scale"))
    assert shared == np.float32(0.25)


@pytest.mark.parametrize(("rule", "op"), [("QDQ102", "Concat"), ("QDQ101", "Add")])
def test_an_operator_of_another_domain_is_not_taken_for_onnxs(rule: str, op: str) -> None:
    """It may compute anything, whatever its name; nobody here can run it to compare."""
    model = _violating(rule)
    assert any(mend(Graph(model)) for mend in (share_concat_scales, quantize_shortcuts))
    model = _violating(rule)
    for node in model.graph.node:
        if node.op_type == op:
            node.domain = "com.example"
    assert not any(mend(Graph(model)) for mend in (share_concat_scales, quantize_shortcuts))


def test_nothing_to_mend_writes_the_model_as_it_was(tmp_path: Path) -> None:
    path = _saved(tmp_path, int8_chain().model("out_dq_out"))
    report = fix(path, tmp_path / "mended.onnx")
    assert report.changes == ()
    assert report.largest_difference == 0
    assert (tmp_path / "mended.onnx").read_bytes() == path.read_bytes()


def test_only_selected_rules_are_mended(tmp_path: Path) -> None:
    path = _saved(tmp_path, _violating("QDQ103"))
    assert fix(path, tmp_path / "a.onnx", ignore=["QDQ103"]).changes == ()
    assert fix(path, tmp_path / "b.onnx", select=["QDQ102"]).changes == ()


def test_a_folded_cast_is_a_constant_scale(tmp_path: Path) -> None:
    b = Builder()
    x = b.input("x", [1, 16])
    scale = b.node("Cast", b.store("s", np.float16(0.1)), to=TensorProto.FLOAT, name="cast")
    codes = b.node("QuantizeLinear", x, scale, b.store("z", np.int8(0)), name="q")
    path = _saved(tmp_path, b.model(b.node("DequantizeLinear", codes, scale, "z", name="dq")))
    report = fix(path, tmp_path / "mended.onnx")
    assert [change.node for change in report.changes] == ["cast"]
    assert report.largest_difference == 0


def test_external_weights_end_inside_the_mended_file(tmp_path: Path) -> None:
    model = _violating("QDQ103")
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    fix(path, tmp_path / "mended.onnx")
    mended = onnx.load(tmp_path / "mended.onnx", load_external_data=False)
    assert not any(tensor.external_data for tensor in mended.graph.initializer)


def test_the_model_is_not_overwritten(tmp_path: Path) -> None:
    path = _saved(tmp_path, int8_chain().model("out_dq_out"))
    with pytest.raises(InputError, match="would overwrite the one it is made from"):
        fix(path, path)


def test_a_damaged_model_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"damaged")
    with pytest.raises(GraphError, match="no ONNX model"):
        fix(path, tmp_path / "mended.onnx")
    assert set(tmp_path.iterdir()) == {path}


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    path = _saved(tmp_path, int8_chain().model("out_dq_out"))
    fix(path, tmp_path / "new" / "mended.onnx")
    assert (tmp_path / "new" / "mended.onnx").is_file()


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    path = _saved(tmp_path, int8_chain().model("out_dq_out"))
    with pytest.raises(InputError, match="cannot be written"):
        fix(path, path / "mended.onnx")


def test_symmetric_codes_reach_as_far_as_the_asymmetric_ones(tmp_path: Path) -> None:
    out = tmp_path / "mended.onnx"
    report = fix(_saved(tmp_path, _asymmetric(np.uint8, 100)), out)
    assert {change.rule for change in report.changes} == {"QDQ002"}
    pair = Graph.from_file(out).pairs[0]
    assert pair.scaling.scale == pytest.approx(155 * 0.05 / 127)  # from -5.0 to 7.75
    assert pair.scaling.code_type == TensorProto.INT8
    assert pair.scaling.zero_point == 0


def test_weights_keep_their_values_to_half_a_step_of_the_new_grid(tmp_path: Path) -> None:
    path, out = _saved(tmp_path, _asymmetric(np.int8, 0)), tmp_path / "mended.onnx"
    fix(path, out)
    before, _ = _weight_of(path)
    after, step = _weight_of(out)
    assert np.all(np.abs(before - after) <= 0.5001 * step)


def _weight_of(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values of the only Conv's weight and the steps of its channels."""
    graph = Graph.from_file(file)
    weight = graph.quantized_weight(next(n for n in graph.nodes if n.op == "Conv"))
    assert weight is not None
    assert weight.scaling is not None
    assert weight.scaling.scale is not None
    assert weight.scaling.zero_point is not None
    step = weight.scaling.scale.reshape(-1, 1, 1, 1)
    point = weight.scaling.zero_point.astype(np.float32).reshape(-1, 1, 1, 1)
    return (graph.weight_values(weight).astype(np.float32) - point) * step, step


@pytest.mark.parametrize(
    ("kind", "rule"), [(QuantType.QUInt8, "QDQ002"), (QuantType.QInt8, "QDQ001")]
)
def test_onnxruntimes_default_quantization_becomes_what_tensorrt_takes(
    tmp_path: Path, kind: QuantType, rule: str
) -> None:
    """Asymmetric activations and a quantized bias: the file of most first attempts."""
    b = Builder()
    y = b.conv(b.input("x", [1, 16, 8, 8]), (16, 16), "one", quantized=False, relu=True)
    y = b.conv(y, (16, 16), "two", quantized=False)
    path, quantized = _saved(tmp_path, b.model(y)), tmp_path / "quantized.onnx"
    quantize_static(path, quantized, _Reader(), per_channel=True, activation_type=kind)
    assert {rule, "QDQ010"} <= {f.rule for f in preflight(quantized).findings}
    out = tmp_path / "mended.onnx"
    report = fix(quantized, out)
    assert preflight(out).count("error") == 0
    assert report.largest_output is not None
    assert report.largest_difference is not None
    assert 0 < report.largest_difference < 0.1 * report.largest_output


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        draw = np.random.default_rng(0)
        self.left = [draw.standard_normal((1, 16, 8, 8)).astype(np.float32) for _ in range(4)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return {"x": self.left.pop()} if self.left else None


def test_a_pair_behind_a_pad_of_codes_is_taken_off(tmp_path: Path) -> None:
    b = Builder()
    x = b.qdq(b.input("x", ["N", 16, 8, 8]), name="in")
    x = b.node("Pad", x, b.store("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1])), name="pad")
    model = b.model(b.qdq(b.conv(b.qdq(x, name="again"), (16, 16)), name="out"))
    report = fix(_saved(tmp_path, model), tmp_path / "mended.onnx")
    assert "reads codes already" in report.changes[0].what
    assert report.largest_difference == 0
    assert len(Graph.from_file(tmp_path / "mended.onnx").pairs) == 2


def test_a_pad_of_another_value_keeps_its_pair(tmp_path: Path) -> None:
    b = Builder()
    y = b.conv(b.qdq(b.input("x", ["N", 16, 8, 8]), name="in"), (16, 16), "one", relu=True)
    pads = b.store("pads", np.array([0, 0, 0, 0, 0, 0, 1, 1]))
    y = b.qdq(b.node("Pad", y, pads, b.store("seven", 7.0), name="pad"), name="mid")
    path = _saved(tmp_path, b.model(b.qdq(b.conv(y, (16, 16), "two"), name="out")))
    assert fix(path, tmp_path / "mended.onnx").changes == ()


def test_zero_points_are_added_for_tensorrt_8_alone(tmp_path: Path) -> None:
    path = _saved(tmp_path, _violating("QDQ312"))
    assert fix(path, tmp_path / "new.onnx", tensorrt="10.3").changes == ()
    report = fix(path, tmp_path / "old.onnx", tensorrt="8.5")
    assert [change.rule for change in report.changes] == ["QDQ312"]
    assert preflight(tmp_path / "old.onnx", tensorrt="8.5").findings == ()


def test_a_mended_model_is_sorted_and_valid(tmp_path: Path) -> None:
    fix(_saved(tmp_path, _violating("QDQ119")), tmp_path / "mended.onnx")
    graph = Graph.from_file(tmp_path / "mended.onnx")
    assert [node.index for node in graph.nodes] == list(range(len(graph.nodes)))
    assert complaint(graph) == ""
