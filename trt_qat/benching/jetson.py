"""Clocks and power of a Jetson from sysfs: the GPU's devfreq and the INA3221 power monitors.

`tegrastats` reads the same files and need not run for this.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

MODEL = Path("/proc/device-tree/model")
STATUS = Path("var/lib/nvpmodel/status")
CONFIGURATION = Path("etc/nvpmodel.conf")
RELEASE = Path("etc/nv_tegra_release")


def examine(sys: Path, model: Path = MODEL, root: Path = Path("/")) -> dict[str, Any] | None:
    """Return what a Jetson is and how it is set; None on any other machine.

    Args:
        sys: where sysfs is.
        model: the file of the device tree that names the board.
        root: what the files of L4T lie under.
    """
    name = _text(model).rstrip("\0\n")
    if "jetson" not in name.lower():
        return None
    gpu = _gpu(sys)
    return {
        "model": name,
        "l4t": _text(root / RELEASE).partition("\n")[0].lstrip("# ") or None,
        "power_mode": power_mode(root),
        "cpus_online": _text(sys / "devices/system/cpu/online").strip() or None,
        "gpu_mhz_range": None if gpu is None else [_mhz(gpu / f"{end}_freq") for end in ENDS],
        **read(sys),
    }


def read(sys: Path) -> dict[str, Any]:
    """Return clock, power and temperatures of this moment; empty where sysfs has none of them."""
    gpu = _gpu(sys)
    return {
        "gpu_mhz": None if gpu is None else _mhz(gpu / "cur_freq"),
        "power_mw": _rails(sys),
        "temperature_c": _temperatures(sys),
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


def power_mode(root: Path) -> str | None:
    """Return number and name of the mode that ``nvpmodel`` has set, such as ``0 MAXN``."""
    text = _text(root / STATUS).strip().removeprefix("pmode:").partition(" ")[0]
    if not text.isdigit():
        return None
    names = re.findall(
        r"^< *POWER_MODEL +ID=(\d+) +NAME=(\S+) *>", _text(root / CONFIGURATION), re.MULTILINE
    )
    name = next((name for number, name in names if int(number) == int(text)), "")
    return f"{int(text)} {name}".rstrip()


def _temperatures(sys: Path) -> dict[str, float]:
    found = {}
    for zone in sorted(sys.glob("class/thermal/thermal_zone*")):
        value = _text(zone / "temp").strip()
        # A zone whose part is switched off cannot be read, or tells -256 degrees.
        if value.lstrip("-").isdigit() and int(value) > -100_000:
            found[_text(zone / "type").strip()] = int(value) / 1000
    return found


def _mhz(path: Path) -> float | None:
    text = _text(path).strip()
    return int(text) / 1e6 if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
