"""A machine without torch: an environment that holds the base install and what it names, only.

No wheel is fetched: the files of each distribution that trt-qat's base install asks for, and of
those that these ask for, are linked from the environment that the tests run in.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from tests.runs import run_by

ROOT = Path(__file__).parents[1]

_NAME = re.compile(r"[A-Za-z0-9._-]+")


def base_install(extra: str | None = None) -> dict[str, Distribution]:
    """Return every distribution that trt-qat needs, with those of one of its extras."""
    found: dict[str, Distribution] = {}
    waiting = [*_needs("trt-qat", extra)]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform or Python
        waiting += _needs(name, None)
    return found


def _needs(name: str, extra: str | None) -> list[str]:
    """Return the names that a distribution asks for without extras, and with this one of them."""
    wanted = []
    for line in distribution(name).requires or ():
        asked = re.search(r"extra == ['\"]([^'\"]+)['\"]", line)
        match = _NAME.match(line)
        if match and (asked is None or asked[1] == extra):
            wanted.append(match[0].lower())
    return wanted


def device_python(folder: Path, extra: str | None = None) -> Path:
    """Make the environment and return its Python.

    Args:
        folder: where it is made.
        extra: of trt-qat, whose distributions are in it too.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = site / "site-packages"
    for found in base_install(extra).values():
        for top in {Path(file).parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            source = Path(str(found.locate_file(top)))
            if source.exists() and not (site / top).exists():
                (site / top).symlink_to(source.resolve())
    return folder / "bin" / "python"


def on_device(
    python: Path, *arguments: str | Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``trt-qat`` in the environment, with no other than its own packages."""
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    environment["PYTHONPATH"] = str(ROOT)
    return run_by(python, *arguments, cwd=cwd, environment=environment, timeout=240)
