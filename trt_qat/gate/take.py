"""From a run folder to its `Snapshot`: what each of its files has to say."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from trt_qat.errors import InputError, first_line
from trt_qat.gate.answers import Answers, RunFolder
from trt_qat.gate.snapshot import (
    Latency,
    Preflight,
    Proof,
    Snapshot,
    SparseKernels,
    TestSet,
    Timing,
)
from trt_qat.gate.task_metrics import RESAMPLES, measure

JUDGED = ("engine", "onnx")
"""What ships, best first: the stage that is judged unless one is named."""

T = TypeVar("T")


def take(
    run: RunFolder,
    answers: Answers,
    *,
    metrics: tuple[str, ...] = ("top1",),
    stage: str | None = None,
    resamples: int = RESAMPLES,
) -> Snapshot:
    """Take the snapshot of a run.

    Args:
        run: the run folder.
        answers: of that folder.
        metrics: names or import paths; the first is the one that a preset judges.
        stage: whose answers are judged; None: the engine's, or else the ONNX's.
        resamples: for metrics of whole sets.

    Raises:
        TrtQatError: a metric, a stage or a file of the run cannot be used.
    """
    stage = _judged(run, answers, stage)
    scores = {
        name: {
            part: measure(name, outputs, answers.labels, resamples=resamples)
            for part, outputs in answers.outputs.items()
        }
        for name in metrics
    }
    return Snapshot(
        name=run.name,
        test=test_set(run, answers, stage),
        stage=stage,
        resamples=resamples,
        metrics=scores,
        sizes=_sizes(run),
        preflight=_read(run, "preflight.json", _preflight),
        sparsity=_read(run, "compare.json", _proof),
        kernels=_read(run, "layers.json", _kernels),
        latency=_read(run, "bench.json", _latency),
        versions=(run.manifest or {}).get("versions", {}),
    )


def _judged(run: RunFolder, answers: Answers, stage: str | None) -> str:
    have = list(answers.outputs)
    if stage is None:
        known = [name for name in JUDGED if name in have]
        if known or len(have) == 1:
            return (known or have)[0]
        message = f"{run.path}: answers of {', '.join(have)}; say with --stage which are judged"
        raise InputError(message)
    if stage not in have:
        message = f"{run.path}: no answers of the stage {stage!r}; there are {', '.join(have)}"
        raise InputError(message)
    return stage


def test_set(run: RunFolder, answers: Answers, stage: str) -> TestSet:
    """Return what tells the test set of a run from any other."""
    labels, outputs = answers.labels, answers.outputs[stage]
    kind = "<i8" if labels.dtype.kind in "iub" else "<f8"
    digest = hashlib.sha256(repr(labels.shape).encode())
    for array in (labels.astype(kind), answers.ids.astype("<i8")):
        digest.update(np.ascontiguousarray(array).data)
    # A score for every class: (N, classes) for (N,) labels, (N, classes, H, W) for (N, H, W).
    classed = kind == "<i8" and outputs.ndim == labels.ndim + 1
    images = ((run.manifest or {}).get("data", {}).get("test") or {}).get("sha256")
    return TestSet(
        samples=len(labels),
        classes=outputs.shape[1] if classed else None,
        sha256=digest.hexdigest(),
        images_sha256=images,
    )


def _sizes(run: RunFolder) -> dict[str, int]:
    sizes = {}
    for name in ("model.onnx", "model.engine"):
        if (path := run.file(name)) is not None:
            weights = run.path.glob(f"{name}.*.data")  # of a model above 2 GB
            sizes[name] = sum(part.stat().st_size for part in (path, *weights))
    return sizes


def _read(run: RunFolder, name: str, reader: Callable[[Any], T]) -> T | None:
    document = run.document(name)
    if document is None:
        return None
    try:
        return reader(document)
    except (KeyError, TypeError, AttributeError, IndexError, ValidationError) as error:
        what = "a key is missing: " if isinstance(error, KeyError) else ""
        message = f"{run.path / name}: not as trt-qat writes it ({what}{first_line(error)})"
        raise InputError(message) from error


def _preflight(document: Any) -> Preflight:
    summary = document["summary"]
    rules = Counter(finding["rule"] for finding in document["findings"])
    return Preflight(
        target=document["target"],
        tensorrt=document.get("tensorrt"),
        errors=summary["errors"],
        warnings=summary["warnings"],
        int8=summary["int8_in_int8_out"],
        rules=dict(sorted(rules.items())),
    )


def _proof(document: Any) -> Proof:
    layers = document["sparsity"]
    return Proof(reported=len(layers), proven=sum(layer["holds_2_4"] for layer in layers))


def _kernels(document: Any) -> SparseKernels | None:
    counts = document.get("sparsity")
    if counts is None or counts.get("found") is None:  # a build without a verbose log
        return None
    return SparseKernels(found=counts["found"], chosen=counts["chose"])


def _latency(document: Any) -> Latency:
    specs = {}
    for entry in document["runs"]:
        kind, _, path = entry["spec"].partition(":")
        latency = entry["latency_ms"]
        low, high = latency["ci95"]
        name = f"{kind}:{PurePath(path).name}"
        if "batch" in entry:
            name += f" batch {entry['batch']}"
        specs[name] = Timing(p50=latency["p50"], low=low, high=high)
    return Latency(device=_device(document["device"]), specs=specs)


def _device(device: Any) -> str:
    """Return what two benchmarks must have in common: processors and power mode, not their load."""
    if not isinstance(device, dict):
        return str(device)
    gpus = [gpu.get("name") for gpu in device.get("gpus") or ()]
    jetson = device.get("jetson") or {}
    parts = (*gpus, device.get("cpu"), jetson.get("model"), jetson.get("power_mode"))
    return ", ".join(str(part) for part in parts if part) or "unknown"
