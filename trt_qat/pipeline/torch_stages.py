"""The stages of a run that need torch, from files to files: any of them can be the first to run.

A model is never handed from stage to stage in memory. Each rebuilds it from the recipe and the
files before it, so what a killed and resumed run does is what every run does.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from trt_qat import artifact
from trt_qat.comparison.layerwise import Layers, compare_layers
from trt_qat.data import nest
from trt_qat.data.ranges import Ranges
from trt_qat.engine.build import network_io
from trt_qat.pipeline.stage import Metrics, Run
from trt_qat.pipeline.torch_task import (
    CalibrationBatches,
    example_of,
    first_batch_runs,
    float_model,
    kept_score,
    measure,
    recover_in_place,
    score,
    teacher_of,
    train_in_place,
)
from trt_qat.qat import checkpoint
from trt_qat.qat.budget import budget as within_budget
from trt_qat.qat.budgeted import Budgeted
from trt_qat.qat.export import export as export_onnx
from trt_qat.qat.factory import build_model, load_weights
from trt_qat.qat.float_onnx import export_float
from trt_qat.qat.inputs import beside
from trt_qat.qat.placement.calls import evaluated
from trt_qat.qat.quantize import quantize as quantize_model
from trt_qat.qat.quantize import ranges_of
from trt_qat.qat.reports import LayerNote, report_of
from trt_qat.qat.runner import TorchRunner
from trt_qat.qat.sensitivity import Study
from trt_qat.qat.smooth import smoothed_structure
from trt_qat.qat.sparsify import sparsify as sparsify_model
from trt_qat.qat.tapped import TorchTapped
from trt_qat.qat.tensors import as_arrays
from trt_qat.recipe.specs import SparsitySpec
from trt_qat.runners.ort_tapped import OrtTapped


def rehearse(run: Run) -> None:
    """Let the untrained model be refused now, and a pattern match nothing, not after hours."""
    spec = run.recipe.spec
    model = build_model(spec.model, run.recipe.folder, seed=spec.train.seed)
    if spec.model.weights is not None:
        load_weights(model, run.recipe.folder / spec.model.weights)
    first_batch_runs(model, run)
    model = sparsify_model(model, example_of(run), _plain(spec.sparsity))
    quantize_model(model, [example_of(run)], spec=spec.quantize.as_placed())


def train(run: Run) -> Metrics:
    """Train the float model, or load its weights; keep what it answers on the test set.

    An embedding without a loss of its own is not trained: it is what its factory gives.
    """
    spec = run.recipe.spec
    model = build_model(spec.model, run.recipe.folder, seed=spec.train.seed)
    if spec.model.weights is not None:
        load_weights(model, run.recipe.folder / spec.model.weights)
    elif spec.task.kind != "embedding" or spec.task.loss is not None:
        train_in_place(run, model, spec.train, None)
    checkpoint.save(model, run.path("fp32.pt"))
    artifact.write_json(run.path("train.history.json"), report_of(model).history)
    return {"fp32": kept_score(run, model, "fp32_logits.npz")}


def sparsify(run: Run) -> Metrics:
    """Apply the 2:4 masks, list the layers, and measure the pruned float model."""
    model = _sparse_model(run, run.recipe.spec.sparsity)
    write_sparsity(run, model)
    return {"sparse": score(run, model) if report_of(model).sparse else None}


def write_sparsity(run: Run, model: nn.Module) -> None:
    """Write ``sparsity.json``: every layer that holds 2:4, and why others do not."""
    report = report_of(model)
    document = {"sparse": _notes(report.sparse), "skipped": _notes(report.skipped)}
    artifact.write_json(run.path("sparsity.json"), document)


def quantize(run: Run) -> Metrics:
    """Place Q/DQ and measure ranges: of the dense model as the baseline, and of the sparse one."""
    spec = run.recipe.spec
    dense = _quantized(run, float_model(run), None)
    baseline = score(run, dense)
    cached = None
    if spec.calibration.ranges is not None:
        cached = Ranges.load(run.recipe.folder / spec.calibration.ranges)
    model, sparse = dense, None
    if spec.sparsity.enabled or cached is not None:
        model = _quantized(run, _sparse_model(run, _settled(run)), cached)
        sparse = score(run, model)
    ranges = ranges_of(model)
    if cached is None:
        ranges = replace(ranges, data_digest=run.calibration.digest, samples=len(run.calibration))
    with artifact.atomic_path(run.path("ranges.json")) as path:
        ranges.save(path)
    write_placement(run, model)
    checkpoint.save(model, run.path("ptq.pt"))
    return {"ptq": baseline, "sparse_ptq": sparse}


def write_placement(run: Run, model: nn.Module) -> None:
    """Write ``placement.json``: every layer, and why it is INT8 or not."""
    report = report_of(model)
    document = {
        "quantized": _notes(report.quantized),
        "float_layers": _notes(report.float_layers),
        "float_outputs": _notes(report.float_outputs),
        "untraced": _notes(report.untraced),
        "moved": list(report.moved),
        "warnings": list(report.warnings),
    }
    artifact.write_json(run.path("placement.json"), document)


def finetune(run: Run) -> Metrics:
    """Train the quantized model; keep its weights and what it answers on the test set."""
    model = checkpoint.load_into(_placed_model(run), run.path("ptq.pt"))
    placed = json.loads(run.path("placement.json").read_text(encoding="utf-8"))
    report_of(model).moved = tuple(placed.get("moved", ()))
    recover_in_place(run, model)
    checkpoint.save(model, run.path("qat.pt"))
    entry = kept_score(run, model, "qat_logits.npz")
    artifact.write_json(run.path("finetune.history.json"), report_of(model).history)
    return {"qat": entry}


def export(run: Run) -> Metrics:
    """Write the QDQ ONNX of the trained model."""
    model, example, spec = trained_model(run), example_of(run), run.recipe.spec.export
    export_float(float_model(run), example, run.path("fp32.onnx"), spec=spec)
    # Straight to its place, not through atomic_path: export renames by itself, and a large model
    # names the file of its weights after its own.
    path = export_onnx(model, example, run.path("model.onnx"), spec=spec)
    sidecar = artifact.read_sidecar(path)
    assert sidecar is not None
    return sidecar.metrics | {"outputs": _output_form(model, run)}


def _output_form(model: nn.Module, run: Run) -> Any:
    """Return the model's outputs with the ONNX's names in them; None where they do not pair."""
    names = list(network_io.read(run.path("model.onnx")).outputs)
    outputs = as_arrays(evaluated(model, beside(model, example_of(run))))
    found = [leaf for _, leaf in nest.leaves(outputs)]
    return nest.structure(outputs, names) if len(found) == len(names) else None


def trained_model(run: Run) -> nn.Module:
    """Return the quantized model after QAT."""
    if "qat" in run.made:
        own: nn.Module = run.made["qat"]
        return own.eval()
    model = _placed_model(run)
    return checkpoint.load_into(model, run.path("qat.pt")).eval()


def runner(run: Run) -> TorchRunner:
    """Return the model after QAT as a runner."""
    return TorchRunner(trained_model(run))


def layers(run: Run, samples: int) -> Layers:
    """Compare the exported ONNX with the trained model layer by layer, on test samples."""
    candidate = OrtTapped(run.path("model.onnx"))
    inputs = candidate.model.graph.input
    fixed = inputs[0].type.tensor_type.shape.dim[0].dim_value
    given, _ = run.data.test.head(fixed or samples)
    have = nest.count(given)
    if have < fixed:
        given = nest.rows(given, np.minimum(np.arange(fixed), have - 1))
    feed = nest.feed_of(given, [value.name for value in inputs])
    return compare_layers(TorchTapped(trained_model(run)), candidate, [feed])


def study(run: Run, *, sparse: bool) -> Study:
    """Return the study of a trained run: its float model, with or without its 2:4 masks."""
    spec = run.recipe.spec
    return Study(
        _sparse_model(run, spec.sparsity) if sparse else float_model(run),
        CalibrationBatches(run),
        run.data.validation,
        spec=spec.quantize,
        calibration=spec.calibration,
        measure=measure(run),
        teacher=teacher_of(run),
        ptq=spec.ptq,
    )


def budget(run: Run, allowed: float, **how: Any) -> Budgeted:
    """Return what fits a budget for a trained run, chosen and judged on its validation samples.

    Args:
        run: whose recipe says what may be chosen: masks are if it has 2:4.
        allowed: the budget.
        how: as `trt_qat.budget` takes it: ``target``, ``by``, ``limit``, ``say``, ``batch``.
    """
    spec = run.recipe.spec
    return within_budget(
        float_model(run),
        CalibrationBatches(run),
        run.data.validation,
        allowed,
        spec=spec.quantize,
        calibration=spec.calibration,
        ptq=spec.ptq,
        sparsity=spec.sparsity.model_copy(update={"where": "fits"}),
        measure=measure(run),
        teacher=teacher_of(run),
        remainder=spec.build.remainder,
        **how,
    )


def _sparse_model(run: Run, how: SparsitySpec) -> nn.Module:
    spec = run.recipe.spec
    return sparsify_model(
        float_model(run),
        example_of(run),
        how,
        calibration_batches=CalibrationBatches(run),
        target=spec.target,
        quantize=spec.quantize,
    )


def _settled(run: Run) -> SparsitySpec:
    """Return the recipe's spec, in which the layers that gain are named as sparsify found them."""
    spec = run.recipe.spec.sparsity
    if spec.where == "fits" or not spec.enabled:
        return spec
    names = run.sparse_layers()
    found = {"where": "fits", "include": names, "exclude": (), "enabled": bool(names)}
    return spec.model_copy(update=found)


def _plain(spec: SparsitySpec) -> SparsitySpec:
    """Return a spec by which the same layers hold masks, found at once."""
    return spec.model_copy(update={"method": "magnitude", "permute": False, "where": "fits"})


def _placed_model(run: Run) -> nn.Module:
    """Return a model with the modules of the quantized one; its numbers are to be loaded."""
    spec = run.recipe.spec
    model = sparsify_model(float_model(run), example_of(run), _plain(_settled(run)))
    ranges = Ranges.load(run.path("ranges.json"))
    if spec.ptq.smooth is not None or spec.quantize.methods:
        # A multiplication may stand before a layer.
        state = torch.load(run.path("ptq.pt"), map_location="cpu", weights_only=True)
        smoothed_structure(model, state)
    return quantize_model(
        model,
        CalibrationBatches(run),
        spec=spec.quantize.as_placed(),
        calibration=spec.calibration,
        ranges=ranges,
    )


def _quantized(run: Run, model: nn.Module, ranges: Ranges | None) -> nn.Module:
    spec = run.recipe.spec
    return quantize_model(
        model,
        CalibrationBatches(run),
        spec=spec.quantize,
        calibration=spec.calibration,
        ranges=ranges,
        ptq=spec.ptq,
    )


def _notes(notes: tuple[LayerNote, ...]) -> list[dict[str, str]]:
    return [asdict(note) for note in notes]
