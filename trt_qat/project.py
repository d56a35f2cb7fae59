"""``trt-qat init``: a project of the user's own, with the digits engine as its working example."""

from __future__ import annotations

from pathlib import Path

from trt_qat.artifact import write_text
from trt_qat.errors import InputError

EXAMPLE = (
    "engines/README.md",
    "engines/digits-int8-24.toml",
    "calibration/README.md",
    "calibration/digits.toml",
)
"""Copied as they stand in this repository, so that the example is the recipe that is tested."""

BENCHMARKS_README = """\
One TOML per claim: engines against baselines, and the thresholds that they must hold.
"""

GITIGNORE = """\
/runs/
*.engine
*.timing
"""


def example_folder() -> Path:
    """Return where the example lies: in the installed package, or in the checkout around it."""
    package = Path(__file__).parent
    for folder in (package / "templates", package.parent):
        if all((folder / name).is_file() for name in EXAMPLE):
            return folder
    message = f"{package}: the example files are missing; install trt-qat again"
    raise InputError(message)


def init(folder: str | Path) -> list[Path]:
    """Lay out a project: ``engines/``, ``calibration/``, ``benchmarks/`` and a ``.gitignore``.

    Args:
        folder: made if absent; nothing in it is ever overwritten.

    Returns:
        The files written.

    Raises:
        InputError: one of the files is already there, or the folder is a file.
    """
    folder = Path(folder)
    source = example_folder()
    files = {name: (source / name).read_text(encoding="utf-8") for name in EXAMPLE}
    files |= {"benchmarks/README.md": BENCHMARKS_README, ".gitignore": GITIGNORE}
    if folder.exists() and not folder.is_dir():
        message = f"{folder} is a file; give a folder"
        raise InputError(message)
    if present := [name for name in files if (folder / name).exists()]:
        message = f"{folder} already has {', '.join(present)}; give another folder"
        raise InputError(message)
    return [write_text(folder / name, text) for name, text in files.items()]
