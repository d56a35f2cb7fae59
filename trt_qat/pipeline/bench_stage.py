"""The stage of a run that times its engine."""

from __future__ import annotations

from typing import Any

from trt_qat import artifact
from trt_qat.benching.bench import bench
from trt_qat.data import nest
from trt_qat.engine.build import network_io
from trt_qat.pipeline.stage import Run

SAMPLES = 1024
"""Of the test split, that are fed in turn."""


def bench_stage(run: Run, spec: str) -> dict[str, Any]:
    """Write ``bench.json``: latency of the run's model at the batch that it is tuned for.

    The inputs are samples of the test split, in turn.

    Args:
        run: whose ``model.onnx`` gives the roofline of ``target``, where the recipe names one.
        spec: a SPEC of the run's engine.

    Raises:
        TrtQatError: as of `trt_qat.benching.bench.bench`.
    """
    recipe = run.recipe.spec
    inputs = network_io.read(run.path("model.onnx")).inputs
    found = bench(
        spec,
        batches=[recipe.build.batch[1]] if recipe.export.dynamic_batch else [],
        data=nest.feed_of(run.data.test.head(SAMPLES)[0], list(inputs)),
        target=recipe.target,
        model=run.path("model.onnx"),
    )
    document = found.to_dict()
    artifact.write_json(run.path("bench.json"), document)
    (timed,) = document["runs"]
    return {
        "bench": {
            "batch": timed["batch"],
            "p50_ms": timed["latency_ms"]["p50"],
            "throughput": timed["throughput"],
            "warnings": document["warnings"],
        }
    }
