"""Find TensorRT for RTX, and say why it cannot be used here.

It comes as two wheels, of libraries and of bindings (``tensorrt_rtx_bindings``); a third,
``tensorrt_rtx``, is a name for both. None of them is imported to find out.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
from pathlib import Path
from typing import Any

from trt_qat.errors import BackendUnavailable, first_line

TITLE = "TensorRT for RTX"
MODULES = ("tensorrt_rtx", "tensorrt_rtx_bindings")
MINIMUM = (1, 7, 1)
"""Before 1.7 no network with an INT8 convolution builds (``cudnn_impl.cpp:89: CHECK(dtype ==``)."""
INSTALL = (
    "pip install 'trt-qat[rtx]', which fetches NVIDIA's wheels under NVIDIA's own licence (Linux "
    "and Windows, x86-64; Linux on Arm)"
)
_DISTRIBUTIONS = (
    "tensorrt-rtx-cu12-bindings",
    "tensorrt-rtx-cu13-bindings",
    "tensorrt-rtx-cu12",
    "tensorrt-rtx-cu13",
    "tensorrt-rtx",
)


def module_name() -> str | None:
    """Return the name of the module that is installed."""
    return next((name for name in MODULES if importlib.util.find_spec(name) is not None), None)


def version() -> str | None:
    """Return the version that is installed, without loading it; None: none is."""
    name = module_name()
    if name is None:
        return None
    for distribution in _DISTRIBUTIONS:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return "unknown"
    match = re.search(r'^__version__ = "([^"]+)"', Path(spec.origin).read_text("utf-8"), re.M)
    return match[1] if match else "unknown"


def why_not() -> str | None:
    """Return why networks cannot be compiled for RTX here; else None."""
    found = version()
    if found is None:
        return f"{TITLE} is not installed: {INSTALL}"
    return too_old(found)


def too_old(found: str) -> str | None:
    """Return the sentence for a version that cannot be used; None if it can."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", found)[:3])
    if numbers >= MINIMUM:
        return None
    least = ".".join(map(str, MINIMUM))
    return (
        f"{TITLE} {found} is older than {least}, the first that builds INT8 convolutions: "
        "pip install --upgrade 'trt-qat[rtx]'"
    )


def require() -> str:
    """Return the version that is installed.

    Raises:
        BackendUnavailable: none is, or one that is too old.
    """
    if reason := why_not():
        raise BackendUnavailable(reason)
    return version() or "unknown"


def import_module() -> Any:
    """Import and return the module; its libraries are loaded first, as the bindings expect.

    Raises:
        BackendUnavailable: it is missing, does not load, or is too old.
    """
    name = module_name()
    if name is None:
        message = f"{TITLE} is not installed: {INSTALL}"
        raise BackendUnavailable(message)
    try:
        module = importlib.import_module(name)
        found = str(module.__version__)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        message = f"{TITLE} is installed but does not load: {first_line(error)}"
        raise BackendUnavailable(message) from error
    if reason := too_old(found):
        raise BackendUnavailable(reason)
    return module
