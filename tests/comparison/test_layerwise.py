"""The layer that makes an error is named, and a layer that only passes one on is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import trt_qat as tq
from tests.faults import FAULTS, Fault, dropped_bias, replaced_layer
from tests.runners.test_ort import feed, linear_onnx
from trt_qat.comparison import compare as comparison
from trt_qat.comparison.layerwise import LayerComparison, compare_layers
from trt_qat.engine.build.typed import typed_onnx
from trt_qat.errors import DataError, GraphError
from trt_qat.measure import metrics
from trt_qat.measure.difference import CHUNK, Difference
from trt_qat.qat.models import REFERENCE_MODELS
from trt_qat.qat.runner import TorchRunner
from trt_qat.qat.tapped import TorchTapped
from trt_qat.runners.ort import OrtRunner
from trt_qat.runners.ort_tapped import OrtTapped
from trt_qat.runners.protocol import Feed, Outputs

BATCH = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
FEED = {"x": BATCH.numpy()}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    model = REFERENCE_MODELS["residual_cnn"](in_channels=1, num_classes=10, widths=(16, 32))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
    model = tq.quantize(model, [BATCH]).eval()
    return model, tq.export(model, BATCH, tmp_path_factory.mktemp("layers") / "model.onnx")


def injected(exported: tuple[nn.Module, Path], folder: Path, number: int, seed: int = 0) -> Fault:
    fault = FAULTS[number](onnx.load(exported[1]), np.random.default_rng(seed))
    assert fault is not None
    onnx.save(fault.model, folder / "faulty.onnx")
    return fault


def test_no_layer_of_the_export_diverges_from_torch(exported: tuple[nn.Module, Path]) -> None:
    model, path = exported
    found = compare_layers(TorchTapped(model), OrtTapped(path), [FEED])
    assert found.first_divergence is None
    local = [layer.local_sqnr_db for layer in found.layers if layer.local_sqnr_db is not None]
    assert min(local) > 100, "float rounding alone"
    names = {layer.name for layer in found.layers}
    assert {"stem.0", "stages.1.shortcut.0", "qdq.x/DequantizeLinear"} <= names


def test_torch_tensors_are_those_with_batch_norm_folded_in(
    exported: tuple[nn.Module, Path],
) -> None:
    """The Conv of the graph is the Conv and the BatchNorm of the model."""
    model, path = exported
    found = compare_layers(TorchTapped(model), OrtTapped(path), [FEED])
    convolutions = [layer for layer in found.layers if layer.op == "Conv"]
    assert len(convolutions) == sum(isinstance(m, nn.Conv2d) for m in model.modules())


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=lambda n: FAULTS[n].__name__)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_fault_is_named_by_its_node(
    exported: tuple[nn.Module, Path], tmp_path: Path, number: int, seed: int
) -> None:
    fault = injected(exported, tmp_path, number, seed)
    found = tq.compare(f"ort:{exported[1]}", f"ort:{tmp_path / 'faulty.onnx'}", FEED)
    assert found.first_divergence is not None
    assert found.first_divergence.name == fault.node


def test_a_fault_is_named_against_torch_too(
    exported: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    fault = injected(exported, tmp_path, FAULTS.index(dropped_bias))
    found = compare_layers(
        TorchTapped(exported[0]), OrtTapped(tmp_path / "faulty.onnx"), [FEED]
    ).first_divergence
    assert found is not None
    assert found.name == fault.node


def test_layers_behind_a_fault_differ_but_have_no_error_of_their_own(
    exported: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    fault = injected(exported, tmp_path, FAULTS.index(replaced_layer))
    found = compare_layers(OrtTapped(exported[1]), OrtTapped(tmp_path / "faulty.onnx"), [FEED])
    position = next(i for i, layer in enumerate(found.layers) if layer.name == fault.node)
    before, behind = found.layers[:position], found.layers[position + 1 :]
    assert all(layer.sqnr_db is None for layer in before)
    assert any(layer.sqnr_db is not None and layer.sqnr_db < 40 for layer in behind)
    assert all(layer.local_sqnr_db is None for layer in behind)


def test_smaller_batches_give_the_same_numbers(exported: tuple[nn.Module, Path]) -> None:
    model, path = exported
    whole = compare_layers(TorchTapped(model), OrtTapped(path), [FEED])
    pieces = compare_layers(TorchTapped(model), OrtTapped(path), [FEED], memory_bytes=1)
    for one, other in zip(whole.layers, pieces.layers, strict=True):
        assert one.max_abs == pytest.approx(other.max_abs, abs=1e-5)
        assert one.saturated == other.saturated


@pytest.mark.parametrize("memory_bytes", [1, 1_000_000_000])
def test_a_model_of_a_fixed_batch_is_compared_whole(
    exported: tuple[nn.Module, Path], tmp_path: Path, memory_bytes: int
) -> None:
    """It takes no smaller batch, neither to measure memory on nor to save any."""
    model = onnx.load(exported[1])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = len(BATCH)
    onnx.save(model, tmp_path / "fixed.onnx")
    fixed = OrtTapped(tmp_path / "fixed.onnx")
    for ref in (OrtTapped(tmp_path / "fixed.onnx"), TorchTapped(exported[0])):
        found = compare_layers(ref, fixed, [FEED], memory_bytes=memory_bytes)
        assert found.layers
        assert found.first_divergence is None


def test_runs_into_used_memory_give_what_fresh_ones_do(
    exported: tuple[nn.Module, Path],
) -> None:
    """The second and third batch overwrite the tensors of the first; the last is a smaller one."""
    model, path = exported
    tapped = OrtTapped(path)
    names = list(TorchTapped(model).match(tapped.taps))
    draw = np.random.default_rng(5)
    for count in (3, 3, 3, 2):
        feed = {"x": draw.normal(size=(count, 1, 8, 8)).astype(np.float32)}
        again = {name: array.copy() for name, array in tapped.observe(feed, names).items()}
        fresh = OrtTapped(path).observe(feed, names)
        assert all((again[name] == fresh[name]).all() for name in names)
        forced = OrtTapped(path).force(feed, fresh)
        assert all(
            (forced[name] == array).all() for name, array in tapped.force(feed, fresh).items()
        )


def test_outputs_of_torch_come_from_the_run_that_shows_its_tensors(
    exported: tuple[nn.Module, Path],
) -> None:
    layers = LayerComparison(TorchTapped(exported[0]), OrtTapped(exported[1]), memory_bytes=1)
    wanted, answers = layers.update(FEED)
    assert wanted is not None
    assert answers is not None
    with torch.inference_mode():
        plain = exported[0](BATCH).numpy()
    for outputs in (wanted, answers):
        assert np.allclose(next(iter(outputs.values())), plain, atol=1e-5)
    both = LayerComparison(OrtTapped(exported[1]), OrtTapped(exported[1]))
    assert both.update(FEED)[0] is None


@pytest.mark.parametrize(("marks_change_it", "plain_runs"), [(False, 1), (True, 4)])
def test_outputs_of_the_candidate_come_from_the_observed_run_if_it_computes_the_same(
    exported: tuple[nn.Module, Path],
    monkeypatch: pytest.MonkeyPatch,
    marks_change_it: bool,
    plain_runs: int,
) -> None:
    """The first batch is run both ways and decides."""
    runs: list[int] = []

    class Counting(OrtRunner):
        def infer(self, feed: Feed) -> Outputs:
            runs.append(len(next(iter(feed.values()))))
            return super().infer(feed)

    if marks_change_it:
        monkeypatch.setattr(comparison, "_alike", lambda plain, seen: False)
    batches = [{"x": FEED["x"] * gain} for gain in (1.0, 0.5, 2.0, 0.1)]
    model, path = exported
    found = tq.compare(TorchRunner(model), Counting(path), batches, layers=True)
    plain = tq.compare(TorchRunner(model), OrtRunner(path), batches, layers=False)
    assert len(runs) == plain_runs
    assert found.samples == plain.samples == 24
    assert found.outputs[0].max_abs == pytest.approx(plain.outputs[0].max_abs, abs=1e-5)
    assert found.outputs[0].argmax_agreement == plain.outputs[0].argmax_agreement


def test_layers_of_another_precision_are_compared(
    exported: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    """The casts to FP16 of `trt-qat preflight --fp16` against the network before them."""
    half = tmp_path / "half.onnx"
    typed_onnx(exported[1], half, ())
    found = tq.compare(f"ort:{exported[1]}", f"ort:{half}", FEED, layers=True)
    assert found.passed
    assert len(found.layers) > 10


def test_saturation_is_the_part_beyond_the_grid(exported: tuple[nn.Module, Path]) -> None:
    model, path = exported
    loud = {"x": FEED["x"] * 4}
    found = compare_layers(TorchTapped(model), OrtTapped(path), [loud])
    on_grid = [layer for layer in found.layers if layer.steps is not None]
    assert max(layer.saturated or 0 for layer in on_grid) > 0.01
    assert all(layer.saturated is None for layer in found.layers if layer.steps is None)


def test_models_without_a_name_in_common_have_no_layers(
    exported: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    assert LayerComparison(OrtTapped(exported[1]), OrtTapped(linear_onnx(tmp_path))).matched == {}
    with pytest.raises(DataError, match="cannot be compared"):
        tq.compare(
            "torch:tests.runners.test_ort:Linear",
            f"ort-int8:{linear_onnx(tmp_path)}",
            feed(),
            layers=True,
        )


def test_layers_can_be_left_out(exported: tuple[nn.Module, Path]) -> None:
    spec = f"ort:{exported[1]}"
    assert tq.compare(spec, spec, FEED, layers=False).layers == ()
    assert len(tq.compare(spec, spec, FEED).layers) > 20


def test_a_file_that_is_no_model_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x01nonsense")
    with pytest.raises(GraphError, match=r"broken\.onnx"):
        OrtTapped(tmp_path / "broken.onnx")


# Differences


def test_batches_add_up_to_the_whole() -> None:
    draw = np.random.default_rng(0)
    ref = draw.normal(size=(40, 7)).astype(np.float32)
    cand = ref + draw.normal(scale=0.1, size=ref.shape).astype(np.float32)
    whole, parts = Difference(), Difference()
    whole.update(ref, cand, "y")
    for start in range(0, 40, 8):
        parts.update(ref[start : start + 8], cand[start : start + 8], "y")
    assert parts.sqnr_db == pytest.approx(whole.sqnr_db, abs=1e-3)
    assert parts.mean_abs == pytest.approx(whole.mean_abs, rel=1e-5)
    assert parts.max_abs == whole.max_abs


def test_a_difference_is_that_of_its_definition() -> None:
    ref, cand = np.array([[3.0, 4.0]]), np.array([[3.0, 3.0]])
    found = Difference()
    found.update(ref, cand, "y")
    assert (found.max_abs, found.mean_abs) == (1.0, 0.5)
    assert found.sqnr_db == pytest.approx(10 * np.log10(25))
    assert found.cosine == pytest.approx(21 / (5 * np.sqrt(18)))


def test_pieces_add_up_whatever_their_number() -> None:
    """Float64 by definition against what is measured piece by piece in float32."""
    draw = np.random.default_rng(0)
    ref = draw.normal(size=3 * CHUNK + 17).astype(np.float32)
    cand = ref + draw.normal(scale=1e-3, size=ref.size).astype(np.float32)
    cand[:CHUNK] = ref[:CHUNK]
    found = Difference(limit=2.0)
    found.update(ref, cand, "y")
    assert found.max_abs == metrics.max_abs(ref, cand)
    assert found.mean_abs == pytest.approx(metrics.mean_abs(ref, cand), rel=1e-5)
    assert found.sqnr_db == pytest.approx(metrics.sqnr_db(ref, cand), abs=1e-4)
    assert found.cosine == pytest.approx(metrics.cosine(ref, cand), abs=1e-7)
    assert found.beyond == np.count_nonzero(np.abs(ref) > 2)


def test_squares_beyond_float32_are_no_infinity() -> None:
    found = Difference()
    found.update(np.full((2, 2), 1e30, np.float32), np.full((2, 2), 2e30, np.float32), "y")
    assert found.sqnr_db == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named(value: float) -> None:
    with pytest.raises(DataError, match="'y' holds NaN or infinity in the candidate"):
        Difference().update(np.ones(3), np.array([1, value, 1]), "y")


def test_another_shape_is_named() -> None:
    with pytest.raises(DataError, match=r"'y' is \(3,\) in the reference, \(2,\) here"):
        Difference().update(np.ones(3), np.ones(2), "y")
