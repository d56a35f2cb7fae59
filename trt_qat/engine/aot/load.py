"""Find TensorRT for RTX, and say why it cannot be used here.

It comes as two wheels, of libraries and of bindings (``tensorrt_rtx_bindings``); a third,
``tensorrt_rtx``, is a name for both. None of them is imported to find out.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
from pathlib import Path
from typing import Any

from trt_qat.engine import machine
from trt_qat.engine.compat import RTX_MINIMUM, RTX_MODULES
from trt_qat.errors import BackendUnavailable, first_line

TITLE = "TensorRT for RTX"
INSTALL = (
    "pip install 'trt-qat[rtx]', which fetches NVIDIA's wheels under NVIDIA's own licence (Linux "
    "and Windows, x86-64; Linux on Arm)"
)
POLYGRAPHY_SWITCH = "POLYGRAPHY_USE_TENSORRT_RTX"
"""Set to 1, Polygraphy uses TensorRT for RTX ("Polygraphy API", NVIDIA)."""
_DISTRIBUTIONS = (
    "tensorrt-rtx-cu12-bindings",
    "tensorrt-rtx-cu13-bindings",
    "tensorrt-rtx-cu12",
    "tensorrt-rtx-cu13",
    "tensorrt-rtx",
)


def module_name() -> str | None:
    """Return the name of the module that is installed."""
    return next((name for name in RTX_MODULES if importlib.util.find_spec(name) is not None), None)


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


def why_not_run() -> str | None:
    """Return why its engines cannot be run here, which takes a GPU; else None."""
    missing = [reason] if (reason := why_not()) else []
    found, without = machine.gpus()
    if not found:
        missing.append(f"there is no GPU: {without}")
    elif not any(machine.bindings().values()):
        missing.append("neither pycuda nor cuda-python is installed: pip install 'trt-qat[gpu]'")
    return f"engines of {TITLE} do not run here: {' and '.join(missing)}" if missing else None


def why_not_polygraphy() -> str | None:
    """Return why Polygraphy's switch for it finds nothing here, where the switch is set; else None.

    Polygraphy imports the name for both wheels, which neither of them brings.
    """
    if os.environ.get(POLYGRAPHY_SWITCH, "0") == "0" or why_not() is not None:
        return None
    if importlib.util.find_spec(RTX_MODULES[0]) is not None:
        return None
    return (
        f"{POLYGRAPHY_SWITCH} is set, and Polygraphy imports {RTX_MODULES[0]}, which the two "
        f"wheels of trt-qat[rtx] leave out: pip install tensorrt-rtx-cu12=={version()}"
    )


def too_old(found: str) -> str | None:
    """Return the sentence for a version that cannot be used; None if it can."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", found)[:3])
    if numbers >= RTX_MINIMUM:
        return None
    least = ".".join(map(str, RTX_MINIMUM))
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
