"""Which compiler builds an engine: TensorRT on a GPU, or TensorRT for RTX on any machine."""

from __future__ import annotations

from typing import Literal, get_args

from trt_qat import targets
from trt_qat.engine import machine
from trt_qat.engine.aot import capability, load
from trt_qat.errors import BackendUnavailable, InputError, nearest

Backend = Literal["auto", "tensorrt", "rtx"]


def checked(backend: str) -> str:
    """Return a backend that there is.

    Raises:
        InputError: there is no such backend.
    """
    allowed = get_args(Backend)
    if backend not in allowed:
        close = nearest(backend, allowed)[0]
        message = f"backend {backend!r}: allowed are {', '.join(allowed)}; did you mean {close!r}?"
        raise InputError(message)
    return backend


def chosen(backend: str, target: str | None) -> str:
    """Return ``tensorrt`` or ``rtx``.

    ``auto`` is TensorRT where it and a GPU are; else TensorRT for RTX, if it is installed and knows
    the target.

    Raises:
        BackendUnavailable: neither can build here.
    """
    if backend != "auto":
        return backend
    reason = machine.why_no_engines()
    if reason is None:
        return "tensorrt"
    if other := why_not_rtx(target):
        message = f"{reason}. Nor can TensorRT for RTX, which needs no GPU: {other}"
        raise BackendUnavailable(message)
    return "rtx"


def why_not_rtx(target: str | None) -> str | None:
    """Return why TensorRT for RTX cannot build for a target here; else None."""
    if reason := load.why_not():
        return reason
    return None if target is None else capability.why_not(targets.target(target))


def why_not(backend: str, target: str | None) -> str | None:
    """Return why nothing can be built here for a target; else None."""
    if backend == "rtx":
        return why_not_rtx(target)
    if backend == "tensorrt":
        return machine.why_no_engines()
    try:
        chosen(backend, target)
    except BackendUnavailable as error:
        return str(error)
    return None
