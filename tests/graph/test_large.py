"""Models of more weights than one file holds go through every command, their weights outside."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto

from tests.graph.build import Builder
from trt_qat.comparison.compare import compare
from trt_qat.graph import large
from trt_qat.graph.load import embed_weights, load_graph
from trt_qat.graph.tensors import is_external
from trt_qat.lint.preflight import preflight
from trt_qat.mend.fix import Half, fix

pytestmark = pytest.mark.usefixtures("limit")


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one file hold a hundred kilobytes at most."""
    monkeypatch.setattr(large, "LARGE_BYTES", 100_000)
    monkeypatch.setattr(large, "SMALL_BYTES", 4_096)


def network() -> ModelProto:
    """Weights of 36 and 147 kB, INT8 and float, and a pair that stands twice."""
    b = Builder()
    x = b.qdq(b.qdq(b.input("x", ["N", 64, 6, 6]), name="a"), name="b")
    inner = b.conv(x, (64, 64), "quantized")
    w = b.store("w", b.draw.normal(0, 0.01, (64, 64, 3, 3)).astype(np.float32))
    return b.model(b.conv(inner, (64, 64), "float", w=w))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The network in a file, its weights in another."""
    path = tmp_path / "in" / "model.onnx"
    path.parent.mkdir()
    onnx.save(network(), path, save_as_external_data=True, location="w.bin", size_threshold=1024)
    return path


@pytest.mark.parametrize(("most", "large_"), [(10_000_000, False), (100_000, True)])
def test_a_file_is_large_by_its_weights_wherever_they_lie(
    most: int, large_: bool, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "LARGE_BYTES", most)
    onnx.save(network(), tmp_path / "whole.onnx")
    assert large.is_large_file(model) == large_
    assert large.is_large_file(tmp_path / "whole.onnx") == large_
    assert not large.is_large_file(tmp_path / "none.onnx")


def outside(path: Path) -> dict[str, Path]:
    """Return where the weights lie that are not in a file, by name."""
    proto = onnx.load(path, load_external_data=False)
    return {
        t.name: path.parent / next(e.value for e in t.external_data if e.key == "location")
        for t in proto.graph.initializer
        if is_external(t)
    }


def answers(path: Path) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(str(path), options)
    x = np.random.default_rng(0).normal(size=(2, 64, 6, 6)).astype(np.float32)
    return np.asarray(session.run(None, {"x": x})[0])


def test_a_mended_copy_has_its_weights_beside_it(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "fixed.onnx"
    report = fix(model, out)
    assert "QDQ108" in {change.rule for change in report.changes}
    assert report.largest_difference == 0.0
    assert not report.not_compared
    (data,) = set(outside(out).values())
    assert data.parent == out.parent
    assert sorted(p.name for p in out.parent.iterdir()) == sorted(["fixed.onnx", data.name])
    np.testing.assert_array_equal(answers(out), answers(model))
    assert all(f.severity != "error" for f in preflight(out).findings)
    assert sum(p.stat().st_size for p in out.parent.iterdir()) < 250_000


def test_the_cast_to_fp16_reads_weights_one_by_one(model: Path, tmp_path: Path) -> None:
    report = fix(model, tmp_path / "half.onnx", half=Half())
    assert any(change.rule == "QDQ201" for change in report.changes)
    half = onnx.load(tmp_path / "half.onnx")
    assert {t.data_type for t in half.graph.initializer} >= {onnx.TensorProto.FLOAT16}
    np.testing.assert_allclose(answers(tmp_path / "half.onnx"), answers(model), atol=0.05)


def test_compare_taps_it_without_holding_its_weights(model: Path) -> None:
    held = embed_weights(load_graph(model))
    assert {t.name for t in held.graph.initializer if is_external(t)} == {"quantized_codes", "w"}
    feed = {"x": np.random.default_rng(1).normal(size=(2, 64, 6, 6)).astype(np.float32)}
    result = compare(f"ort:{model}", f"ort:{model}", feed, layers=True)
    assert result.passed
    assert result.layers is not None


def test_a_session_of_it_folds_nothing_and_is_open_only_while_it_runs(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each session would else hold the weights twice: folded, and packed for its kernels."""
    opened: list[Any] = []
    session = onnxruntime.InferenceSession

    def watched(source: object, sess_options: Any, **more: Any) -> Any:
        sess_options.optimized_model_filepath = str(tmp_path / f"{len(opened)}.onnx")
        found = session(source, sess_options, **more)
        opened.append(weakref.ref(found))
        return found

    monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
    feed = {"x": np.random.default_rng(1).normal(size=(2, 64, 6, 6)).astype(np.float32)}
    result = compare(f"ort:{model}", f"ort:{model}", feed, layers=True)
    assert result.passed
    assert len(opened) >= 5
    gc.collect()
    assert not any(each() for each in opened)
    for number in range(len(opened)):
        ran = onnx.load(tmp_path / f"{number}.onnx", load_external_data=False)
        assert "DequantizeLinear" in {
            node.op_type for node in ran.graph.node if "quantized_codes" in node.input
        }
    monkeypatch.setattr(large, "LARGE_BYTES", 1_000_000)
    held = compare(f"ort:{model}", f"ort:{model}", feed, layers=True)
    assert held.layers == result.layers


def test_weights_that_are_few_come_inside(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    located = load_graph(model)
    monkeypatch.setattr(large, "LARGE_BYTES", 1_000_000)
    large.write(located, tmp_path / "whole.onnx")
    assert outside(tmp_path / "whole.onnx") == {}
    np.testing.assert_array_equal(answers(tmp_path / "whole.onnx"), answers(model))
    assert not any(map(is_external, embed_weights(located).graph.initializer))


def test_an_older_pair_of_graph_and_weights_is_taken_away(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    large.write(load_graph(model), out)
    before = set(outside(out).values())
    changed = embed_weights(load_graph(model))
    (weight,) = (t for t in changed.graph.initializer if t.name == "w")
    large.hold(weight)
    weight.raw_data = bytes(len(weight.raw_data))
    large.write(changed, out)
    assert not {path for path in before if path.exists()}
    assert all(path.is_file() for path in outside(out).values())
