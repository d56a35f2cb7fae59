"""What this machine has: packages, a GPU, TensorRT. Looked for without importing any of it."""

from __future__ import annotations

import importlib.util
import platform
from pathlib import Path

from trt_qat.errors import BackendUnavailable

FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files."""

TORCH_MODULES = ("torch", "modelopt", "accelerate", "onnxscript")


def missing_modules(*names: str) -> list[str]:
    """Return those of the modules that cannot be imported here."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def lacks(what: str, needed: str | None, extra: str) -> BackendUnavailable:
    """Return the error of something that cannot be done without an extra of the package.

    Args:
        what: cannot be done, as the subject of a sentence.
        needed: the library that is missing.
        extra: brings it.
    """
    return BackendUnavailable(f"{what} needs {needed}: pip install 'trt-qat[{extra}]'")


def has_gpu() -> bool:
    """Tell whether an NVIDIA driver shows a device; Jetsons show it as a node of their own."""
    gpus = Path("/proc/driver/nvidia/gpus")
    if gpus.is_dir() and any(gpus.iterdir()):
        return True
    return any(Path(node).exists() for node in ("/dev/nvidia0", "/dev/nvhost-gpu", "/dev/dxg"))


def why_no_torch() -> str | None:
    """Return why models cannot be trained here, or None."""
    if missing := missing_modules(*TORCH_MODULES):
        return f"{', '.join(missing)} not installed: pip install 'trt-qat[train]'"
    return None


def why_no_tensorrt() -> str | None:
    """Return why engines cannot be built here, or None."""
    missing = []
    if missing_modules("tensorrt"):
        missing.append("TensorRT is not installed (pip install 'trt-qat[tensorrt]')")
    if not has_gpu():
        missing.append("no NVIDIA GPU is visible")
    return " and ".join(missing) or None


def cpu_has_vnni() -> bool | None:
    """Tell whether 8-bit products are summed in 32 bits; None where that cannot be known."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return None
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return None
    return "avx512_vnni" in flags or "avx_vnni" in flags
