"""The plan of a run: every stage in order, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trt_qat import artifact
from trt_qat.backends import why_no_torch
from trt_qat.engine.aot import load
from trt_qat.engine.build.backend import chosen, why_not
from trt_qat.engine.machine import on_this_gpu, why_not_run
from trt_qat.errors import RecipeError, nearest
from trt_qat.pipeline.stage import Metrics, Run, Stage, stage_fingerprint
from trt_qat.pipeline.with_torch import torch_stage
from trt_qat.recipe.specs import EngineSpec

QAT_CODE = ("recipe/specs.py", "recipe/task.py", "data/*.py", "tasks/*.py", "qat/**/*.py")
GRAPH_CODE = ("graph/*.py", "runners/*.py", "pipeline/verify.py")
COMPARE_CODE = ("measure/*.py", "comparison/*.py", "qat/tapped.py", "gate/parity.py")


def _verify(name: str) -> Any:
    def work(run: Run) -> Metrics:
        from trt_qat.pipeline import verify

        return getattr(verify, name)(run)  # type: ignore[no-any-return]

    return work


def _build(run: Run) -> Metrics:
    from trt_qat.pipeline.engine_stage import build_stage

    return build_stage(run)


def _why_not_built(run: Run) -> str | None:
    spec = run.recipe.spec
    return why_not(spec.build.backend, spec.target)


def _compiler_version() -> dict[str, object] | None:
    return {"rtx": load.version()} if load.version() else None


def _compilers() -> dict[str, object] | None:
    """Return what an engine depends on beside its ONNX and its options."""
    found = {"rtx": load.version()} if load.version() else {}
    return {**(on_this_gpu() or {}), **found} or None


def _precisions(run: Run) -> Metrics:
    from trt_qat.pipeline.precisions import precisions

    return precisions(run)


def _score(run: Run) -> Metrics:
    from trt_qat.pipeline.score_stage import score_stage

    return score_stage(run, _engine(run))


def _write_report(run: Run) -> Metrics:
    from trt_qat import page

    page.write(run.folder)
    return {}


def _bench(run: Run) -> Metrics:
    from trt_qat.pipeline.bench_stage import bench_stage

    return bench_stage(run, _engine(run))


def _engine(run: Run) -> str:
    """Return the SPEC of a run's engine."""
    kind = "trt-rtx" if _compiled_for_rtx(run) else "trt"
    return f"{kind}:{run.path('model.engine')}"


def _compiled_for_rtx(run: Run) -> bool:
    """Tell whether TensorRT for RTX makes the engine of a run, if any does here."""
    spec = run.recipe.spec
    return why_not(spec.build.backend, spec.target) is None and (
        chosen(spec.build.backend, spec.target) == "rtx"
    )


def _of_gains(spec: EngineSpec) -> tuple[str, ...]:
    """Return what decides which layers gain by 2:4."""
    return ("quantize", "target") if spec.sparsity.where == "gains" else ()


def _why_not_timed(run: Run) -> str | None:
    return load.why_not_run() if _compiled_for_rtx(run) else why_not_run()


PLAN = (
    Stage(
        "train",
        outputs=("fp32.pt", "fp32_logits.npz", "train.history.json"),
        tables=("model", "task", "train"),
        packages=QAT_CODE,
        work=torch_stage("train"),
        why_not=why_no_torch,
        ranks=True,
    ),
    Stage(
        "sparsify",
        outputs=("sparsity.json",),
        parents=("fp32.pt",),
        tables=("model", "task", "sparsity", "calibration"),
        tables_for=_of_gains,
        packages=(*QAT_CODE, "lint/**/*.py", "targets.py"),
        work=torch_stage("sparsify"),
        why_not=why_no_torch,
        ranks=True,
    ),
    Stage(
        "quantize",
        outputs=("ranges.json", "placement.json", "ptq.pt"),
        parents=("fp32.pt", "sparsity.json"),
        tables=("model", "task", "sparsity", "quantize", "calibration", "ptq"),
        packages=QAT_CODE,
        work=torch_stage("quantize"),
        why_not=why_no_torch,
        ranks=True,
    ),
    Stage(
        "finetune",
        outputs=("qat.pt", "qat_logits.npz", "finetune.history.json"),
        parents=("fp32.pt", "sparsity.json", "ranges.json", "placement.json", "ptq.pt"),
        tables=("model", "task", "sparsity", "quantize", "ptq", "distill", "finetune"),
        packages=QAT_CODE,
        work=torch_stage("finetune"),
        why_not=why_no_torch,
        ranks=True,
    ),
    Stage(
        "export",
        outputs=("model.onnx", "fp32.onnx"),
        parents=("fp32.pt", "ranges.json", "ptq.pt", "qat.pt"),
        tables=("model", "sparsity", "quantize", "ptq", "export"),
        packages=(*QAT_CODE, "graph/*.py", "runners/*.py"),
        work=torch_stage("export"),
        why_not=why_no_torch,
    ),
    Stage(
        "preflight",
        outputs=("preflight.json",),
        parents=("model.onnx",),
        tables=("preflight", "target"),
        packages=(
            *GRAPH_CODE,
            "lint/**/*.py",
            "targets.py",
            "capabilities.py",
            "engine/aot/*.py",
            "engine/confirm/*.py",
        ),
        work=_verify("preflight"),
        facts=_compiler_version,
        data=False,
    ),
    Stage(
        "build",
        outputs=("model.engine", "layers.json"),
        parents=("model.onnx",),
        tables=("build", "target"),
        packages=("recipe/specs.py", "engine/**/*.py", "graph/*.py", "mend/*.py"),
        work=_build,
        why_not=lambda: why_not("auto", None),
        why_not_for=_why_not_built,
        optional=True,
        facts=_compilers,
    ),
    Stage(
        "compare",
        outputs=("compare.json", "answers.npz"),
        parents=(
            "model.onnx",
            "fp32.pt",
            "qat.pt",
            "qat_logits.npz",
            "fp32.onnx",
            "sparsity.json",
            "ranges.json",
        ),
        tables=("task", "tolerances"),
        packages=(*GRAPH_CODE, *COMPARE_CODE, "tasks/*.py", "pipeline/answers.py"),
        work=_verify("compare"),
    ),
    Stage(
        "precisions",
        outputs=("precisions.json",),
        parents=("model.onnx", "fp32.onnx"),
        tables=("task", "build", "target"),
        packages=(*GRAPH_CODE, "lint/**/*.py", "mend/*.py", "tasks/*.py", "pipeline/precisions.py"),
        work=_precisions,
    ),
    Stage(
        "score",
        outputs=("engine.json", "engine_answers.npz"),
        parents=("model.engine", "model.onnx"),
        tables=("task", "tolerances"),
        packages=("runners/*.py", "engine/execution/*.py", "comparison/*.py", "tasks/*.py"),
        work=_score,
        why_not=why_not_run,
        why_not_for=_why_not_timed,
        optional=True,
        facts=on_this_gpu,
    ),
    Stage(
        "bench",
        outputs=("bench.json",),
        parents=("model.engine", "model.onnx"),
        tables=("build", "target"),
        packages=("benching/*.py", "engine/**/*.py", "runners/*.py"),
        work=_bench,
        why_not=why_not_run,
        why_not_for=_why_not_timed,
        optional=True,
        facts=on_this_gpu,
    ),
    Stage(
        "report",
        outputs=("report.html",),
        parents=(
            *("metrics.json", "compare.json", "preflight.json", "sparsity.json", "ranges.json"),
            *("layers.json", "precisions.json"),
        ),
        tables=tuple(EngineSpec.model_fields),
        packages=("page/*.py", "gate/verdict.py"),
        work=_write_report,
        data=False,
    ),
)

STAGES = tuple(stage.name for stage in PLAN)


def trained(run: Run) -> bool:
    """Tell whether the run folder holds the float model that this recipe trains."""
    train = PLAN[0]
    return artifact.fresh(run.path(train.outputs[0]), stage_fingerprint(train, run)) is not None


def until_stage(plan: Sequence[Stage], until: str | None) -> tuple[Stage, ...]:
    """Return a plan up to the stage of this name; None: all of it.

    Raises:
        RecipeError: it has no such stage.
    """
    names = [stage.name for stage in plan]
    if until is None:
        return tuple(plan)
    if until not in names:
        message = (
            f"--until {until!r}: no such stage; did you mean {nearest(until, names)[0]!r}? "
            f"allowed: {', '.join(names)}"
        )
        raise RecipeError(message)
    return tuple(plan[: names.index(until) + 1])
