"""What a cell does on the GPU: build, inspect, compare, time. The base install is enough."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu import forms, predicted
from benchmarks.gpu.catalog import RATIOS, VARIANTS, Variant
from benchmarks.gpu.cells import Cell
from trt_qat.benching import stats
from trt_qat.benching.bench import bench
from trt_qat.benching.settings import Settings
from trt_qat.engine import compat, machine
from trt_qat.engine.build.build import build
from trt_qat.engine.build.implicit import build_implicit
from trt_qat.engine.build.result import EngineArtifact
from trt_qat.engine.evidence.inspect import inspector_text
from trt_qat.engine.execution.runner import TrtRunner
from trt_qat.engine.loading import load_engine
from trt_qat.engine.log import make_log
from trt_qat.engine.sticky import is_sticky
from trt_qat.errors import CheckFailed, TrtQatError
from trt_qat.measure import metrics
from trt_qat.runners.protocol import Feed

REBUILDS = 3
SESSIONS = 6
CALIBRATED = 8
"""Samples a batch of the implicit calibration, and of the ranges that FP16 must hold."""
WARMUP_S = 0.5


@dataclass
class Bench:
    """What all cells share.

    Attributes:
        carried: folder of the ONNX files, inputs and answers.
        models: entries of the manifest.
        work: where engines and derived ONNX files lie.
        out: where results go.
        seconds: of timing for each engine in a comparison.
        common: options of every build.
        weights: ``int8`` or ``fp32``: form of the quantized weights.
        skip: variants that are left out.
    """

    carried: Path
    models: dict[str, Any]
    work: Path
    out: Path
    seconds: float = 3.0
    common: dict[str, Any] = field(default_factory=dict)
    weights: str = "int8"
    skip: tuple[str, ...] = ()

    def onnx(self, name: str, variant: Variant) -> Path:
        """Return the file that a variant of a model is built from."""
        scratch = self.work / "onnx" / name
        return forms.file_of(self.carried / name, variant.onnx, scratch, weights=self.weights)

    def feeds(self, name: str, batch: int) -> tuple[dict[str, Any], int]:
        """Return ``batch`` carried samples, repeated where they are fewer, and how many differ."""
        with np.load(self.carried / name / "inputs.npz") as archive:
            arrays = [archive[key] for key in sorted(archive.files, key=int)]
        samples = len(arrays[0])
        pick = np.arange(batch) % samples
        return {str(at): array[pick] for at, array in enumerate(arrays)}, min(batch, samples)

    def engine(self, cell: Cell, variant: Variant) -> Path:
        """Return where the engine of a cell lies; built if it does not."""
        path = self.path(cell, variant)
        if not path.is_file():
            self.make(cell, variant, path)
        return path

    def path(self, cell: Cell, variant: Variant, tag: str = "") -> Path:
        """Return where an engine lies, or will."""
        batch = cell.batch or "range"
        return self.work / "engines" / cell.name / f"{variant.name}-b{batch}{tag}.engine"

    def make(self, cell: Cell, variant: Variant, path: Path, **options: Any) -> EngineArtifact:
        """Build the engine of a cell."""
        onnx = self.onnx(cell.name, variant)
        spec = variant.spec(cell.range, self.common | options)
        feeds = self.calibration(cell.name, variant)
        if variant.implicit:
            return build_implicit(onnx, path, feeds, spec=spec)
        # Without preflight: whether TensorRT refuses what it calls an error is to be found out.
        return build(onnx, path, spec=spec, feeds=feeds[:1], preflight=False)

    def calibration(self, name: str, variant: Variant) -> list[Feed]:
        """Return all carried samples, in batches of `CALIBRATED`."""
        every = self.models[name]["samples"]
        arrays, _ = self.feeds(name, every)
        named = dict(zip(self.inputs(name, variant), arrays.values(), strict=True))
        return [
            {key: array[at : at + CALIBRATED] for key, array in named.items()}
            for at in range(0, every - every % CALIBRATED, CALIBRATED)
        ]

    def named(self, cell: Cell, variant: Variant) -> Feed:
        """Return carried samples by the names that a variant's ONNX has for its inputs."""
        arrays, _ = self.feeds(cell.name, cell.batch or 8)
        return dict(zip(self.inputs(cell.name, variant), arrays.values(), strict=True))

    def published(self, name: str) -> bool:
        """Tell whether a model has its published size, and so an engine for every batch size."""
        return bool(self.models[name]["published"])

    def inputs(self, name: str, variant: Variant) -> list[str]:
        """Return the names of a variant's inputs, in the model's order."""
        known: list[str] = self.models[name]["known"][variant.onnx]["inputs"]
        return known


def build_cell(bench_: Bench, cell: Cell) -> dict[str, Any]:
    """Build, inspect, hold preflight's prediction against it, and compare with the answers."""
    variant = VARIANTS[cell.variant]
    path = bench_.path(cell, variant)
    made = bench_.make(cell, variant, path)
    keep_inspector(path, bench_.out / "inspector" / cell.name / f"{path.stem}.json.gz")
    layers = bench_.models[cell.name]["known"][variant.onnx]["preflight"]["layers"]
    told = ("census", "sparsity", "skipped_tactics", "largest_request_bytes", "warnings")
    return {
        "build_seconds": round(made.seconds, 1),
        "engine_bytes": path.stat().st_size,
        **{key: made.layers[key] for key in told},
        "prediction": predicted.table(layers, made.layers),
        "compare": compare_cell(bench_, cell, variant, path),
    }


def keep_inspector(engine: Path, out: Path) -> None:
    """Keep the inspector's own words: rules and parsers are corrected by them."""
    trt = compat.load()
    loaded = load_engine(trt, engine.read_bytes(), engine, make_log(trt))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(gzip.compress(inspector_text(trt, loaded).encode(), mtime=0))


def compare_cell(bench_: Bench, cell: Cell, variant: Variant, engine: Path) -> list[dict[str, Any]]:
    """Run an engine on the carried samples; return how far each output is from the answers."""
    feed = bench_.named(cell, variant)
    _, count = bench_.feeds(cell.name, cell.batch or 8)
    with np.load(bench_.carried / cell.name / "answers.npz") as archive:
        torch = [archive[key] for key in sorted(archive.files) if key.startswith("torch/")]
        ours = [archive[key] for key in archive.files if key.startswith(f"{variant.onnx}/")]
    with TrtRunner(engine) as runner:
        outputs = runner.infer(feed)
    floor = bench_.models[cell.name]["known"][variant.onnx]["rounding_sqnr_db"]
    return [
        {
            "output": name,
            "samples": count,
            "rounding_sqnr_db": rounding,
            "against_onnxruntime": differences(ort[:count], got[:count]),
            "against_torch_fp32": differences(float_[:count], got[:count]),
        }
        for (name, got), ort, float_, rounding in zip(
            outputs.items(), ours, torch, floor, strict=True
        )
    ]


def differences(ref: Any, got: Any) -> dict[str, Any]:
    """Return how far an output is from its reference.

    Raises:
        CheckFailed: their shapes differ, or the output holds NaN or infinity.
    """
    if ref.shape != got.shape or not np.isfinite(got).all():
        message = f"an output of shape {got.shape}, finite or not, for a reference of {ref.shape}"
        raise CheckFailed(message)
    return {
        "max_abs": metrics.max_abs(ref, got),
        "largest": float(np.max(np.abs(ref), initial=0.0)),
        "cosine": metrics.cosine(ref, got),
        "sqnr_db": metrics.sqnr_db(ref, got),
        "argmax_agreement": metrics.argmax_agreement(ref, got),
    }


def time_cell(bench_: Bench, cell: Cell) -> dict[str, Any]:
    """Time the engines of a model at a batch size, all in turns; compare each pair of `RATIOS`.

    A variant that cannot be built is left out, and the reason is kept.
    """
    shared = Cell("build", cell.name, "", cell.batch if bench_.published(cell.name) else 0)
    missing: dict[str, str] = {}
    ready: dict[str, Path] = {}
    for name in dict.fromkeys(name for pair in RATIOS for name in pair[:2]):
        if name in bench_.skip:
            continue
        try:
            ready[name] = bench_.engine(shared, VARIANTS[name])
        except (TrtQatError, KeyError) as error:
            if is_sticky(str(error)):  # what follows would be called missing for the same error
                raise
            missing[name] = f"{type(error).__name__}: {error}"
    found = timed(bench_, cell, ready)
    pairs = [
        {"a": a, "b": b, "wanted": wanted, **ratio(found["runs"][a], found["runs"][b])}
        for a, b, wanted in RATIOS
        if a in ready and b in ready
    ]
    return found | {"pairs": pairs, "missing": missing}


def timed(bench_: Bench, cell: Cell, engines: Mapping[str, Path]) -> dict[str, Any]:
    """Time engines in turns, as CUDA graphs where cuda-python is installed."""
    arrays, _ = bench_.feeds(cell.name, cell.batch)
    data = dict(zip(bench_.inputs(cell.name, VARIANTS["dense"]), arrays.values(), strict=True))
    graphs = machine.bindings()["cuda-python"]
    specs = [f"{'trt-graph' if graphs else 'trt'}:{engine}" for engine in engines.values()]
    settings = Settings(
        precision=0.005, seconds=bench_.seconds, sessions=SESSIONS, warmup_s=WARMUP_S
    )
    result = bench(specs, batches=[cell.batch], data=data, settings=settings).to_dict()
    keys = ("latency_ms", "throughput", "iterations", "session_p50_ms", "timer")
    return {
        "runs": {
            name: {key: run[key] for key in keys}
            for name, run in zip(engines, result["runs"], strict=True)
        },
        "cuda_graph": graphs,
        "load": result["device"]["load"],
        "warnings": result["warnings"],
    }


def ratio(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ratio of two runs of one benchmark, paired by session."""
    logs = np.log(a["session_p50_ms"]) - np.log(b["session_p50_ms"])
    found = stats.signed_rank_interval(logs).exp()
    return {
        "p50_ratio": found.center,
        "ci95": [found.low, found.high],
        "verdict": stats.verdict(found),
        "p50_ms": [each["latency_ms"]["p50"] for each in (a, b)],
    }


def rebuild_cell(bench_: Bench, cell: Cell) -> dict[str, Any]:
    """Build the 2:4 engine anew without a timing cache; the choice of kernels may differ."""
    engines = {"dense kernels": bench_.engine(cell, VARIANTS["sparse-off"])}
    rounds = []
    for at in range(REBUILDS):
        path = bench_.path(cell, VARIANTS["sparse"], f"-again{at}")
        made = bench_.make(cell, VARIANTS["sparse"], path, timing_cache="none")
        chosen = [each["name"] for each in made.layers["layers"] if each["sparse"] == "sparse"]
        rounds.append({"sparsity": made.layers["sparsity"], "sparse_kernels": chosen})
        engines[f"rebuild {at}"] = path
    found = timed(bench_, cell, engines)
    for at, each in enumerate(rounds):
        runs = found["runs"]
        each["over_dense_kernels"] = ratio(runs[f"rebuild {at}"], runs["dense kernels"])
    return found | {"rounds": rounds}
