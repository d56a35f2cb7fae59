"""Which calibration algorithm: accuracy and error of dense INT8 by algorithm, before any QAT.

    python benchmarks/calibration.py engines/digits-int8-24.toml engines/fashion-int8-24.toml

Algorithms are compared on the validation part of the training split, which chose the default in
trt_qat/specs.py; the test split stands beside it. SQNR is that of the network's outputs.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from trt_qat.artifact import platform_facts, versions, write_json
from trt_qat.measure.metrics import sqnr_db
from trt_qat.pipeline.run import run
from trt_qat.pipeline.stage import Run
from trt_qat.qat.evaluate import evaluate
from trt_qat.qat.factory import build_model
from trt_qat.qat.quantize import quantize
from trt_qat.recipe.load import load_recipe
from trt_qat.recipe.specs import CalibrationSpec

ALGORITHMS: tuple[dict[str, Any], ...] = (
    {"algorithm": "max"},
    {"algorithm": "percentile", "percentile": 99.9},
    {"algorithm": "percentile", "percentile": 99.99},
    {"algorithm": "entropy"},
    {"algorithm": "mse"},
)


def float_model(state: Run) -> torch.nn.Module:
    """Return the trained float model of a run folder."""
    spec = state.recipe.spec
    model = build_model(spec.model, state.recipe.folder, seed=spec.train.seed)
    model.load_state_dict(torch.load(state.path("fp32.pt"), weights_only=True))
    return model.eval()


def measure(state: Run, options: dict[str, Any]) -> dict[str, Any]:
    """Quantize the float model with one algorithm; accuracy, SQNR in dB, seconds to calibrate."""
    reference = evaluate(float_model(state), state.data.validation)
    batches = [torch.from_numpy(images) for images in state.calibration]
    start = time.perf_counter()
    model = quantize(float_model(state), batches, calibration=CalibrationSpec(**options))
    seconds = time.perf_counter() - start
    validation, test = evaluate(model, state.data.validation), evaluate(model, state.data.test)
    return {
        **options,
        "validation_accuracy": validation.accuracy,
        "validation_sqnr_db": sqnr_db(reference.logits, validation.logits),
        "test_accuracy": test.accuracy,
        "calibration_seconds": round(seconds, 2),
    }


def main() -> None:
    """Train once per recipe (or reuse the run folder), then measure every algorithm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("engines", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cpu/calibration.json"))
    given = parser.parse_args()
    document: dict[str, Any] = {
        "command": "python benchmarks/calibration.py " + " ".join(map(str, given.engines)),
        "machine": platform_facts(),
        "versions": versions(),
        "engines": {},
    }
    for engine in given.engines:
        result = run(engine, until="train")
        state = Run(load_recipe(engine), result.folder)
        fp32 = evaluate(float_model(state), state.data.validation).accuracy
        rows = [measure(state, options) for options in ALGORITHMS]
        document["engines"][engine.stem] = {"fp32_validation_accuracy": fp32, "algorithms": rows}
    write_json(given.out, document)
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
