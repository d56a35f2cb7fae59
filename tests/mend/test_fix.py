"""``--fix`` mends what it says, writes a new file, and the network computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto

from tests.graph.build import Builder, int8_chain, residual
from tests.lint.violations import CASES
from trt_qat.errors import GraphError, InputError
from trt_qat.lint.preflight import preflight
from trt_qat.mend.fix import fix

# Changes of scale or of rounding move outputs by a few codes; the others by nothing.
_EXACT = {"QDQ010", "QDQ106", "QDQ107", "QDQ108"}


def _saved(folder: Path, model: ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _violating(rule: str) -> ModelProto:
    return next(case for case in CASES if case.rule == rule).bad()


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
