"""CUDA errors that the process does not survive, and objects of TensorRT that need a live context.

After such an error ("sticky" in NVIDIA's words: CUDA Runtime API, error handling) every later call
fails with it, whatever it is for; only a new process gets a context again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from trt_qat.engine.log import errors
from trt_qat.errors import BackendUnavailable

_STICKY = re.compile(
    r"an illegal memory access was encountered|an illegal instruction was encountered|"
    r"misaligned address|unspecified launch failure|device-side assert|hardware stack error|"
    r"uncorrectable ECC error|invalid program counter|operation not supported on global/shared|"
    r"cudaErrorIllegalAddress|cudaErrorLaunchFailure|cudaErrorAssert|context is destroyed|"
    r"has no context of CUDA that works",
    re.IGNORECASE,
)
_NULL = "factory function returned nullptr"


def is_sticky(text: str) -> bool:
    """Tell whether an error, by its text, leaves the process without a usable context."""
    return bool(_STICKY.search(text)) or _NULL in text


def created(trt: Any, log: Any, make: Callable[[], Any]) -> Any:
    """Return what ``make`` makes, a builder or a runtime.

    TensorRT returns a null pointer where there is no device or the context is dead, which its
    binding calls ``pybind11::init(): factory function returned nullptr``.

    Raises:
        BackendUnavailable: it makes none.
    """
    try:
        return make()
    except TypeError as error:
        if _NULL not in str(error):
            raise
        told = "; ".join(errors(log.lines)[:2])
        message = (
            f"TensorRT {trt.__version__} has no context of CUDA that works"
            f"{f' ({told})' if told else ''}: the GPU cannot be used (nvidia-smi tells), or an "
            "error before this one ended the context of this process; begin a new process"
        )
        raise BackendUnavailable(message) from error
