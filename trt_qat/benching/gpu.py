"""Clocks, throttling and power of NVIDIA GPUs by NVML, where its Python binding and a driver are.

NVML has no query for locked clocks. A clock that changes under load, or a throttle reason other
than an idle GPU, is what tells that they are not; that of an idle GPU tells nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

IDLE = 0x1
THROTTLE_REASONS = {
    0x2: "clocks set by the application",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clock setting",
}
"""Bits of ``nvmlDeviceGetCurrentClocksThrottleReasons`` (``nvml.h``)."""

HARMLESS = frozenset({"clocks set by the application", "sync boost", "display clock setting"})


def examine() -> list[dict[str, Any]]:
    """Return what does not change: name, memory, driver; empty without a driver."""
    return _each(
        lambda nvml, device: {
            "name": _string(nvml.nvmlDeviceGetName(device)),
            "driver": _string(nvml.nvmlSystemGetDriverVersion()),
            "memory_mib": nvml.nvmlDeviceGetMemoryInfo(device).total >> 20,
            "max_sm_mhz": _try(
                lambda: nvml.nvmlDeviceGetMaxClockInfo(device, nvml.NVML_CLOCK_SM), nvml
            ),
            "power_limit_w": _milli(
                _try(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(device), nvml)
            ),
        }
    )


def read() -> list[dict[str, Any]]:
    """Return clocks, throttle reasons, power, energy, temperature and other processes now."""
    return _each(_reading)


def sm_mhz() -> list[int | None]:
    """Return the clock of every GPU now; None where one does not tell, empty without a driver."""
    return [found["sm_mhz"] for found in _each(_clock)]


def _clock(nvml: Any, device: Any) -> dict[str, Any]:
    return {"sm_mhz": _try(lambda: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_SM), nvml)}


def _reading(nvml: Any, device: Any) -> dict[str, Any]:
    bits = _try(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device), nvml)
    processes = _try(lambda: nvml.nvmlDeviceGetComputeRunningProcesses(device), nvml)
    return {
        **_clock(nvml, device),
        "memory_mhz": _try(lambda: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_MEM), nvml),
        "throttled": None if bits is None else reasons(bits),
        "power_w": _milli(_try(lambda: nvml.nvmlDeviceGetPowerUsage(device), nvml)),
        "energy_j": _milli(_try(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(device), nvml)),
        "temperature_c": _try(
            lambda: nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU), nvml
        ),
        "processes": None if processes is None else len(processes),
    }


def reasons(bits: int) -> list[str]:
    """Return why the clocks are below what they could be; an idle GPU is no reason."""
    return [text for bit, text in THROTTLE_REASONS.items() if bits & bit & ~IDLE]


def _each(question: Callable[[Any, Any], dict[str, Any]]) -> list[dict[str, Any]]:
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        count = pynvml.nvmlDeviceGetCount()
        return [question(pynvml, pynvml.nvmlDeviceGetHandleByIndex(i)) for i in range(count)]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _try(ask: Callable[[], Any], nvml: Any) -> Any:
    """Return an answer, None where this device has none (Jetsons lack most)."""
    try:
        return ask()
    except nvml.NVMLError:
        return None


def _milli(value: int | None) -> float | None:
    return None if value is None else value / 1000


def _string(text: str | bytes) -> str:
    return text.decode() if isinstance(text, bytes) else text
