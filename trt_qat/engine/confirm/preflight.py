"""``tq.preflight``: the rules, and with ``confirm`` the word of NVIDIA's own code on each."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from onnx import ModelProto

from trt_qat import targets
from trt_qat.capabilities import dotted
from trt_qat.engine.aot import capability, load, messages, options
from trt_qat.engine.aot.agree import agreement, seen
from trt_qat.engine.aot.answer import Answer, Job, Refusal
from trt_qat.engine.aot.child import BUILD_S, Compiler
from trt_qat.engine.build import network_io
from trt_qat.engine.build.fp16_side import side_by_side
from trt_qat.engine.build.options import profiles
from trt_qat.engine.build.rtx import Shapes, shapes_of
from trt_qat.engine.build.typed import typed_onnx
from trt_qat.engine.confirm.judge import judged, outweighed, silent, unforeseen
from trt_qat.engine.evidence.listing import SCOPE, listing_of
from trt_qat.errors import CheckFailed, CompilerDied, GraphError, InputError, nearest
from trt_qat.graph import large
from trt_qat.graph.shapes import InputShapes
from trt_qat.lint.confirmation import Confirmation, Refused
from trt_qat.lint.preflight import PreflightReport, chosen_rules
from trt_qat.lint.preflight import preflight as judge
from trt_qat.lint.rule import RULES, SEVERITIES
from trt_qat.lint.rules.confirmed import BUILDER, CRASH, FP16, PARSER
from trt_qat.recipe.specs import BuildSpec, ShapeRange

Confirm = Literal["rtx"]
_NO_TARGET = "no target was named"


def preflight(
    path_or_model: str | os.PathLike[str] | ModelProto,
    target: str | targets.Target | None = None,
    *,
    tensorrt: str | None = None,
    select: Collection[str] = (),
    ignore: Collection[str] = (),
    shapes: InputShapes | None = None,
    confirm: Confirm | str | None = None,
    compiler: Compiler | None = None,
) -> PreflightReport:
    """Judge a QDQ ONNX as TensorRT will, whoever made it.

    Args:
        path_or_model: An ``.onnx`` file, or a model in memory.
        target: A device of `trt_qat.targets`; without one the rules about devices and the roofline
            are left out.
        tensorrt: A version such as ``10.16``; without one the rules about versions are left out.
        select: Rule ids or prefixes of them (``QDQ1``) to apply; none: all.
        ignore: Rule ids or prefixes to leave out.
        shapes: Shape to assume for an input, by name; a batch that is not fixed counts as 1.
        confirm: ``rtx``: ask the parser of TensorRT for RTX too, and with a target that it knows
            its builder, on this machine, without a GPU; None: the rules alone.
        compiler: one that runs already, for many models in a row; None: one for this model.

    Returns:
        Findings, the fate of every weighted layer and, with a target, the roofline. With
        ``confirm`` each finding has ``confirmed``, and what is refused though no rule foresaw it
        is a finding too.

    Raises:
        GraphError: the file cannot be read, or is not what it claims to be.
        InputError: an unknown target, version, rule, input or way to confirm.
        BackendUnavailable: TensorRT for RTX is missing or too old.
        CompilerDied: it ran out of time or memory.
    """
    if confirm not in (None, "rtx"):
        message = f"confirm {confirm!r}: allowed is {nearest(str(confirm), ['rtx'])[0]!r}"
        raise InputError(message)
    report = judge(
        path_or_model, target, tensorrt=tensorrt, select=select, ignore=ignore, shapes=shapes
    )
    if confirm is None:
        return report
    load.require()
    device = targets.target(target) if isinstance(target, str) else target
    left = tuple(entry.upper() for entry in ignore)
    sides = any(rule.id == FP16 for rule in chosen_rules(select, ignore))
    with _file(path_or_model) as path, _running(compiler) as asked:
        told = _ask(asked, path, device, report, shapes, sides=sides)
    return with_word(report, told, tensorrt, left)


def with_word(
    report: PreflightReport, told: Confirmation, tensorrt: str | None, left: tuple[str, ...] = ()
) -> PreflightReport:
    """Return a report with NVIDIA's word on each finding, and findings of what it alone says."""
    old = tensorrt is not None and targets.parse_version(tensorrt) < (10, 0)
    known = judged(report.findings, told, old=old)
    findings = [
        *known,
        *unforeseen(report.findings, told, RULES, left),
        *silent(known, told),
        *outweighed(told),
    ]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return replace(report, findings=tuple(findings), confirmation=told)


@contextmanager
def _file(given: str | os.PathLike[str] | ModelProto) -> Iterator[Path]:
    """Yield the model as a file, which is what the parser reads."""
    if not isinstance(given, ModelProto):
        yield Path(given)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        large.write(given, path)
        yield path


@contextmanager
def _running(given: Compiler | None) -> Iterator[Compiler]:
    if given is not None:
        yield given
        return
    with Compiler() as compiler:
        yield compiler


def _ask(
    compiler: Compiler,
    path: Path,
    device: targets.Target | None,
    report: PreflightReport,
    shapes: InputShapes | None,
    *,
    sides: bool,
) -> Confirmation:
    """Ask the parser, and the builder where it knows the target and the shapes.

    Args:
        compiler: to ask.
        path: of the model.
        device: the target; None: the builder is not asked.
        report: of the rules.
        shapes: of inputs, by name.
        sides: build it and its FP16 form, where a layer is INT8.
    """
    by = f"{load.TITLE} {load.version()}"
    note, profile = _not_built(path, device, shapes)
    try:
        if note or device is None:
            return _parsed(by, compiler.parse(path), note)
        with tempfile.TemporaryDirectory() as folder:
            members = [capability.member(device.sm)]
            set_, cleared = options.flags(BuildSpec())
            job = Job(
                path, Path(folder) / "plan", Path(folder) / "log", members,
                profile, set_, cleared, {"profiling_verbosity": "ProfilingVerbosity.DETAILED"},
            )  # fmt: skip
            answer = compiler.build(job, timeout_s=BUILD_S)
            log = job.log.read_text(encoding="utf-8")
            int8 = answer.built and any(fate.precision == "int8" for fate in report.layers)
            against = _against_fp16(compiler, job) if sides and int8 else None
    except CompilerDied as error:
        if not error.crashed:
            raise
        words, _, _ = str(error).removeprefix(f"{path}: ").partition("; the fault is in it")
        return Confirmation(by, False, None, (Refused("crash", words, "", "", CRASH, False),))
    told = _parsed(by, answer, "")
    if not answer.built:
        return replace(told, built=answer.built, targets=(dotted(device.sm),))
    return replace(
        told,
        built=True,
        targets=(dotted(device.sm),),
        agreement=_agreed(log, report),
        against_fp16=against,
        scope=SCOPE,
    )


def _against_fp16(compiler: Compiler, job: Job) -> dict[str, object] | None:
    """Return what the network with an FP16 remainder moves, and its FP16 form; None: unknown."""
    folder = job.log.parent
    try:
        typed = typed_onnx(job.onnx, folder / "typed.onnx", ())
        asked = replace(job, onnx=typed, log=folder / "typed.log")
        built = compiler.build(asked, timeout_s=BUILD_S).built
        listing = listing_of(asked.log.read_text(encoding="utf-8")) if built else None
        if listing is None:
            return None
        return side_by_side(compiler, listing, job.onnx, asked, timeout_s=BUILD_S)
    except (GraphError, InputError, CheckFailed, CompilerDied):
        return None  # the verdict on the model itself stands


def _not_built(
    path: Path, device: targets.Target | None, shapes: InputShapes | None
) -> tuple[str, list[Shapes]]:
    """Return why the builder is not asked, or the profile to ask it with."""
    if device is None:
        return _NO_TARGET, []
    if reason := capability.why_not(device):
        return reason, []
    try:
        inputs = network_io.read(path).inputs
        given = {
            name: ShapeRange(min=tuple(s), opt=tuple(s), max=tuple(s))
            for name, s in (shapes or {}).items()
            if any(isinstance(size, str) for size in inputs[name].shape)
        }
        spec = BuildSpec(batch=(8, 8, 8), profiles=(given,) if given else ())
        return "", [shapes_of(profile, fixed=True) for profile in profiles(spec, inputs)]
    except (GraphError, InputError) as error:
        return f"{error}", []


def _parsed(by: str, answer: Answer, note: str) -> Confirmation:
    stage = "parser" if not answer.parsed else "builder"
    return Confirmation(
        by=by,
        parsed=answer.parsed,
        built=answer.built,
        refused=tuple(_refused(refusal, stage) for refusal in answer.refusals),
        warnings=answer.warnings,
        note=note,
    )


def _refused(refusal: Refusal, stage: str) -> Refused:
    rule = messages.rule_of(refusal) or (PARSER if stage == "parser" else BUILDER)
    shared = messages.is_shared(refusal)
    return Refused(stage, refusal.text, refusal.node, refusal.source, rule, shared)


def _agreed(log: str, report: PreflightReport) -> dict[str, object] | None:
    listing = listing_of(log)
    if listing is None:
        return None
    rows = {fate.name: seen(listing.kernels, fate.name).precision for fate in report.layers}
    floats = {name: kind for name, kind in rows.items() if kind not in (None, "int8", "fp8")}
    found = agreement(listing.kernels, report.layers, report.findings)
    return found.to_dict() | {"float": floats}
