"""Clocks and power of a Jetson from sysfs: the GPU's devfreq and the INA3221 power monitors.

`tegrastats` reads the same files and need not run for this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

MODEL = Path("/proc/device-tree/model")


def examine(sys: Path, model: Path = MODEL) -> dict[str, Any] | None:
    """Return model, GPU frequency range and power rails; None on any other machine."""
    name = _text(model).rstrip("\0\n")
    if "jetson" not in name.lower():
        return None
    gpu = _gpu(sys)
    return {
        "model": name,
        "power_mode": _power_mode(),
        "gpu_mhz": None if gpu is None else _mhz(gpu / "cur_freq"),
        "gpu_mhz_range": None if gpu is None else [_mhz(gpu / f"{end}_freq") for end in ENDS],
        "power_mw": _rails(sys),
    }


ENDS = ("min", "max")


def clocks_locked(found: dict[str, Any]) -> bool | None:
    """Tell whether the GPU has one frequency only, as ``jetson_clocks`` sets it."""
    ends = found["gpu_mhz_range"]
    return None if ends is None or None in ends else ends[0] == ends[1]


def _gpu(sys: Path) -> Path | None:
    folders = sys.glob("class/devfreq/*")
    names = ("gpu", "gv11b", "ga10b", "gp10b", "gm20b", "gpc0")
    return next((folder for folder in folders if folder.name.endswith(names)), None)


def _rails(sys: Path) -> dict[str, int]:
    """Return milliwatts by rail: millivolts times milliamperes (INA3221, kernel documentation)."""
    found = {}
    for label in sorted(sys.glob("bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in*_label")):
        number = label.name.removeprefix("in").removesuffix("_label")
        volts, amperes = (
            _text(label.with_name(f"{kind}{number}_input")).strip() for kind in ("in", "curr")
        )
        if volts.isdigit() and amperes.isdigit():
            found[_text(label).strip()] = int(volts) * int(amperes) // 1000
    return found


def _power_mode() -> str | None:
    text = _text(Path("/var/lib/nvpmodel/status")).strip()
    return text.removeprefix("pmode:") or None


def _mhz(path: Path) -> float | None:
    text = _text(path).strip()
    return int(text) / 1e6 if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
