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
from trt_qat.engine.evidence import evidence
from trt_qat.engine.origin import origin_of
from trt_qat.errors import BackendUnavailable, InputError
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


def _release(version: str) -> list[str]:
    return version.split(".")[:3]


def inspect_file(path: str | Path, *, trust: bool = False) -> dict[str, Any]:
    """Return what an engine or a saved description of one tells: the content of ``layers.json``.

    An engine is described from what its build left beside it; where nothing did, it is loaded,
    which needs TensorRT, its GPU, and trust.

    Args:
        path: an engine; or the inspector's JSON or text, ``layers.json``, or a builder's log, which
            need neither TensorRT nor a GPU.
        trust: load an engine although no sidecar vouches for it.

    Raises:
        InputError: the file is missing, none of these, or not trusted.
        BackendUnavailable: an engine without a description, and no TensorRT or GPU.
    """
    path = Path(path)
    try:
        return evidence.read(path)
    except InputError:
        if not path.is_file() or path.suffix not in evidence.ENGINE_SUFFIXES:
            raise
        from trt_qat.engine import machine

        if reason := machine.why_no_engines():
            message = (
                f"{path}: no layer information of this engine lies beside it, and it cannot be "
                f"loaded here: {reason}. Where it runs: `trtexec --loadEngine={path.name} "
                "--exportLayerInfo=FILE`, then inspect FILE"
            )
            raise BackendUnavailable(message) from None
    from trt_qat.engine.evidence.inspect import inspect_plan

    return inspect_plan(read_plan(path, trust=trust), path)
