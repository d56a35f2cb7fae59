"""The metrics measure what they say, and a comparison fails where the two differ."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console

import trt_qat as tq
from tests.graph.build import Builder
from tests.runners.test_ort import Linear, feed, linear_onnx
from trt_qat.cli.tables.compare import compare_table
from trt_qat.comparison.result import compare_outputs
from trt_qat.errors import DataError
from trt_qat.measure import metrics
from trt_qat.qat.runner import TorchRunner

A = np.array([[1.0, 2.0, 3.0], [0.0, 5.0, 1.0]], dtype=np.float32)


# Metrics


def test_equal_arrays_have_no_difference() -> None:
    assert metrics.max_abs(A, A) == metrics.mean_abs(A, A) == 0.0
    assert metrics.cosine(A, A) == pytest.approx(1.0)
    assert metrics.sqnr_db(A, A) is None
    assert metrics.argmax_agreement(A, A) == 1.0


def test_differences_are_absolute() -> None:
    other = A + np.array([[0.0, 0.0, -0.5], [0.1, 0.0, 0.0]], dtype=np.float32)
    assert metrics.max_abs(A, other) == pytest.approx(0.5)
    assert metrics.mean_abs(A, other) == pytest.approx(0.1)


def test_sqnr_of_a_tenth_of_the_amplitude_is_twenty_decibel() -> None:
    assert metrics.sqnr_db(A, A * 1.1) == pytest.approx(20.0, abs=1e-3)


def test_sqnr_of_noise_on_silence_is_finite() -> None:
    found = metrics.sqnr_db(np.zeros(3), np.ones(3))
    assert found is not None
    assert found < -100


def test_cosine_ignores_scale_and_knows_zero() -> None:
    assert metrics.cosine(A, 3 * A) == pytest.approx(1.0)
    assert metrics.cosine(A, -A) == pytest.approx(-1.0)
    assert metrics.cosine(np.zeros(3), np.zeros(3)) == 1.0
    assert metrics.cosine(np.zeros(3), np.ones(3)) == 0.0


def test_argmax_agreement_counts_samples() -> None:
    other = A.copy()
    other[1] = [9.0, 5.0, 1.0]
    assert metrics.argmax_agreement(A, other) == 0.5


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((3, 1))])
def test_argmax_agreement_needs_classes(array: np.ndarray) -> None:
    assert metrics.argmax_agreement(array, array) is None


def test_wilson_holds_the_textbook_value() -> None:
    # 10 of 20: the centre is one half, the half-width 0.2007 (Brown, Cai and DasGupta 2001).
    low, high = metrics.wilson(10, 20)
    assert [low, high] == pytest.approx([0.2993, 0.7007], abs=1e-4)


@pytest.mark.parametrize("samples", [1, 10, 450, 10_000])
def test_wilson_stays_in_the_unit_interval_and_is_never_empty(samples: int) -> None:
    assert metrics.wilson(0, samples)[0] == 0.0
    assert 0.0 < metrics.wilson(0, samples)[1] < 1.0
    assert metrics.wilson(samples, samples)[1] == 1.0
    assert 0.0 < metrics.wilson(samples, samples)[0] < 1.0


def test_wilson_of_no_samples_knows_nothing() -> None:
    assert metrics.wilson(0, 0) == (0.0, 1.0)


def test_a_score_counts_right_answers() -> None:
    entry = metrics.scored(A, np.array([2, 0]), seconds=1.5)
    assert (entry["accuracy"], entry["correct"], entry["samples"]) == (0.5, 1, 2)
    low, high = entry["interval95"]
    assert low < 0.5 < high


# Comparisons


def test_a_model_equals_itself(tmp_path: Path) -> None:
    spec = f"ort:{linear_onnx(tmp_path)}"
    found = tq.compare(spec, spec, feed(7))
    assert found.passed
    assert found.samples == 7
    assert found.outputs[0].max_abs == 0.0


def test_torch_and_onnx_are_paired_by_position(tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = tq.compare(
        "torch:tests.runners.test_ort:Linear", f"ort:{linear_onnx(tmp_path)}", feed(64)
    )
    assert not found.passed, "other weights give other answers"
    assert found.outputs[0].name == "logits"


def test_batches_are_joined_before_they_are_measured(tmp_path: Path) -> None:
    spec = f"ort:{linear_onnx(tmp_path)}"
    assert tq.compare(spec, spec, [feed(3), feed(4)]).samples == 7


def test_the_json_has_the_keys_of_the_contract(tmp_path: Path) -> None:
    spec = f"ort:{linear_onnx(tmp_path)}"
    document = tq.compare(spec, spec, feed()).to_dict()
    assert list(document) == [
        "ref", "cand", "samples", "outputs", "passed", "layers", "first_divergence", "worst_layer",
        "verdict", "inputs",
    ]  # fmt: skip
    assert set(document["outputs"][0]) == {
        "name", "max_abs", "mean_abs", "cosine", "sqnr_db", "argmax_agreement",
        "top5_agreement", "relative", "kind", "axis", "decisions", "differ", "ties",
        "lost_classes", "quiet_sqnr_db", "quiet_slack_db", "varying_db", "dense", "passed", "asked",
    }  # fmt: skip
    assert set(document["layers"][0]) == {
        "name", "op", "ref_tensor", "cand_tensor", "max_abs", "mean_abs", "cosine", "sqnr_db",
        "argmax_agreement", "steps", "local_sqnr_db", "local_max_abs", "saturated", "relative",
    }  # fmt: skip
    assert document["first_divergence"] is None
    json.dumps(document, allow_nan=False)


def test_labels_add_both_accuracies() -> None:
    found = compare_outputs(("a", {"o": A}), ("b", {"o": A[::-1]}), labels=np.array([2, 1]))
    assert found.accuracy == {"ref": 1.0, "cand": 0.0}
    assert found.to_dict()["accuracy"] == found.accuracy
    assert found.to_dict()["changed"] == {"lost": 2, "gained": 0}


def test_labels_of_maps_find_the_axis_of_the_classes() -> None:
    scores = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    labels = scores.argmax(axis=1)
    labels[0, 0, 0] = 255  # a pixel that does not count
    found = compare_outputs(("a", {"o": scores}), ("b", {"o": scores}), labels=labels)
    assert (found.outputs[0].axis, found.accuracy) == (1, {"ref": 1.0, "cand": 1.0})


def test_what_was_asked_is_told() -> None:
    (found,) = compare_outputs(("a", {"o": A}), ("b", {"o": A})).outputs
    assert found.asked == "0 of 2 answers differ; at most 0 may (99.9 % is asked)"
    (far,) = compare_outputs(("a", {"depth": A}), ("b", {"depth": A * 1.1})).outputs
    assert far.asked == "by distance: 20.0 dB (relative error 10.00%); at least 20 dB"


def test_an_output_without_classes_is_judged_by_its_noise() -> None:
    depth = np.linspace(1, 2, 10, dtype=np.float32)
    near = compare_outputs(("a", {"o": depth}), ("b", {"o": depth * 1.01}))
    far = compare_outputs(("a", {"o": depth}), ("b", {"o": depth * 1.5}))
    assert (near.passed, far.passed) == (True, False)


def test_the_limit_of_agreement_decides() -> None:
    other = A.copy()
    other[1] = [9.0, 5.0, 1.0]
    sides: tuple[Any, Any] = (("a", {"o": A}), ("b", {"o": other}))
    assert compare_outputs(*sides, min_agreement=0.5).passed
    assert not compare_outputs(*sides, min_agreement=0.6).passed


@pytest.mark.parametrize(
    ("ref", "cand", "message"),
    [
        ({"o": A}, {"o": A, "p": A}, r"the reference returns \['o'\], the candidate \['o', 'p'\]"),
        ({"o": A}, {"o": A[:1]}, r"output 'o' is \(2, 3\) in the reference, \(1, 3\) here"),
    ],
)
def test_outputs_that_do_not_correspond_are_refused(
    ref: dict[str, Any], cand: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        compare_outputs(("a", ref), ("b", cand))


def test_no_feeds_are_refused(tmp_path: Path) -> None:
    spec = f"ort:{linear_onnx(tmp_path)}"
    with pytest.raises(DataError, match=r"compare: no feeds; give at least one batch"):
        tq.compare(spec, spec, [])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_input_that_is_not_a_number_is_refused(tmp_path: Path, value: float) -> None:
    """QuantizeLinear makes a number of it, and both sides would agree."""
    spec = f"ort:{linear_onnx(tmp_path)}"
    with pytest.raises(DataError, match=r"input 'x' holds NaN or infinity; mend the data"):
        tq.compare(spec, spec, {"x": np.full((1, 4), value, np.float32)})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [0, 3],
            r"labels \(2,\) from 0 to 3, and the first output has 3 classes; .* 0 to 2",
        ),
        ([-1, 0], r"from -1 to 0"),
        ([[0], [1]], r"labels \(2, 1\)"),
        ([0], r"1 label for more samples; give one each"),
    ],
)
def test_labels_of_other_classes_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        compare_outputs(("a", {"o": A}), ("b", {"o": A}), labels=np.array(labels))


def test_labels_need_logits() -> None:
    depth = np.ones((2, 3, 4), np.float32)
    with pytest.raises(DataError, match=r"labels need logits \(N, classes\), .* \(2, 3, 4\), the"):
        compare_outputs(("a", {"o": depth}), ("b", {"o": depth}), labels=np.array([0, 1]))


def test_the_five_largest_are_compared_as_sets() -> None:
    ref = np.arange(8, dtype=np.float32)[None].repeat(2, axis=0)
    cand = ref.copy()
    cand[0, [7, 6]] = cand[0, [6, 7]]  # another order of the same
    cand[1, 0] = 100.0  # one of five is another
    (found,) = compare_outputs(("a", {"o": ref}), ("b", {"o": cand})).outputs
    assert found.argmax_agreement == 0.0
    assert found.top5_agreement == pytest.approx((1 + 0.8) / 2)
    (few,) = compare_outputs(("a", {"o": A}), ("b", {"o": A})).outputs
    assert few.top5_agreement is None


def test_the_relative_error_is_that_of_norms() -> None:
    (found,) = compare_outputs(("a", {"o": A}), ("b", {"o": A * 1.1})).outputs
    assert found.relative == pytest.approx(0.1, rel=1e-5)
    zero = np.zeros_like(A)
    (none,) = compare_outputs(("a", {"o": zero}), ("b", {"o": A})).outputs
    assert none.relative is None


def test_an_answer_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    spec = f"ort:{linear_onnx(tmp_path)}"
    model = Linear()
    torch.nn.init.constant_(model.layer.weight, math.inf)
    with pytest.raises(DataError, match=r"torch: output 'output' holds NaN or infinity"):
        tq.compare(TorchRunner(model), spec, feed())


def test_feeds_of_torch_tensors_are_refused_by_name(tmp_path: Path) -> None:
    path = linear_onnx(tmp_path)
    tensors: Any = {"x": torch.ones(2, 3)}
    with pytest.raises(DataError, match=r"input 'x' is a torch.Tensor; feeds are numpy arrays"):
        tq.compare(f"ort:{path}", f"ort:{path}", tensors)


def test_the_headline_names_the_layer_that_is_worst_and_not_the_first_that_rounds(
    tmp_path: Path,
) -> None:
    """Three convolutions in float and in INT8; the scale of the second weight is a quarter."""
    for name, quantized in (("float", False), ("int8", True)):
        b = Builder(seed=3)
        x = b.input("x", ["N", 16, 8, 8])
        for i in range(3):
            values = b.draw.standard_normal((16, 16, 3, 3)).astype(np.float32) / 12
            w = b.store(f"w{i}", values)
            if quantized:
                x = b.qdq(x, 0.04, name=f"q{i}")
                scales = (
                    np.abs(values).max(axis=(1, 2, 3)) / 127 * np.float32(0.25 if i == 1 else 1)
                )
                codes = b.quantize(w, scales, name=f"w{i}_q", axis=0)
                w = b.dequantize(codes, scales, name=f"w{i}_dq", axis=0)
            x = b.conv(x, (16, 16), f"conv{i}", w=w, relu=True)
        onnx.save(b.model(x), tmp_path / f"{name}.onnx")
    draw = np.random.default_rng(0)
    feeds = {"x": draw.standard_normal((2, 16, 8, 8)).astype(np.float32)}
    found = tq.compare(f"ort:{tmp_path / 'float.onnx'}", f"ort:{tmp_path / 'int8.onnx'}", feeds)
    assert found.first_divergence is not None
    assert found.worst_layer is not None
    assert (found.first_divergence.name, found.worst_layer.name) == ("conv0", "conv1")
    out = io.StringIO()
    Console(file=out, width=200).print(compare_table(found))
    assert "worst layer: Conv 'conv1'" in out.getvalue()
