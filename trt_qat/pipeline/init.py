"""``trt-qat init``: a project of the user's own, with the digits engine as its working example."""

from __future__ import annotations

from pathlib import Path

from trt_qat.artifact import write_text
from trt_qat.atomic import staged
from trt_qat.errors import InputError

EXAMPLE = (
    "engines/README.md",
    "engines/digits-int8-24.toml",
    "engines/recipe.schema.json",
    "calibration/README.md",
    "calibration/digits.toml",
)
"""Copied as they stand in this repository, so that the example is the recipe that is tested."""

README = """\
# {name}

Engines of trt-qat: PyTorch models as 2:4-sparse INT8 TensorRT engines.

| folder | what it holds |
| --- | --- |
| `engines/` | one TOML per deployable engine: the recipe |
| `calibration/` | what ranges are measured on |
| `benchmarks/` | what is claimed of the engines |
| `runs/` | what runs leave, one folder per engine; not in git |

Work from this folder, so that `runs/` lies in it:

```sh
trt-qat doctor                                # what runs on this machine
trt-qat run engines/digits-int8-24.toml       # train, prune, quantize, export, verify
trt-qat run --keys                            # every key of a recipe, with its default
trt-qat report runs/digits-int8-24            # report.html, one page to look at
trt-qat check runs/digits-int8-24 --against baseline.json --update   # keep it as the baseline
```

A network of your own: copy the recipe and name its factory, `factory = "package.module:function"`;
data of your own: `source` in a calibration set, a folder of images by class or an .npz. Modules
beside the recipe and in this folder can be imported.
"""

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
    package = Path(__file__).parents[1]
    for folder in (package / "templates", package.parent):
        if all((folder / name).is_file() for name in EXAMPLE):
            return folder
    message = f"{package}: the example files are missing; install trt-qat again"
    raise InputError(message)


def init(folder: str | Path) -> list[Path]:
    """Lay out a project: the three folders of recipes, a README.md and a ``.gitignore``.

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
    files |= {
        "README.md": README.format(name=folder.resolve().name),
        "benchmarks/README.md": BENCHMARKS_README,
        ".gitignore": GITIGNORE,
    }
    if folder.exists() and not folder.is_dir():
        message = f"{folder} is a file; give a folder"
        raise InputError(message)
    if present := [name for name in files if (folder / name).exists()]:
        message = f"{folder} already has {', '.join(present)}; give another folder"
        raise InputError(message)
    with staged(folder) as stage:
        for name, text in files.items():
            write_text(stage / name, text)
    return [folder / name for name in files]
