"""From a QDQ ONNX to an engine, its evidence and its sidecar; a failed build leaves no file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_qat import artifact, targets
from trt_qat.capabilities import dotted
from trt_qat.engine import compat, machine
from trt_qat.engine.build import network_io, timing_cache
from trt_qat.engine.build.backend import Backend, checked, chosen
from trt_qat.engine.build.checks import gone_after_an_error, refuse_errors
from trt_qat.engine.build.configure import configure, make_network, matching
from trt_qat.engine.build.kept import cause_of, refuse_fused
from trt_qat.engine.build.network_io import Network
from trt_qat.engine.build.options import Options, profiles, resolve
from trt_qat.engine.build.result import EngineArtifact
from trt_qat.engine.build.rtx import build_rtx
from trt_qat.engine.build.typed import typed_onnx, typed_path
from trt_qat.engine.evidence import build_log, evidence
from trt_qat.engine.evidence.inspect import inspect_plan
from trt_qat.engine.interrupt import noted
from trt_qat.engine.log import Say, errors, make_log, make_progress
from trt_qat.engine.origin import IMPLICIT
from trt_qat.engine.sticky import created
from trt_qat.errors import CheckFailed, InputError
from trt_qat.recipe.specs import BuildSpec
from trt_qat.runners.protocol import Feed

Check = Callable[[Path, Path], Mapping[str, Any]]
"""Holds a plan against the ONNX that it was made from; says what it compared, or raises."""


@dataclass(frozen=True)
class Job:
    """One build: what is built from what, for whom and how.

    ``onnx`` is what TensorRT reads: the ONNX that was ``given``, or its copy with FP16 casts.
    ``implicit``: TensorRT chose and calibrated what is INT8, which ``spec`` cannot say.
    """

    given: Path
    onnx: Path
    spec: BuildSpec
    described: Network
    options: Options
    gpu: machine.Gpu
    cache: Path | None
    implicit: bool = False


def build(
    onnx: str | Path,
    engine: str | Path,
    *,
    target: str | None = None,
    spec: BuildSpec | None = None,
    backend: Backend | str | None = None,
    feeds: Sequence[Feed] = (),
    preflight: bool = True,
    check: Check | None = None,
    say: Say = lambda line: None,
) -> EngineArtifact:
    """Build an engine: by TensorRT on the GPU of this machine, or by TensorRT for RTX without one.

    Beside ``engine`` lie its sidecar, ``<stem>.layers.json`` with what the compiler chose, and,
    where the network is strongly typed and its remainder FP16, ``<stem>.typed.onnx``.

    Args:
        onnx: a QDQ ONNX, or a float one.
        engine: where the plan goes; an engine that is there is replaced when the build ends well.
        target: the device that is meant. TensorRT: it must be the one that is here; None: whatever
            is here. TensorRT for RTX: any that it knows; None: every GPU from 8.0 on.
        spec: how; None: the defaults.
        backend: ``auto``, ``tensorrt`` or ``rtx``; None: what ``spec`` says. ``auto`` is TensorRT
            where it and a GPU are, else TensorRT for RTX.
        feeds: real inputs, to measure what FP16 can hold; none: random ones.
        preflight: refuse what it calls an error; otherwise the compiler is asked.
        check: is given the plan before it takes its name, and the ONNX; not of TensorRT for RTX.
        say: is told how far it is.

    Raises:
        BackendUnavailable: the compiler, or TensorRT's GPU, is missing.
        GraphError: the ONNX is malformed, or TensorRT's parser refuses it.
        InputError: an option that this version lacks, a profile or pattern that does not fit the
            network, a node that cannot stay FP32, or a target that is not this machine.
        KeyboardInterrupt: the user stopped it.
        CheckFailed: preflight finds an error, or TensorRT cannot build the network.
    """
    onnx, out, spec = Path(onnx), Path(engine), spec or BuildSpec()
    if backend is not None:
        spec = spec.model_copy(update={"backend": checked(backend)})
    described = _described(onnx, spec, target)
    if chosen(spec.backend, target) == "rtx":
        return build_rtx(onnx, out, described, target, spec, feeds, preflight=preflight, say=say)
    trt = compat.load()
    gpu = machine.gpus()[0][0]
    dla_core = check_target(target, gpu, spec)
    options = resolve(spec, compat.version(trt), quantized=described.quantized, dla_core=dla_core)
    if preflight:
        refuse_errors(onnx, target, trt.__version__)
    refuse_fused(onnx, spec, options, described, compat.version(trt))
    default = timing_cache.default_path(gpu.slug, gpu.sm, trt.__version__)
    cache = timing_cache.chosen_path(spec.timing_cache, default)
    cast = typed_path(out) if options.strong and spec.remainder == "fp16" else None
    with gone_after_an_error(cast):
        read = onnx if cast is None else typed_onnx(onnx, cast, spec.keep_fp32, feeds, say)
        began = time.perf_counter()
        job = Job(onnx, read, spec, described, options, gpu, cache)
        plan, log = plan_of(trt, job, say)
        return written(out, plan, log.lines, job, time.perf_counter() - began, check)


def _described(onnx: Path, spec: BuildSpec, target: str | None) -> Network:
    """Read the ONNX; mistakes in what is asked of it are told before minutes are spent.

    Raises:
        GraphError: the ONNX is malformed.
        InputError: a profile or pattern does not fit it, or the target is unknown.
    """
    described = network_io.read(onnx)
    profiles(spec, described.inputs)
    matching(spec.keep_fp32, described)
    if target is not None:
        targets.target(target)
    return described


def check_target(target: str | None, gpu: machine.Gpu, spec: BuildSpec) -> int | None:
    """Check that the target is this machine's GPU; return the DLA core that it asks for.

    Raises:
        InputError: the target is another device.
    """
    if target is None:
        return None
    wanted = targets.target(target)
    portable = spec.hardware_compatibility == "ampere_plus" and gpu.sm >= (8, 0) <= wanted.sm
    if wanted.sm != gpu.sm and not portable:
        message = (
            f"--target {target} has compute capability {dotted(wanted.sm)}, this machine's "
            f"{gpu.name} {dotted(gpu.sm)}: an engine runs on the kind of GPU that it was built "
            "on; build there, or set build.hardware_compatibility = 'ampere_plus'"
        )
        raise InputError(message)
    return 0 if wanted.on_dla else None


def plan_of(
    trt: Any, job: Job, say: Say, adjust: Callable[[Any, Any], None] | None = None
) -> tuple[bytes, Any]:
    """Return the serialized engine and the log of its build.

    Args:
        trt: the module.
        job: what to build.
        say: is told how far it is.
        adjust: is given builder and config before the build.

    Raises:
        BackendUnavailable: no context of CUDA works in this process.
        GraphError: the parser refuses the network.
        CheckFailed: no engine came out.
    """
    log = make_log(trt, say)
    trt.init_libnvinfer_plugins(log, "")
    builder = created(trt, log, lambda: trt.Builder(log))
    network, parser = make_network(trt, builder, job.onnx, job.options, log)
    config = configure(trt, builder, network, job.spec, job.options, job.described)
    if adjust is not None:
        adjust(builder, config)
    timing = _timing(config, job.cache, say)
    with noted(say) as interrupt:
        if progress := make_progress(trt, say, interrupt):
            compat.set_progress_monitor(config, progress)
        plan = builder.build_serialized_network(network, config)
    del parser, timing  # the one owns the weights of the network, the other what was measured
    if plan is None:
        told = "; ".join(errors(log.lines)[:3]) or "it does not say why"
        known = cause_of(log.lines, job.spec, job.options)
        message = f"{job.onnx}: TensorRT {trt.__version__} cannot build it: {told}"
        message += f"; {known}" if known else ""
        raise CheckFailed(message)

    _keep_timings(config, job.cache, say)
    return bytes(plan), log


def _timing(config: Any, path: Path | None, say: Say) -> Any:
    """Attach the stored timing cache, or an empty one where TensorRT does not take it."""
    stored = timing_cache.read(path)
    timing = config.create_timing_cache(stored)
    if timing is None or not config.set_timing_cache(timing, False):
        say(f"the timing cache {path} is damaged or of another GPU or version; a new one is begun")
        timing = config.create_timing_cache(b"")
        config.set_timing_cache(timing, False)
    return timing


def _keep_timings(config: Any, path: Path | None, say: Say) -> None:
    """Add what the build measured to the cache; a build that took minutes does not fail for it."""

    def combine(stored: bytes, measured: bytes) -> bytes:
        timing, fresh = config.create_timing_cache(stored), config.create_timing_cache(measured)
        if timing is None or not timing.combine(fresh, False):
            return measured  # what was stored is of another GPU or version
        return bytes(timing.serialize())

    found = config.get_timing_cache()
    if found is None:
        return
    try:
        timing_cache.add(path, bytes(found.serialize()), combine)
    except InputError as error:
        say(f"timings are not kept: {error}")


def written(
    out: Path,
    plan: bytes,
    lines: Sequence[str],
    job: Job,
    seconds: float,
    check: Check | None = None,
) -> EngineArtifact:
    """Write a plan, what TensorRT chose, and the sidecar that vouches for it.

    Where ``check`` raises, no plan is left, and an older one of that name stays.
    """
    layers = inspect_plan(plan, out, build_log.parse(lines))
    verification: Mapping[str, Any] = {"checked": False, "why": "nothing was asked to compare it"}
    with artifact.atomic_path(out) as temporary:
        temporary.write_bytes(plan)
        if check is not None:
            verification = check(temporary, job.given)
    artifact.write_json(evidence.layers_path(out), layers)
    parents = {path.name: artifact.sha256_file(path) for path in (job.given, job.onnx)}
    spec = job.spec.model_dump(mode="json")
    mode = {IMPLICIT: True} if job.implicit else {}
    source: Mapping[str, Any] = layers["source"]
    artifact.write_sidecar(
        out,
        fingerprint=artifact.fingerprint(spec=spec, parents=parents, on=source["gpu"], **mode),
        parents=parents,
        spec=spec,
        metrics={
            "tensorrt": source["tensorrt"],
            "gpu": source["gpu"],
            "sm": source["sm"],
            "sparsity": layers["sparsity"],
            "census": layers["census"],
            "verification": dict(verification),
            **mode,
        },
        seconds=seconds,
    )
    return EngineArtifact(out, job.onnx, layers, seconds, tuple(lines))
