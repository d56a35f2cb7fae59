"""trt-qat: PyTorch models to 2:4-sparse INT8 TensorRT engines.

Public names are resolved when they are first used, so that importing the package is quick and
needs neither torch nor TensorRT.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trt_qat import moved

if TYPE_CHECKING:
    from trt_qat.benching.bench import bench
    from trt_qat.benching.result import BenchResult
    from trt_qat.comparison.built import build
    from trt_qat.comparison.compare import Comparison, compare
    from trt_qat.data import ArraySplit, Dataset
    from trt_qat.data import load as load_data
    from trt_qat.data.ranges import Ranges
    from trt_qat.engine.build.result import EngineArtifact
    from trt_qat.engine.confirm.preflight import preflight
    from trt_qat.engine.evidence.trust import inspect_file as inspect
    from trt_qat.engine.handover.bundle import bundle
    from trt_qat.gate.gate import check
    from trt_qat.lint.preflight import PreflightReport
    from trt_qat.mend.fix import fix
    from trt_qat.page import write as report
    from trt_qat.pipeline.run import RunResult, run
    from trt_qat.pipeline.torch_loop import Run
    from trt_qat.qat.adopt import adopt
    from trt_qat.qat.averaging import reestimate_norms
    from trt_qat.qat.budget import budget
    from trt_qat.qat.distill import Distillation
    from trt_qat.qat.export import export
    from trt_qat.qat.finetune import finetune
    from trt_qat.qat.flatness import perturbed, sharpness
    from trt_qat.qat.moving_masks import recompute_masks
    from trt_qat.qat.quantize import quantize, ranges_of
    from trt_qat.qat.reports import report_of
    from trt_qat.qat.sensitivity import sensitivity
    from trt_qat.qat.sparsify import sparsify
    from trt_qat.recipe.load import Recipe, load_recipe
    from trt_qat.recipe.specs import (
        BuildSpec,
        CalibrationSpec,
        DistillSpec,
        ExportSpec,
        FinetuneSpec,
        PtqSpec,
        QuantizeSpec,
        SparsitySpec,
        TaskSpec,
        TrainSpec,
    )
    from trt_qat.runners.open import runner
    from trt_qat.runners.ort import OrtRunner
    from trt_qat.runners.protocol import Runner

moved.install()

__version__ = "0.1.0"

_HOME = {
    # train
    "sparsify": "trt_qat.qat.sparsify",
    "quantize": "trt_qat.qat.quantize",
    "adopt": "trt_qat.qat.adopt",
    "ranges_of": "trt_qat.qat.quantize",
    "Ranges": "trt_qat.data.ranges",
    "finetune": "trt_qat.qat.finetune",
    "Distillation": "trt_qat.qat.distill",
    "perturbed": "trt_qat.qat.flatness",
    "sharpness": "trt_qat.qat.flatness",
    "reestimate_norms": "trt_qat.qat.averaging",
    "recompute_masks": "trt_qat.qat.moving_masks",
    "export": "trt_qat.qat.export",
    "report_of": "trt_qat.qat.reports",
    "sensitivity": "trt_qat.qat.sensitivity",
    "budget": "trt_qat.qat.budget",
    # how, instead of a dict
    "TaskSpec": "trt_qat.recipe.specs",
    "CalibrationSpec": "trt_qat.recipe.specs",
    "SparsitySpec": "trt_qat.recipe.specs",
    "QuantizeSpec": "trt_qat.recipe.specs",
    "PtqSpec": "trt_qat.recipe.specs",
    "DistillSpec": "trt_qat.recipe.specs",
    "ExportSpec": "trt_qat.recipe.specs",
    "TrainSpec": "trt_qat.recipe.specs",
    "FinetuneSpec": "trt_qat.recipe.specs",
    "BuildSpec": "trt_qat.recipe.specs",
    # judge
    "preflight": "trt_qat.engine.confirm.preflight",
    "PreflightReport": "trt_qat.lint.preflight",
    "fix": "trt_qat.mend.fix",
    # build
    "build": "trt_qat.comparison.built",
    "EngineArtifact": "trt_qat.engine.build.result",
    "inspect": "trt_qat.engine.evidence.trust",
    # compare
    "compare": "trt_qat.comparison.compare",
    "Comparison": "trt_qat.comparison.compare",
    "runner": "trt_qat.runners.open",
    "Runner": "trt_qat.runners.protocol",
    "OrtRunner": "trt_qat.runners.ort",
    # bench
    "bench": "trt_qat.benching.bench",
    "BenchResult": "trt_qat.benching.result",
    # the whole flow
    "load_recipe": "trt_qat.recipe.load",
    "Recipe": "trt_qat.recipe.load",
    "load_data": "trt_qat.data",
    "Dataset": "trt_qat.data",
    "ArraySplit": "trt_qat.data",
    "run": "trt_qat.pipeline.run",
    "RunResult": "trt_qat.pipeline.run",
    "Run": "trt_qat.pipeline.torch_loop",
    # of a run folder
    "check": "trt_qat.gate.gate",
    "report": "trt_qat.page",
    "bundle": "trt_qat.engine.handover.bundle",
}

_CALLED_THERE = {"load_data": "load", "inspect": "inspect_file", "report": "write"}

__all__ = [  # noqa: RUF022  (in the order of the flow, not of the alphabet)
    # train
    "sparsify",
    "quantize",
    "adopt",
    "ranges_of",
    "Ranges",
    "finetune",
    "Distillation",
    "perturbed",
    "sharpness",
    "reestimate_norms",
    "recompute_masks",
    "export",
    "report_of",
    "sensitivity",
    "budget",
    # how, instead of a dict
    "TaskSpec",
    "CalibrationSpec",
    "SparsitySpec",
    "QuantizeSpec",
    "PtqSpec",
    "DistillSpec",
    "ExportSpec",
    "TrainSpec",
    "FinetuneSpec",
    "BuildSpec",
    # judge
    "preflight",
    "PreflightReport",
    "fix",
    # build
    "build",
    "EngineArtifact",
    "inspect",
    # compare
    "compare",
    "Comparison",
    "runner",
    "Runner",
    "OrtRunner",
    # bench
    "bench",
    "BenchResult",
    # the whole flow
    "load_recipe",
    "Recipe",
    "load_data",
    "Dataset",
    "ArraySplit",
    "run",
    "RunResult",
    "Run",
    # of a run folder
    "check",
    "report",
    "bundle",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        message = f"module 'trt_qat' has no attribute {name!r}"
        raise AttributeError(message)
    from trt_qat.backends import lacks

    try:
        home = importlib.import_module(_HOME[name])
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("trt_qat"):
            raise
        what = f"trt_qat.{name}"
        raise lacks(what, error.name, "train") from error
    value = getattr(home, _CALLED_THERE.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
