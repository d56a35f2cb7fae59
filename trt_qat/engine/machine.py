"""What this machine has of NVIDIA's: found through the driver alone, importing none of it.

The CUDA driver library is asked directly, because it is the one part that every machine with a
usable GPU has: Jetsons have no NVML, and TensorRT crashes where there is no device.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import re
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from trt_qat import targets
from trt_qat.backends import missing_modules

_LIBCUDA = "libcuda.so.1"
_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_TEGRA_FILE = Path("/etc/nv_tegra_release")
# CUdevice_attribute of cuda.h.
_MAJOR, _MINOR, _MULTIPROCESSORS = 75, 76, 16
_NO_DEVICE = 100
CPU_PATH = (
    "preflight, compare with ort:, inspect of saved layer info and all of `trt-qat run` up to the "
    "verified ONNX run without it"
)


@dataclass(frozen=True)
class Gpu:
    """A CUDA device.

    Attributes:
        name: as the driver gives it.
        sm: compute capability.
        memory_mib: of the device; shared with the CPU on Jetsons.
        multiprocessors: on the device, or on the slice of it that this process sees.
        cuda: newest CUDA version that the driver runs.
    """

    name: str
    sm: tuple[int, int]
    memory_mib: int
    multiprocessors: int
    cuda: tuple[int, int]

    @property
    def slug(self) -> str:
        """The name as a part of a file name."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


@cache
def gpus() -> tuple[tuple[Gpu, ...], str | None]:
    """Return the CUDA devices that this process may use, and why there are none."""
    try:
        driver = ctypes.CDLL(_LIBCUDA)
    except OSError:
        return (), "no NVIDIA driver (libcuda.so.1) is installed"
    status = driver.cuInit(0)
    if status == _NO_DEVICE:
        return (), "the NVIDIA driver shows no device"
    if status:
        return (), f"the NVIDIA driver does not start (cuInit returns {status})"
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    found = tuple(_gpu(driver, index) for index in range(count.value))
    return found, None if found else "the NVIDIA driver shows no device"


def _gpu(driver: ctypes.CDLL, index: int) -> Gpu:
    device, text = ctypes.c_int(), ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(text, len(text), device)
    total, version = ctypes.c_size_t(), ctypes.c_int()
    driver.cuDeviceTotalMem_v2(ctypes.byref(total), device)
    driver.cuDriverGetVersion(ctypes.byref(version))

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
        return value.value

    return Gpu(
        name=text.value.decode(errors="replace"),
        sm=(attribute(_MAJOR), attribute(_MINOR)),
        memory_mib=total.value >> 20,
        multiprocessors=attribute(_MULTIPROCESSORS),
        cuda=(version.value // 1000, version.value % 1000 // 10),
    )


def driver_version() -> str | None:
    """Return the version of the kernel driver, or of L4T on a Jetson."""
    for file, pattern in (
        (_DRIVER_FILE, r"Kernel Module[^\n]*?\s(\d+\.\d+(?:\.\d+)?)\s"),
        (_TEGRA_FILE, r"# (R\d+ .*?REVISION: [\d.]+)"),
    ):
        try:
            match = re.search(pattern, file.read_text(encoding="utf-8"))
        except OSError:
            continue
        if match:
            return match[1]
    return None


def tensorrt_version() -> str | None:
    """Return the version of the installed TensorRT bindings, without loading them."""
    if missing_modules("tensorrt"):
        return None
    for name in ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    spec = importlib.util.find_spec("tensorrt")
    if spec is None or spec.origin is None:
        return None
    match = re.search(r'^__version__ = "([^"]+)"', Path(spec.origin).read_text("utf-8"), re.M)
    return match[1] if match else "unknown"


def bindings() -> dict[str, bool]:
    """Return which CUDA bindings are installed: pycuda, and cuda-python for graphs."""
    # find_spec of a submodule imports its parents, which are empty packages here.
    graphs = not missing_modules("cuda") and not missing_modules("cuda.bindings")
    return {"pycuda": not missing_modules("pycuda"), "cuda-python": graphs}


def why_no_engines() -> str | None:
    """Return why engines can be neither built nor run here, and what runs instead; else None."""
    missing = []
    if missing_modules("tensorrt"):
        missing.append("TensorRT is not installed (pip install 'trt-qat[tensorrt]')")
    found, reason = gpus()
    if not found:
        missing.append(f"there is no GPU: {reason}")
    return f"{' and '.join(missing)}; {CPU_PATH}" if missing else None


def why_not_run() -> str | None:
    """Return why engines cannot be run here; else None."""
    if reason := why_no_engines():
        return reason
    if not any(bindings().values()):
        return "neither pycuda nor cuda-python is installed: pip install 'trt-qat[gpu]'"
    return None


def likely_target(gpu: Gpu) -> str | None:
    """Return the name of the target that a device is, by its product name."""
    words = set(re.findall(r"[a-z0-9]+", gpu.name.lower()))
    for target in targets.TARGETS.values():
        if target.sm == gpu.sm and words.issuperset(target.name.split("-")):
            return target.name
    return None


def on_this_gpu() -> dict[str, object] | None:
    """Return what an engine depends on beside its ONNX and its options; None without a GPU."""
    found, _ = gpus()
    return {"gpu": asdict(found[0]), "tensorrt": tensorrt_version()} if found else None


def facts() -> dict[str, object]:
    """Return what `trt-qat doctor` shows of this machine."""
    found, reason = gpus()
    return {
        "driver": driver_version(),
        "gpus": [asdict(gpu) | {"target": likely_target(gpu)} for gpu in found],
        "why_no_gpu": reason,
        "tensorrt": tensorrt_version(),
        "bindings": bindings(),
        "why_not_build": why_no_engines(),
        "why_not_run": why_not_run(),
    }
