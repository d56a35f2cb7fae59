"""The stage of a run that builds its engine."""

from __future__ import annotations

from typing import Any

from trt_qat import artifact
from trt_qat.comparison.built import build
from trt_qat.data import nest
from trt_qat.engine.build import network_io
from trt_qat.engine.evidence import evidence
from trt_qat.pipeline.stage import Run
from trt_qat.runners.protocol import Feed


def build_stage(run: Run) -> dict[str, Any]:
    """Build ``model.engine`` from ``model.onnx``; leave ``layers.json``.

    Raises:
        TrtQatError: as of `trt_qat.comparison.built.build`.
    """
    spec, out = run.recipe.spec, run.path("model.engine")
    made = build(
        run.path("model.onnx"), out, target=spec.target, spec=spec.build, feeds=_feeds(run)
    )
    artifact.write_json(run.path("layers.json"), made.layers)
    evidence.layers_path(out).unlink(missing_ok=True)  # the run's own name for it is layers.json
    found, sidecar = made.layers, artifact.read_sidecar(out)
    held = sidecar.metrics.get("verification") if sidecar is not None else None
    return {
        "verification": held or {"checked": False, "why": "it was built without a GPU, not run"},
        "engine": {
            "build_seconds": round(made.seconds, 1),
            "source": found["source"],
            "census": found["census"],
            "sparsity": found["sparsity"],
            "skipped_tactics": found["skipped_tactics"],
            **{key: found[key] for key in ("scope", "traffic", "against_fp16") if key in found},
        },
    }


def _feeds(run: Run) -> list[Feed]:
    """Return calibration samples, to measure what FP16 can hold."""
    inputs = network_io.read(run.path("model.onnx")).inputs
    given = next(iter(run.calibration))
    first = next(iter(inputs.values())).shape[0]
    given = nest.rows(given, slice(0, first)) if isinstance(first, int) else given
    return [nest.feed_of(given, list(inputs))]
