"""The stage of a run that times its engine."""

from __future__ import annotations

from typing import Any

from trt_qat import artifact
from trt_qat.benching.bench import bench
from trt_qat.pipeline.stage import Run


def bench_stage(run: Run, spec: str) -> dict[str, Any]:
    """Write ``bench.json``: latency of the run's model at the batch that it is tuned for.

    The inputs are images of the test split, in turn.

    Args:
        run: whose ``model.onnx`` gives the roofline of ``target``, where the recipe names one.
        spec: a SPEC of the run's engine.

    Raises:
        TrtQatError: as of `trt_qat.benching.bench.bench`.
    """
    recipe = run.recipe.spec
    found = bench(
        spec,
        batches=[recipe.build.batch[1]] if recipe.export.dynamic_batch else [],
        data={"images": run.data.test.images},  # a single input takes it whatever its name
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
