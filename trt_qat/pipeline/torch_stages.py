"""The stages of a run that need torch, from files to files: any of them can be the first to run.

A model is never handed from stage to stage in memory. Each rebuilds it from the recipe and the
files before it, so what a killed and resumed run does is what every run does.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trt_qat import artifact
from trt_qat.comparison.layerwise import Layers, compare_layers
from trt_qat.data.ranges import Ranges
from trt_qat.errors import ModelError
from trt_qat.measure import metrics
from trt_qat.pipeline.stage import Metrics, Run
from trt_qat.qat import checkpoint
from trt_qat.qat.batches import logits_of
from trt_qat.qat.evaluate import evaluate
from trt_qat.qat.export import export as export_onnx
from trt_qat.qat.factory import build_model, load_weights
from trt_qat.qat.finetune import finetune as train_model
from trt_qat.qat.quantize import quantize as quantize_model
from trt_qat.qat.quantize import ranges_of
from trt_qat.qat.reports import LayerNote, report_of
from trt_qat.qat.sensitivity import Study
from trt_qat.qat.sparsify import sparsify as sparsify_model
from trt_qat.qat.tapped import TorchTapped
from trt_qat.recipe.specs import TrainSpec
from trt_qat.runners.ort_tapped import OrtTapped

EXAMPLE_IMAGES = 2
"""In the batch that models are traced with: torch.export takes a size of 1 for a constant."""


def rehearse(run: Run) -> None:
    """Let the untrained model be refused now, and a pattern match nothing, not after hours."""
    spec = run.recipe.spec
    model = build_model(spec.model, run.recipe.folder, seed=spec.train.seed)
    if spec.model.weights is not None:
        load_weights(model, run.recipe.folder / spec.model.weights)
    _first_batch_runs(model, run)
    model = sparsify_model(model, _example(run), spec.sparsity)
    quantize_model(model, [_example(run)], spec=spec.quantize)


def train(run: Run) -> Metrics:
    """Train the float model, or load its weights; keep what it answers on the test set."""
    spec = run.recipe.spec
    model = build_model(spec.model, run.recipe.folder, seed=spec.train.seed)
    if spec.model.weights is None:
        _train(run, model, spec.train)
    else:
        load_weights(model, run.recipe.folder / spec.model.weights)
    checkpoint.save(model, run.path("fp32.pt"))
    artifact.write_json(run.path("train.history.json"), report_of(model).history)
    entry, logits = _score(run, model)
    _keep_logits(run, "fp32_logits.npz", logits)
    return {"fp32": entry}


def sparsify(run: Run) -> Metrics:
    """Apply the 2:4 masks, list the layers, and measure the pruned float model."""
    model = _sparse_model(run)
    report = report_of(model)
    document = {"sparse": _notes(report.sparse), "skipped": _notes(report.skipped)}
    artifact.write_json(run.path("sparsity.json"), document)
    return {"sparse": _score(run, model)[0] if report.sparse else None}


def quantize(run: Run) -> Metrics:
    """Place Q/DQ and measure ranges: of the dense model as the baseline, and of the sparse one."""
    spec = run.recipe.spec
    dense = _quantized(run, _float_model(run), None)
    baseline = _score(run, dense)[0]
    cached = None
    if spec.calibration.ranges is not None:
        cached = Ranges.load(run.recipe.folder / spec.calibration.ranges)
    model, sparse = dense, None
    if spec.sparsity.enabled or cached is not None:
        model = _quantized(run, _sparse_model(run), cached)
        sparse = _score(run, model)[0]
    ranges = ranges_of(model)
    if cached is None:
        ranges = replace(ranges, data_digest=run.calibration.digest, samples=len(run.calibration))
    with artifact.atomic_path(run.path("ranges.json")) as path:
        ranges.save(path)
    report = report_of(model)
    document = {
        "quantized": _notes(report.quantized),
        "float_layers": _notes(report.float_layers),
        "float_outputs": _notes(report.float_outputs),
        "untraced": _notes(report.untraced),
        "warnings": list(report.warnings),
    }
    artifact.write_json(run.path("placement.json"), document)
    return {"ptq": baseline, "sparse_ptq": sparse}


def finetune(run: Run) -> Metrics:
    """Train the quantized model; keep its weights and what it answers on the test set."""
    model = _ranged_model(run)
    _train(run, model, run.recipe.spec.finetune)
    checkpoint.save(model, run.path("qat.pt"))
    entry, logits = _score(run, model)
    _keep_logits(run, "qat_logits.npz", logits)
    artifact.write_json(run.path("finetune.history.json"), report_of(model).history)
    return {"qat": entry}


def export(run: Run) -> Metrics:
    """Write the QDQ ONNX of the trained model."""
    model = _ranged_model(run)
    checkpoint.load_into(model, run.path("qat.pt"))
    # Straight to its place, not through atomic_path: export renames by itself, and a large model
    # names the file of its weights after its own.
    path = export_onnx(model, _example(run), run.path("model.onnx"), spec=run.recipe.spec.export)
    sidecar = artifact.read_sidecar(path)
    assert sidecar is not None
    return sidecar.metrics


def layers(run: Run, samples: int) -> Layers:
    """Compare the exported ONNX with the trained model layer by layer, on test images."""
    model = _ranged_model(run)
    checkpoint.load_into(model, run.path("qat.pt"))
    candidate = OrtTapped(run.path("model.onnx"))
    value = candidate.model.graph.input[0]
    fixed = value.type.tensor_type.shape.dim[0].dim_value
    images = run.data.test.images[: fixed or samples]
    if len(images) < fixed:
        images = np.concatenate([images, np.repeat(images[-1:], fixed - len(images), axis=0)])
    return compare_layers(TorchTapped(model), candidate, [{value.name: images}])


def study(run: Run, *, sparse: bool) -> Study:
    """Return the study of a trained run: its float model, with or without its 2:4 masks."""
    spec = run.recipe.spec
    return Study(
        _sparse_model(run) if sparse else _float_model(run),
        [torch.from_numpy(images) for images in run.calibration],
        run.data.validation,
        spec=spec.quantize,
        calibration=spec.calibration,
    )


def _float_model(run: Run) -> nn.Module:
    spec = run.recipe.spec
    model = build_model(spec.model, run.recipe.folder, seed=spec.train.seed)
    model.load_state_dict(torch.load(run.path("fp32.pt"), map_location="cpu", weights_only=True))
    return model.eval()


def _sparse_model(run: Run) -> nn.Module:
    return sparsify_model(_float_model(run), _example(run), run.recipe.spec.sparsity)


def _ranged_model(run: Run) -> nn.Module:
    """Return the quantized model before QAT, with the ranges that were measured."""
    return _quantized(run, _sparse_model(run), Ranges.load(run.path("ranges.json")))


def _quantized(run: Run, model: nn.Module, ranges: Ranges | None) -> nn.Module:
    spec = run.recipe.spec
    batches = [torch.from_numpy(images) for images in run.calibration]
    return quantize_model(
        model, batches, spec=spec.quantize, calibration=spec.calibration, ranges=ranges
    )


def _train(run: Run, model: nn.Module, spec: TrainSpec) -> None:
    train_model(
        model,
        run.data.train,
        spec=spec,
        validation_batches=run.data.validation,
        checkpoint_dir=run.checkpoints,
        resume=run.resume,
        progress=run.progress,
    )


def _score(run: Run, model: nn.Module) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    found = evaluate(model, run.data.test)
    return metrics.scored(found.logits, run.data.test.labels, found.seconds), found.logits


def _keep_logits(run: Run, name: str, logits: np.ndarray[Any, Any]) -> None:
    with artifact.atomic_path(run.path(name)) as path:
        np.savez(path, logits=logits)


def _example(run: Run) -> Tensor:
    return torch.from_numpy(run.data.calibration.images[:EXAMPLE_IMAGES])


def _first_batch_runs(model: nn.Module, run: Run) -> None:
    """Check that the model takes these images and has a logit for every class.

    Raises:
        ModelError: it does not, or has fewer logits than there are classes.
    """
    shape = (EXAMPLE_IMAGES, *run.data.test.shape)
    try:
        with torch.no_grad():
            logits = logits_of(model.eval()(_example(run)))
    except (RuntimeError, TypeError, ValueError) as error:
        message = f"the model cannot take images {shape}: {error}; mend model.args or the data"
        raise ModelError(message) from error
    if logits.ndim != 2 or logits.shape[1] < run.data.classes:
        message = (
            f"the model returns {tuple(logits.shape)} for images {shape}; the data has "
            f"{run.data.classes} classes, so (N, {run.data.classes}) or wider is needed"
        )
        raise ModelError(message)


def _notes(notes: tuple[LayerNote, ...]) -> list[dict[str, str]]:
    return [asdict(note) for note in notes]
