"""An engine that is kept only if it computes what its ONNX does, where a GPU can tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trt_qat.comparison.tally import Tally
from trt_qat.engine.build.backend import Backend
from trt_qat.engine.build.build import build as build_engine
from trt_qat.engine.build.result import EngineArtifact
from trt_qat.engine.log import Say
from trt_qat.errors import BackendUnavailable, CheckFailed, DataError, InputError
from trt_qat.recipe.given import spec_of
from trt_qat.recipe.specs import BuildSpec
from trt_qat.runners.ort import OrtRunner
from trt_qat.runners.polygraphy import random_feed
from trt_qat.runners.protocol import Feed, Outputs, Runner, fixed_batch

WRONG_SQNR_DB = 10.0
"""Below it an engine is wrong, and not only rounded otherwise: INT8 leaves 30 dB and more where
ties fall to another side. What lies between is for `trt_qat.comparison.compare` to find."""

SAMPLES = 8

_NOT_WRITTEN = (
    "no engine is written; tq.build(..., verify=False) writes it, for trt-qat compare --bisect"
)


def build(
    onnx: str | Path,
    engine: str | Path,
    *,
    target: str | None = None,
    spec: BuildSpec | Mapping[str, Any] | None = None,
    backend: Backend | str | None = None,
    feeds: Sequence[Feed] = (),
    preflight: bool = True,
    verify: bool = True,
    say: Say = lambda line: None,
) -> EngineArtifact:
    """Build an engine as `trt_qat.engine.build.build.build` does, and hold it against its ONNX.

    TensorRT's engine is run on a few samples before it takes its name; its sidecar says what was
    compared, or why nothing was. TensorRT for RTX builds without a GPU, and nothing is run.

    Args:
        onnx: a QDQ ONNX, or a float one.
        engine: where the plan goes.
        target: the device that is meant.
        spec: how, a spec or a dict of its keys; None: the defaults.
        backend: ``auto``, ``tensorrt`` or ``rtx``; None: what ``spec`` says.
        feeds: real inputs, to measure what FP16 can hold and to compare on; none: random ones.
        preflight: refuse what it calls an error.
        verify: compare; False: the sidecar says that nothing was.
        say: is told how far it is.

    Raises:
        RecipeError: the dict has an unknown key or a wrong value.
        CheckFailed: as of the other, or an output of the engine is not that of the ONNX.
        TrtQatError: as of the other.
    """
    spec = spec_of(BuildSpec, spec, "build")
    check = against_onnx(feeds, spec) if verify else None
    return build_engine(
        onnx,
        engine,
        target=target,
        spec=spec,
        backend=backend,
        feeds=feeds,
        preflight=preflight,
        check=check,
        say=say,
    )


def against_onnx(
    feeds: Sequence[Feed], spec: BuildSpec, opened: Callable[[Path], Runner] | None = None
) -> Callable[[Path, Path], Mapping[str, Any]]:
    """Return what holds a plan against its ONNX on onnxruntime, and raises where they differ.

    Args:
        feeds: real inputs, of which the first few samples are taken; none: random ones.
        spec: how it was built: its batch sizes.
        opened: opens the plan; None: TensorRT.
    """

    def check(plan: Path, onnx: Path) -> Mapping[str, Any]:
        if spec.strip_weights:
            return {"checked": False, "why": "a plan without weights computes nothing"}
        try:
            with OrtRunner(onnx) as ref, (opened or _on_gpu)(plan) as cand:
                feed = _sample(ref, feeds, spec)
                outputs = ref.infer(feed), cand.infer(feed)
        except (BackendUnavailable, InputError) as error:
            return {"checked": False, "why": str(error)}
        return _judged(onnx, outputs, "given" if feeds else "random")

    return check


def _on_gpu(plan: Path) -> Runner:
    from trt_qat.engine.execution.runner import TrtRunner

    return TrtRunner(plan, trust=True)  # it has just been built here


def _sample(runner: OrtRunner, feeds: Sequence[Feed], spec: BuildSpec) -> Feed:
    count = fixed_batch(runner.inputs) or min(max(SAMPLES, spec.batch[0]), spec.batch[2])
    if feeds:
        return {name: array[:count] for name, array in feeds[0].items()}
    return random_feed(runner.inputs, count)


def _judged(onnx: Path, outputs: tuple[Outputs, Outputs], inputs: str) -> Mapping[str, Any]:
    """Return what was compared.

    Raises:
        CheckFailed: an output is wrong, no number, or there are others.
    """
    tally = Tally()
    try:
        tally.update(*outputs, None)
    except DataError as error:
        message = f"{onnx}: the engine does not compute what the ONNX does: {error}; {_NOT_WRITTEN}"
        raise CheckFailed(message) from error
    found = tally.outputs()
    for output in found:
        if output.sqnr_db is not None and output.sqnr_db < WRONG_SQNR_DB:
            message = (
                f"{onnx}: the engine does not compute what the ONNX does: output {output.name!r} "
                f"is {output.sqnr_db:.1f} dB over its difference, and {WRONG_SQNR_DB:.0f} is "
                f"asked; {_NOT_WRITTEN}"
            )
            raise CheckFailed(message)
    worst = min((o.sqnr_db for o in found if o.sqnr_db is not None), default=None)
    return {
        "checked": True,
        "samples": tally.samples,
        "inputs": inputs,
        "outputs": len(found),
        "worst_sqnr_db": worst,
        "min_sqnr_db": WRONG_SQNR_DB,
    }
