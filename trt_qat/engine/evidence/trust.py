"""Engines are code: which of them may be loaded.

A plan holds kernels that run on the GPU and, if it is version-compatible, host code that runs here.
So a plan is given to TensorRT only if its sidecar, which the build wrote, vouches for its bytes, or
if the user says so.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from trt_qat.artifact import read_sidecar, sidecar_path
from trt_qat.engine.evidence import reading
from trt_qat.engine.evidence.plan_header import PlanHeader, is_plan, read_header
from trt_qat.engine.origin import origin_of
from trt_qat.errors import InputError
from trt_qat.files import reason


def read_plan(path: Path, *, trust: bool = False) -> bytes:
    """Return the bytes of an engine that may be loaded.

    The bytes that are judged are those that are returned, so a file that is exchanged in between
    gains nothing.

    Raises:
        InputError: no such file, or nothing vouches for it.
    """
    try:
        plan = path.read_bytes()
    except OSError as error:
        message = f"{path}: cannot be read: {reason(error)}"
        raise InputError(message) from error
    if not plan:
        message = f"{path}: an empty file, so no engine"
        raise InputError(message)
    if trust:
        return plan
    sidecar = read_sidecar(path)
    if sidecar is None:
        message = (
            f"{path}: no sidecar {sidecar_path(path).name} vouches for this engine, and loading "
            "one runs the code in it; build it here with `trt-qat build`, or give --trust (as a "
            "SPEC: trt-trusted:FILE) if you know where it comes from"
        )
        raise InputError(message)
    if hashlib.sha256(plan).hexdigest() != sidecar.sha256:
        message = (
            f"{path}: its bytes are not those that {sidecar_path(path).name} vouches for: changed "
            "or damaged; build it again, or give --trust (as a SPEC: trt-trusted:FILE)"
        )
        raise InputError(message)
    return plan


def check_home(path: Path, tensorrt: str, sm: tuple[int, int]) -> None:
    """Check by the sidecar that an engine was built for this TensorRT and this kind of GPU.

    TensorRT would refuse it too, in words of its own, or run it slower than it could.

    Args:
        path: of the engine; without a sidecar nothing is known of it.
        tensorrt: version that is here.
        sm: compute capability of the GPU that is here.

    Raises:
        InputError: another version or another kind of GPU, and the engine is not portable.
    """
    origin = origin_of(path)
    if origin is None:
        return
    if origin.rtx:
        message = (
            f"{path}: TensorRT for RTX {origin.rtx} compiled it, and TensorRT cannot load it; "
            "build it here with --backend tensorrt, or give it as trt-rtx:FILE"
        )
        raise InputError(message)
    built, at = origin.tensorrt, origin.sm
    if built and _release(built) != _release(tensorrt) and not origin.spec.version_compatible:
        message = (
            f"{path}: TensorRT {built} built it and this is {tensorrt}; an engine runs on the "
            "version that built it unless build.version_compatible is set. Build it again here"
        )
        raise InputError(message)
    portable = origin.spec.hardware_compatibility == "ampere_plus" and sm >= (8, 0)
    if at and at != sm and not portable:
        there, here = (".".join(map(str, each)) for each in (at, sm))
        message = (
            f"{path}: built for compute capability {there} and this GPU has {here}. Build it again "
            "here, or for both with build.hardware_compatibility = 'ampere_plus'"
        )
        raise InputError(message)


def check_rtx_home(path: Path, sm: tuple[int, int]) -> None:
    """Check by the sidecar that TensorRT for RTX compiled an engine, and for this kind of GPU.

    Args:
        path: of the engine; without a sidecar nothing is known of it.
        sm: compute capability of the GPU that is here.

    Raises:
        InputError: TensorRT built it, or it is for other GPUs.
    """
    origin = origin_of(path)
    if origin is None:
        return
    if not origin.rtx:
        built = f"TensorRT {origin.tensorrt or ''}".strip()
        message = f"{path}: {built} built it, and TensorRT for RTX cannot load it: give it as trt:"
        raise InputError(message)
    here = ".".join(map(str, sm))
    if origin.capabilities:
        fits, made = f"SM{sm[0]}{sm[1]}" in origin.capabilities, ", ".join(origin.capabilities)
    else:
        fits, made = sm >= (8, 0), "GPUs from compute capability 8.0 on"
    if not fits:
        message = (
            f"{path}: compiled for {made}, and this GPU has {here}; build it with its target, or "
            "add that to build.more_targets"
        )
        raise InputError(message)


def _release(version: str) -> list[str]:
    return version.split(".")[:3]


def inspect_file(path: str | Path, *, trust: bool = False) -> dict[str, Any]:
    """Return what an engine or a saved description of one tells: the content of ``layers.json``.

    An engine is described from what its build left beside it; where nothing did, it is loaded,
    which needs TensorRT of its version, a GPU, and trust. Where one of these is missing, its header
    tells who built it, and ``notes`` what is missing.

    Args:
        path: an engine; or the inspector's JSON or text, ``layers.json``, or a log, which need
            neither TensorRT nor a GPU.
        trust: load an engine although no sidecar vouches for it.

    Raises:
        InputError: the file is missing, none of these, or its bytes are not those of its sidecar.
    """
    path = Path(path)
    if not path.is_file() or not (path.suffix in reading.ENGINE_SUFFIXES or is_plan(path)):
        return reading.read(path)
    described = reading.described(path)
    if described is not None:
        return described
    header = read_header(path)
    if why := _why_not_loaded(header, path, trust=trust):
        return reading.of_header(header, path, why)
    from trt_qat.engine.evidence.inspect import inspect_plan

    return inspect_plan(read_plan(path, trust=trust), path)


def _why_not_loaded(header: PlanHeader, path: Path, *, trust: bool) -> str | None:
    """Return why a plan is not loaded here, with the way out; None: it is."""
    from trt_qat.engine import machine

    elsewhere = (
        f"where it runs, `trtexec --loadEngine={path.name} --exportLayerInfo=FILE` writes what "
        "`trt-qat inspect FILE` reads"
    )
    if header.backend != "TensorRT":
        return f"{header.backend} alone loads it, on a GPU that it was compiled for"
    here = machine.tensorrt_version()
    origin = origin_of(path)
    portable = trust or (origin is not None and origin.spec.version_compatible)
    known = here is not None and here[:1].isdigit() and header.version is not None
    if known and not portable and _release(str(here)) != _release(str(header.version)):
        return (
            f"TensorRT {header.version} built it and this is {here}, which loads it only if it was "
            f"built with build.version_compatible = true; build it again here, or {elsewhere}"
        )
    if reason := machine.why_no_engines():
        return f"its layers are not told: {reason}; {elsewhere}"
    if not trust and origin is None:
        return (
            "its layers are not told: no sidecar vouches for it, and loading an engine runs the "
            "code in it; give --trust if you know where it comes from"
        )
    return None
