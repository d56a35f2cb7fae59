"""From a QDQ ONNX to an engine of TensorRT for RTX, on a machine without a GPU."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trt_qat import artifact
from trt_qat.engine import compat
from trt_qat.engine.aot import capability, load, options
from trt_qat.engine.aot.agree import agreement
from trt_qat.engine.aot.answer import Answer, Job
from trt_qat.engine.aot.child import BUILD_S, Compiler, Say
from trt_qat.engine.build.checks import gone_after_an_error, refuse_errors
from trt_qat.engine.build.fp16_side import side_by_side
from trt_qat.engine.build.network_io import Network
from trt_qat.engine.build.options import MIB, Profile, profiles
from trt_qat.engine.build.result import EngineArtifact
from trt_qat.engine.build.typed import typed_onnx, typed_path
from trt_qat.engine.evidence import build_log, evidence
from trt_qat.engine.evidence.layer_info import BUILD_LOG, LayerInfo
from trt_qat.engine.evidence.listing import SCOPE, Listing, listing_of
from trt_qat.engine.origin import RTX
from trt_qat.errors import CheckFailed, GraphError
from trt_qat.lint.preflight import preflight as judge
from trt_qat.recipe.specs import BuildSpec
from trt_qat.runners.protocol import Feed

Shapes = dict[str, list[list[int]]]


def build_rtx(
    onnx: Path,
    out: Path,
    described: Network,
    target: str | None,
    spec: BuildSpec,
    feeds: Sequence[Feed],
    *,
    preflight: bool,
    say: Say,
) -> EngineArtifact:
    """Build an engine; see `trt_qat.engine.build.build.build`.

    Raises:
        BackendUnavailable: TensorRT for RTX is missing or too old.
        InputError: an option that it lacks, or a target that it does not know.
        GraphError: its parser refuses the network.
        CheckFailed: preflight finds an error, no plan comes out, or the compiler dies.
        KeyboardInterrupt: the user stopped it.
    """
    load.require()
    options.check(spec)
    names = (*([target] if target else []), *spec.more_targets)
    capabilities = capability.of_targets(names)
    if preflight:
        refuse_errors(onnx, target, ".".join(map(str, compat.rtx_surface())))
    for key in options.ignored(spec):
        say(f"{key} changes nothing in a plan of {load.TITLE}")
    cast = typed_path(out) if spec.remainder == "fp16" else None
    with gone_after_an_error(cast), tempfile.TemporaryDirectory() as folder, Compiler() as compiler:
        read = onnx
        if cast is not None:
            say("casting the float remainder to FP16")
            read = typed_onnx(onnx, cast, spec.keep_fp32, feeds)
        with artifact.atomic_path(out) as temporary:
            job = _job(read, temporary, Path(folder), spec, capabilities, described)
            answer = compiler.build(job, timeout_s=spec.timeout_s or BUILD_S, say=say)
            _refuse_failure(answer, onnx)
            log = job.log.read_text(encoding="utf-8")
            listing = listing_of(log)
            sized = _sized(compiler, job, listing, Path(folder), spec.timeout_s or BUILD_S)
        document = _document(out, answer, log, listing, sized, job, names, spec)
        if listing is not None:
            told = judge(read, target)
            found = agreement(listing.kernels, told.layers, told.findings)
            document["agreement"] = found.to_dict()
            if described.quantized and spec.compare_fp16:
                say("building its FP16 form, to set what both move in a row")
                document["against_fp16"] = side_by_side(
                    compiler, sized or listing, onnx, job, keep=spec.keep_fp32, feeds=feeds,
                    timeout_s=spec.timeout_s or BUILD_S,
                )  # fmt: skip
        _keep(out, document, (onnx, read), spec, answer)
        return EngineArtifact(out, read, document, answer.seconds, tuple(log.splitlines()))


def _job(
    onnx: Path,
    plan: Path,
    folder: Path,
    spec: BuildSpec,
    capabilities: Sequence[str],
    described: Network,
) -> Job:
    set_, cleared = options.flags(spec)
    pools = {}
    if spec.workspace_mib is not None:
        pools["MemoryPoolType.WORKSPACE"] = spec.workspace_mib * MIB
    return Job(
        onnx=onnx,
        plan=plan,
        log=folder / "build.log",
        capabilities=capabilities,
        profiles=[shapes_of(profile) for profile in profiles(spec, described.inputs)],
        flags=set_,
        cleared=cleared,
        values={"profiling_verbosity": f"ProfilingVerbosity.{spec.verbosity.upper()}"},
        pools=pools,
    )


def shapes_of(profile: Profile, *, fixed: bool = False) -> Shapes:
    """Return a profile as the compiler's process takes it.

    Args:
        profile: min, opt and max by input.
        fixed: hold every dimension at opt, so that a listing tells sizes.
    """
    return {
        name: [list(r.opt)] * 3 if fixed else [list(r.min), list(r.opt), list(r.max)]
        for name, r in profile.items()
    }


def _refuse_failure(answer: Answer, onnx: Path) -> None:
    """Raise unless a plan came out.

    Raises:
        GraphError: the parser refuses the network.
        CheckFailed: the builder does.
    """
    title = f"{load.TITLE} {answer.version}"
    told = "; ".join(map(str, answer.refusals[:3])) or "it does not say why"
    if not answer.parsed:
        message = f"{onnx}: {title} cannot import it: {told}"
        raise GraphError(message)
    if not answer.built:
        message = f"{onnx}: {title} cannot build it: {told}"
        raise CheckFailed(message)


def _sized(
    compiler: Compiler, job: Job, listing: Listing | None, folder: Path, timeout_s: float
) -> Listing | None:
    """Return the listing with shapes fixed at opt, where the plan's own tells no sizes."""
    if listing is None or listing.traffic()["bytes_read"] is not None or not job.profiles:
        return None
    fixed = [{name: [shape[1]] * 3 for name, shape in job.profiles[0].items()}]
    twin = Job(**vars(job) | {"plan": folder / "twin", "log": folder / "twin.log"})
    twin = Job(**vars(twin) | {"profiles": fixed})
    if not compiler.build(twin, timeout_s=timeout_s).built:
        return None
    return listing_of(twin.log.read_text(encoding="utf-8"))


def _document(
    out: Path,
    answer: Answer,
    log: str,
    listing: Listing | None,
    sized: Listing | None,
    job: Job,
    names: Sequence[str],
    spec: BuildSpec,
) -> dict[str, Any]:
    source = {
        "file": out.name,
        "sha256": answer.sha256,
        "bytes": answer.size,
        "backend": RTX,
        RTX: answer.version,
        "tensorrt": None,
        "gpu": None,
        "sm": None,
        "targets": list(names),
        "compute_capabilities": list(job.capabilities),
        "portable": capability.PORTABLE if not job.capabilities else None,
        "shapes": {name: list(shape[1]) for name, shape in _first(job.profiles).items()},
        "peak_mib": answer.peak_mib,
    }
    told = build_log.parse(log.splitlines())
    if listing is None:
        info = LayerInfo(BUILD_LOG, detailed=False)
        return evidence.document(info, told, source) | {"scope": SCOPE}
    return evidence.listed(listing, told, source, sized)


def _first(given: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return given[0] if given else {}


def _keep(
    out: Path,
    document: Mapping[str, Any],
    parents: Sequence[Path],
    spec: BuildSpec,
    answer: Answer,
) -> None:
    """Write ``layers.json`` and the sidecar that vouches for the plan."""
    artifact.write_json(evidence.layers_path(out), document)
    digests = {path.name: artifact.sha256_file(path) for path in parents}
    plain = spec.model_dump(mode="json")
    source = document["source"]
    on = {RTX: answer.version, "compute_capabilities": source["compute_capabilities"]}
    artifact.write_sidecar(
        out,
        fingerprint=artifact.fingerprint(spec=plain, parents=digests, on=on),
        parents=digests,
        spec=plain,
        metrics={
            "backend": RTX,
            "tensorrt": None,
            "gpu": None,
            "sm": None,
            **on,
            "sparsity": None,
            "census": document["census"],
            "traffic": document.get("traffic"),
            "against_fp16": document.get("against_fp16"),
        },
        seconds=answer.seconds,
    )
