"""The stages of a run that need no torch: what is proven about the exported ONNX."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trt_qat import artifact
from trt_qat.backends import why_no_torch
from trt_qat.comparison.compare import Comparison, compare_outputs
from trt_qat.comparison.compare import compare as compare_runners
from trt_qat.comparison.histograms import histograms
from trt_qat.comparison.layerwise import MIN_LOCAL_SQNR_DB
from trt_qat.data import nest
from trt_qat.errors import CompilerDied, SparsityLost
from trt_qat.gate.parity import (
    chance_failures,
    chance_of,
    graded_chance_of,
    parity_failures,
)
from trt_qat.graph.layer_facts import layer_facts
from trt_qat.graph.load import load_graph
from trt_qat.graph.section import around
from trt_qat.graph.sparsity import LayerSparsity, layer_sparsity
from trt_qat.measure.outputs import Axes
from trt_qat.pipeline.answers import Answered, answered, batches, feed_of, identified
from trt_qat.pipeline.stage import Metrics, Run
from trt_qat.pipeline.with_torch import torch_stages
from trt_qat.recipe.specs import EngineSpec
from trt_qat.runners.ort import OrtRunner
from trt_qat.runners.ort_tapped import OrtTapped
from trt_qat.runners.protocol import Outputs

if TYPE_CHECKING:
    from trt_qat.lint.preflight import PreflightReport

LAYER_SAMPLES = 64
HISTOGRAM_SAMPLES = 64


def compare(run: Run) -> Metrics:
    """Compare onnxruntime with torch fake-quant on the whole test set, and read 2:4 off the ONNX.

    What falls short of the recipe's tolerances is listed under ``failures``, so that everything
    is written before the run is failed.
    """
    labels = identified(run)  # once: a streamed test set is read for them
    (parity, plain), (fused, integers) = (
        _against(run, labels, fused=fused) for fused in (False, True)
    )
    _keep_answers(run, labels, {"onnx": plain.kept, "onnx_fused": integers.kept})
    sparsity = _sparsity(run)
    known = (
        chance_of(plain.kept, labels)
        if run.keeps_outputs
        else graded_chance_of(plain.entry, plain.blind)
    )
    failures = [*parity_failures(parity, run.recipe.spec.tolerances), *_accuracy_failures(run)]
    failures += chance_failures(known, plain.entry)
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
    return {"onnx": plain.entry, "onnx_fused": integers.entry, "failures": failures}


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
        "layer_samples": min(LAYER_SAMPLES, len(run.data.test)),
        "min_local_sqnr_db": MIN_LOCAL_SQNR_DB,
        "first_divergence": None if first is None else asdict(first),
        "section": section,
    }


def _layer_evidence(run: Run) -> dict[str, Any]:
    """Return what the report shows of every layer, and of every tensor that is quantized."""
    candidate = OrtTapped(run.path("model.onnx"))
    inputs = candidate.model.graph.input
    fixed = inputs[0].type.tensor_type.shape.dim[0].dim_value
    given, _ = run.data.test.head(fixed or HISTOGRAM_SAMPLES)
    count = nest.count(given)
    feed = nest.feed_of(given, [value.name for value in inputs])
    seen = [] if count < fixed else histograms(candidate, feed)
    return {
        "weights": [asdict(layer) for layer in layer_facts(candidate.model)],
        "histograms": [counts.to_dict() for counts in seen],
        "histogram_samples": count,
    }


def _keep_answers(run: Run, labels: NDArray[Any], answers: Outputs) -> None:
    """Keep what the ONNX answers on the test set: `trt_qat.gate` compares runs sample by sample."""
    arrays: dict[str, Any] = {"labels": labels, "ids": run.data.test.ids, **answers}
    if not run.keeps_outputs:
        for stage in ("fp32", "qat"):
            with np.load(run.path(f"{stage}_logits.npz")) as archive:
                arrays[stage] = archive["scores"]
    with artifact.atomic_path(run.path("answers.npz")) as path:
        np.savez_compressed(path, **arrays)


def _failure(check: str, message: str) -> dict[str, str]:
    return {"check": check, "message": message}


def _accuracy_failures(run: Run) -> Iterator[dict[str, str]]:
    float_model, trained = _entry(run, "fp32"), _entry(run, "qat")
    fp32, qat = float_model["accuracy"], trained["accuracy"]
    allowed = run.recipe.spec.tolerances.accuracy_loss
    if fp32 - qat > allowed:
        yield _failure(
            "accuracy_loss",
            f"QAT reaches {qat:.2%}, {fp32 - qat:.2%} below FP32; "
            f"tolerances.accuracy_loss = {allowed}",
        )


def _entry(run: Run, stage: str) -> dict[str, Any]:
    sidecar = artifact.read_sidecar(run.path(f"{stage}.pt"))
    assert sidecar is not None
    entry: dict[str, Any] = sidecar.metrics[stage]
    return entry


def _against(run: Run, labels: NDArray[Any], *, fused: bool) -> tuple[Comparison, Answered]:
    """Compare the ONNX with the trained model, and score it; logits that were kept are taken."""
    onnx = run.path("model.onnx")
    with OrtRunner(onnx, fused=fused) as runner:
        name = f"{runner.name}:model.onnx"
        found = answered(run, runner)
    if run.keeps_outputs:
        with np.load(run.path("qat_logits.npz")) as archive:
            reference = ("torch:fake-quant", {"logits": archive["logits"]})
        parity = compare_outputs(
            reference,
            (name, {"logits": found.kept}),
            labels=labels,
            min_agreement=run.recipe.spec.tolerances.argmax_agreement,
        )
        return parity, found
    model, again = torch_stages("compare").runner(run), OrtRunner(onnx, fused=fused)
    feeds = (feed_of(again, inputs) for inputs, _ in batches(run, again))
    axes = Axes(task=run.recipe.spec.task.kind)
    parity = compare_runners(model, again, feeds, axes=axes, layers=False)
    both = {"ref": _entry(run, "qat")["accuracy"], "cand": found.entry["accuracy"]}
    return replace(parity, ref="torch:fake-quant", cand=name, accuracy=both), found


def _sparsity(run: Run) -> list[dict[str, Any]]:
    """Return what every layer reported sparse holds in the exported weights.

    Raises:
        SparsityLost: a layer reported sparse is not in the graph at all.
    """
    reported = run.sparse_layers()
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
