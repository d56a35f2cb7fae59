"""Every reference architecture through ``quantize``, three training steps, ``export``, onnxruntime.

The float network learns a small task first (`tests.qat.tasks`). Numbers are compared at matched
quantization points (`tests.qat.matched`), which also says how ties in rounding are treated;
answers are compared end to end, on inputs that training did not see.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.models import REFERENCE, Reference, outputs_of
from tests.qat import tasks
from tests.qat.matched import Matched, match, off_grid
from trt_qat.lint.fate import LayerFate
from trt_qat.lint.preflight import PreflightReport, preflight
from trt_qat.qat.export import export
from trt_qat.qat.placement.calls import mode
from trt_qat.qat.quantize import quantize
from trt_qat.qat.reports import report_of
from trt_qat.runners.ort import OrtRunner

QUICK = ("two_inputs", "functional")
NAMES = [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in REFERENCE
]
STEPS = {"two_inputs": 150, "functional": 150, "untraceable": 400}  # of float training; others 60
QAT_STEPS = 3
SAMPLES = 1000
POINT_ERROR = 1e-4  # of pre-quantized values; float rounding alone was measured below 3e-6
OUTPUT_ERROR = 1e-3
CODES_OFF = 1e-4  # part of the codes that ties may move; measured below 1e-5
AGREEMENT = 0.999


@dataclass(frozen=True)
class Case:
    """One architecture, trained, quantized, trained on and exported."""

    reference: Reference
    model: nn.Module
    part: nn.Module  # what is exported: the model, or the part of it that can be traced
    path: Path
    matched: Matched
    fates: PreflightReport


@pytest.fixture(scope="module", params=NAMES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    reference = REFERENCE[request.param]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return _prepared(reference, tmp_path_factory.mktemp(reference.name) / "model.onnx")
    finally:
        torch.set_num_threads(threads)


def _prepared(reference: Reference, path: Path) -> Case:
    model = reference.build()
    tasks.train(reference, model, STEPS.get(reference.name, 60), 3e-3)
    calibration = [tasks.draw(reference, tasks.BATCH, seed=s).inputs for s in range(2)]
    model = quantize(model, calibration)
    tasks.train(reference, model, QAT_STEPS, 1e-4, seed=1)
    part = model if reference.traceable else model.get_submodule(reference.traced_part)
    export(part, reference.example_inputs(2), path)
    matched = match(model, part, path, tasks.draw(reference, 16, seed=5).inputs)
    return Case(reference, model, part, path, matched, preflight(path))


def test_numbers_agree_at_every_matched_quantization_point(case: Case) -> None:
    assert len(case.matched.points) >= 2
    for point in case.matched.points:
        assert point.relative_error < POINT_ERROR, point.name


def test_codes_differ_by_one_where_rounding_ties_and_nowhere_else(case: Case) -> None:
    for point in case.matched.points:
        assert point.ties_only(), point.name
    differ = sum(int(point.codes_that_differ.sum()) for point in case.matched.points)
    assert differ <= CODES_OFF * sum(point.torch.size for point in case.matched.points)


def test_outputs_agree_within_a_thousandth(case: Case) -> None:
    for expected, got in case.matched.outputs:
        assert np.abs(got - expected).max() < OUTPUT_ERROR * np.abs(expected).max()


def test_a_pair_behind_commuting_operations_rounds_nothing(case: Case) -> None:
    """Training leaves these pairs out: their values must be on the grid already."""
    inputs = tasks.draw(case.reference, 4, seed=6).inputs
    assert off_grid(case.model, case.part, inputs) == []


class _Onnx(nn.Module):
    """The exported part in the place of the traced one, so that the code around it runs as is."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.runner = OrtRunner(path)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...] | Tensor:
        feed = {name: t.numpy() for name, t in zip(self.runner.inputs, inputs, strict=True)}
        results = [torch.from_numpy(array) for array in self.runner.infer(feed).values()]
        return results[0] if len(results) == 1 else tuple(results)


def test_a_thousand_inputs_get_the_same_answer(case: Case) -> None:
    reference, deployed = case.reference, _Onnx(case.path)
    agreed, total = 0, 0
    for seed in range(500, 500 + SAMPLES // 100):
        inputs = tasks.draw(reference, 100, seed=seed).inputs
        with mode(case.model, training=False):
            ours = outputs_of(case.model(*inputs))
            theirs = _through(case, deployed, inputs)
        pairs = zip(tasks.scores(reference, ours), tasks.scores(reference, theirs), strict=True)
        for a, b in pairs:
            same = a.argmax(-1) == b.argmax(-1)
            agreed, total = agreed + int(same.sum()), total + same.numel()
    assert agreed >= AGREEMENT * total, f"{total - agreed} of {total} answers differ"


def _through(case: Case, deployed: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    if case.part is case.model:
        return outputs_of(deployed(*inputs))
    setattr(case.model, case.reference.traced_part, deployed)
    try:
        return outputs_of(case.model(*inputs))
    finally:
        setattr(case.model, case.reference.traced_part, case.part)


def test_every_layer_but_the_heads_computes_in_int8(case: Case) -> None:
    """None of these nets has a layer that the alignment rule P9 keeps float."""
    why = {note.name: note.why for note in report_of(case.model).float_layers}
    assert all(reason.startswith("head") for reason in why.values())
    prefix = f"{case.reference.traced_part}." if case.part is not case.model else ""
    inside = [name for name in why if name.startswith(prefix)]
    assert len([fate for fate in case.fates.layers if fate.precision != "int8"]) == len(inside)


# What reads the float outputs of INT8 layers, by architecture. Every other architecture has none:
# all its layers but the heads are INT8 in and INT8 out.
STREAM, GATE, NORM = "a residual stream", "attention", "normalisation, softmax or attention"
POSITIONS = "pointwise"  # the position embedding, added to what the patches were embedded to
P8 = {
    "resnet18_groupnorm": {NORM},
    "efficientnet_b0": {"depthwise: no INT8 kernel fuses its activation"},
    "vit": {STREAM, NORM, POSITIONS},
    "vit_explicit": {STREAM, GATE, POSITIONS},
    "bert": {STREAM, GATE},
    "tied_weights": {STREAM},
    "functional": {GATE},
    "untraceable": {"a network output or untraced code"},
    "hf_vit": {STREAM, NORM, POSITIONS},
    "hf_vit_eager": {STREAM, GATE, POSITIONS},
    "hf_bert": {STREAM, NORM},
    "hf_bert_eager": {STREAM, GATE},
}


def test_every_float_output_of_an_int8_layer_has_its_rule(case: Case) -> None:
    """Placement's own account and preflight's, read off the ONNX alone, list the same layers."""
    notes = {note.name: note.why for note in report_of(case.model).float_outputs}
    reasons = {
        reader
        for why in notes.values()
        for reader in _split(why.removeprefix("P8: read as float by "))
    }
    assert reasons == P8.get(case.reference.name, set())
    half = [f for f in case.fates.layers if f.input_int8 and not f.output_int8]
    if case.part is not case.model:
        prefix = f"{case.reference.traced_part}."
        notes = {n.removeprefix(prefix): why for n, why in notes.items() if n.startswith(prefix)}
    if case.reference.name == "functional":  # its layers are no modules: named by their operators
        assert len(half) == len(notes)
    else:
        assert {fate.name for fate in half} == set(notes)
    if case.reference.name not in P8:
        assert _int8_through(case.fates.layers) == len(case.fates.layers) - len(
            report_of(case.model).float_layers
        )


def _split(readers: str) -> set[str]:
    """Return the names in a list of readers; one of them holds a comma itself."""
    found = {NORM} if NORM in readers else set()
    return found | {r for r in readers.replace(NORM, "").split(", ") if r}


def _int8_through(layers: tuple[LayerFate, ...]) -> int:
    return sum(bool(fate.input_int8 and fate.output_int8) for fate in layers)


@pytest.mark.parametrize("shift", [0.5, 2.0])
def test_a_wrong_scale_would_be_seen(case: Case, shift: float) -> None:
    """The comparison itself can fail: codes of another scale are no ties."""
    point = max(case.matched.points, key=lambda p: p.torch.size)
    moved = type(point)(point.name, point.torch, point.onnxruntime * np.float32(shift), point.scale)
    assert not moved.ties_only()
    assert moved.relative_error > POINT_ERROR
