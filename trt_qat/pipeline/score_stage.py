"""The stage of a run that scores its engine on the test set, and holds it against the ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from trt_qat import artifact
from trt_qat.comparison.compare import compare
from trt_qat.measure.outputs import Axes
from trt_qat.pipeline.answers import answered, batches, feed_of
from trt_qat.pipeline.stage import Run
from trt_qat.runners.open import runner
from trt_qat.runners.ort import OrtRunner


def score_stage(run: Run, spec: str) -> dict[str, Any]:
    """Write ``engine.json`` and ``engine_answers.npz``.

    Args:
        run: with a ``model.onnx``, which is the reference.
        spec: a SPEC of its engine.

    Raises:
        TrtQatError: the engine does not run, or does not take the samples.
    """
    with runner(spec) as engine:
        found = answered(run, engine)
    with artifact.atomic_path(run.path("engine_answers.npz")) as path:
        np.savez_compressed(path, logits=found.kept)
    onnx = OrtRunner(run.path("model.onnx"))
    feeds = (feed_of(onnx, inputs) for inputs, _ in batches(run, onnx))
    axes = Axes(task=run.recipe.spec.task.kind)
    parity = compare(onnx, runner(spec), feeds, axes=axes, layers=False, bisect=False)
    artifact.write_json(run.path("engine.json"), parity.to_dict() | {"score": found.entry})
    return {"engine": found.entry}
