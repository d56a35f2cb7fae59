"""The stages of a run that need no torch: what is proven about the exported ONNX."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trt_qat import artifact
from trt_qat.backends import why_no_torch
from trt_qat.comparison.compare import Comparison, compare_outputs
from trt_qat.comparison.histograms import histograms
from trt_qat.comparison.layerwise import MIN_LOCAL_SQNR_DB
from trt_qat.errors import CompilerDied, SparsityLost
from trt_qat.gate.parity import chance_failures, chance_of, parity_failures
from trt_qat.graph.layer_facts import layer_facts
from trt_qat.graph.load import load_graph
from trt_qat.graph.section import around
from trt_qat.graph.sparsity import LayerSparsity, layer_sparsity
from trt_qat.measure import metrics
from trt_qat.pipeline.stage import Metrics, Run
from trt_qat.pipeline.with_torch import torch_stages
from trt_qat.recipe.specs import EngineSpec
from trt_qat.runners.ort import OrtRunner
from trt_qat.runners.ort_tapped import OrtTapped
from trt_qat.runners.protocol import Outputs

if TYPE_CHECKING:
    from trt_qat.lint.preflight import PreflightReport

BATCH = 256
LAYER_SAMPLES = 64
HISTOGRAM_SAMPLES = 64


def compare(run: Run) -> Metrics:
    """Compare onnxruntime with torch fake-quant on the whole test set, and read 2:4 off the ONNX.

    What falls short of the recipe's tolerances is listed under ``failures``, so that everything
    is written before the run is failed.
    """
    tolerances = run.recipe.spec.tolerances
    with np.load(run.path("qat_logits.npz")) as archive:
        reference = ("torch:fake-quant", {"logits": archive["logits"]})
    parity, entry, answers = _against(run, reference, fused=False)
    fused, fused_entry, fused_answers = _against(run, reference, fused=True)
    _keep_answers(run, {"onnx": answers, "onnx_fused": fused_answers})
    sparsity = _sparsity(run)
    known = chance_of(answers, run.data.test.labels)
    failures = [*parity_failures(parity, tolerances), *_accuracy_failures(run)]
    failures += chance_failures(known, entry)
    failures += [
        _failure("sparsity", f"layer {layer['module']} does not hold 2:4 in the exported weights")
        for layer in sparsity
        if not layer["holds_2_4"]
    ]
    document = (
        parity.to_dict()
        | _layers(run)
        | {
            "passed": not failures,
            "session": "session.disable_quant_qdq=1: Q and DQ as plain float operators",
            "fused": fused.to_dict() | {"session": "default: onnxruntime fuses what it can"},
            "sparsity": sparsity,
            **_layer_evidence(run),
            "chance": None if known is None else known.to_dict(),
            "failures": failures,
        }
    )
    artifact.write_json(run.path("compare.json"), document)
    return {"onnx": entry, "onnx_fused": fused_entry, "failures": failures}


def _layers(run: Run) -> dict[str, Any]:
    """Return what is found layer by layer; nothing where torch is missing.

    With a first divergence goes the graph around it, for the report.
    """
    if why_no_torch() is not None:
        return {}
    found = torch_stages("compare").layers(run, LAYER_SAMPLES)
    first = found.first_divergence
    section = around(load_graph(run.path("model.onnx")), first.name) if first else []
    return {
        "layers": [asdict(layer) for layer in found.layers],
        "layer_samples": min(LAYER_SAMPLES, len(run.data.test.images)),
        "min_local_sqnr_db": MIN_LOCAL_SQNR_DB,
        "first_divergence": None if first is None else asdict(first),
        "section": section,
    }


def _layer_evidence(run: Run) -> dict[str, Any]:
    """Return what the report shows of every layer, and of every tensor that is quantized."""
    candidate = OrtTapped(run.path("model.onnx"))
    value = candidate.model.graph.input[0]
    fixed = value.type.tensor_type.shape.dim[0].dim_value
    images = run.data.test.images[: fixed or HISTOGRAM_SAMPLES]
    seen = [] if len(images) < fixed else histograms(candidate, {value.name: images})
    return {
        "weights": [asdict(layer) for layer in layer_facts(candidate.model)],
        "histograms": [counts.to_dict() for counts in seen],
        "histogram_samples": len(images),
    }


def _keep_answers(run: Run, answers: Outputs) -> None:
    """Keep what the ONNX answers on the test set: `trt_qat.gate` compares runs sample by sample."""
    test = run.data.test
    arrays: dict[str, Any] = {"labels": test.labels, "ids": test.ids, **answers}
    with artifact.atomic_path(run.path("answers.npz")) as path:
        np.savez_compressed(path, **arrays)


def _failure(check: str, message: str) -> dict[str, str]:
    return {"check": check, "message": message}


def _accuracy_failures(run: Run) -> Iterator[dict[str, str]]:
    float_model = artifact.read_sidecar(run.path("fp32.pt"))
    trained = artifact.read_sidecar(run.path("qat.pt"))
    assert float_model is not None
    assert trained is not None
    fp32, qat = float_model.metrics["fp32"]["accuracy"], trained.metrics["qat"]["accuracy"]
    allowed = run.recipe.spec.tolerances.accuracy_loss
    if fp32 - qat > allowed:
        yield _failure(
            "accuracy_loss",
            f"QAT reaches {qat:.2%}, {fp32 - qat:.2%} below FP32; "
            f"tolerances.accuracy_loss = {allowed}",
        )


def _against(
    run: Run, reference: tuple[str, Outputs], *, fused: bool
) -> tuple[Comparison, dict[str, Any], NDArray[Any]]:
    test = run.data.test
    start = time.perf_counter()
    with OrtRunner(run.path("model.onnx"), fused=fused) as runner:
        logits = infer_all(runner, test.images)
        name = f"{runner.name}:model.onnx"
    entry = metrics.scored(logits, test.labels, time.perf_counter() - start)
    tolerances = run.recipe.spec.tolerances
    found = compare_outputs(
        reference,
        (name, {"logits": logits}),
        labels=test.labels,
        min_agreement=tolerances.argmax_agreement,
    )
    return found, entry, logits


def infer_all(runner: OrtRunner, images: NDArray[np.float32]) -> NDArray[Any]:
    """Return the first output for every image, ``(N, ...)``.

    A model of a fixed batch is fed batches of that size; the last is filled up with repetitions,
    whose answers are dropped.
    """
    (name, spec), *_ = runner.inputs.items()
    size = spec.shape[0] if isinstance(spec.shape[0], int) else BATCH
    answers = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        fill = size - len(batch) if isinstance(spec.shape[0], int) else 0
        fed = np.concatenate([batch, np.repeat(batch[-1:], fill, axis=0)]) if fill else batch
        output = next(iter(runner.infer({name: fed}).values()))
        answers.append(output[: len(batch)])
    return np.concatenate(answers)


def _sparsity(run: Run) -> list[dict[str, Any]]:
    """Return what every layer reported sparse holds in the exported weights.

    Raises:
        SparsityLost: a layer reported sparse is not in the graph at all.
    """
    reported = [
        note["name"] for note in json.loads(run.path("sparsity.json").read_text())["sparse"]
    ]
    if not reported:
        return []
    layers = layer_sparsity(load_graph(run.path("model.onnx")))
    return [asdict(_layer_of(module, layers)) | {"module": module} for module in reported]


def _layer_of(module: str, layers: list[LayerSparsity]) -> LayerSparsity:
    """Return the layer of the graph whose weight is the module's."""
    for layer in layers:
        if layer.name == module or layer.weight.startswith(f"{module}."):
            return layer
    names = ", ".join(layer.name for layer in layers[:5])
    message = f"layer {module!r} was made 2:4 but is not in the ONNX; it has {names} ..."
    raise SparsityLost(message)


def _judged(onnx: Path, spec: EngineSpec) -> PreflightReport:
    """Return the report, NVIDIA's word in it where the recipe asks for that and it can be had.

    Raises:
        BackendUnavailable: the recipe insists, and TensorRT for RTX is missing.
        CompilerDied: the recipe insists, and it ran out of time or memory.
    """
    from trt_qat.engine.aot import load
    from trt_qat.engine.confirm.preflight import preflight as judge
    from trt_qat.lint.rules.confirmed import FP16

    asked, insists = spec.preflight.confirm, spec.preflight.confirm == "rtx"
    if insists or (asked == "auto" and load.why_not() is None):
        try:
            return judge(onnx, spec.target, confirm="rtx", ignore=(FP16,))  # the build says it
        except CompilerDied:
            if insists:
                raise
    return judge(onnx, spec.target)


def preflight(run: Run) -> Metrics:
    """Write what TensorRT would do with the ONNX on the recipe's target."""
    found = _judged(run.path("model.onnx"), run.recipe.spec)
    # The run folder may be moved: its files are named from within.
    document = found.to_dict() | {"model": "model.onnx"}
    artifact.write_json(run.path("preflight.json"), document)
    failures = [
        _failure("preflight", f"preflight {item.rule}, {item.node}: {item.message} {item.mend}")
        for item in found.findings
        if item.severity == "error"
    ]
    return {"summary": found.summary, "failures": failures}
