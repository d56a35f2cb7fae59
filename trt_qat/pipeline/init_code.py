"""The code that ``trt-qat init`` writes: a project's ``model.py`` and ``data.py``."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from trt_qat.errors import InputError
from trt_qat.pipeline.init_given import LAYOUTS, Facts
from trt_qat.recipe.locate import source_file

PIECES = Path(__file__).parents[1] / "templates" / "project"

TASKS = ("classification", "segmentation", "detection", "regression", "embedding", "own")
OWN_PARTS = {"detection": ("loss", "decode"), "own": ("loss", "metrics")}
"""Functions that a task asks of ``model.py`` beside the network."""

_ANSWERS = {"segmentation": 3, "regression": 3, "embedding": 64}
"""Classes or numbers of the pictures that are drawn; else 2."""


def piece(name: str) -> str:
    """Return one of the texts that a project is made of."""
    path = PIECES / f"{name}.txt"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        message = f"{path}: not there; install trt-qat again"
        raise InputError(message) from error


def own_model(task: str, facts: Facts) -> str:
    """Return a ``model.py`` with a small network of the task."""
    body = piece("backbone") + piece(f"head_{task}") + piece("model_end")
    answers = facts.answers or _ANSWERS.get(task, 2)
    body = body.replace(
        "CHANNELS, CLASSES = 1, 2", f"CHANNELS, CLASSES = {facts.channels or 1}, {answers}"
    )
    if "F." in body:
        body = body.replace(
            "from torch import Tensor, nn",
            "import torch.nn.functional as F\nfrom torch import Tensor, nn",
        )
    if not re.search(r"\btorch\.(?!nn)", body):
        body = body.replace("import torch\n", "", 1)
    return body


def given_model(path: str, task: str, project: Path) -> str:
    """Return a ``model.py`` around the user's factory."""
    text = _imported(piece("model_given"), path, project)
    parts = OWN_PARTS.get(task, ())
    if parts:
        text = text.replace("from torch import nn", "from torch import Tensor, nn")
        text = text.replace("from __future__ import annotations\n\n", _WITH_ANY, 1)
    return text + "".join(piece(f"{part}_given") for part in parts)


_WITH_ANY = "from __future__ import annotations\n\nfrom typing import Any\n\n"


def given_data(path: str, project: Path) -> str:
    """Return a ``data.py`` around the user's function."""
    return _imported(piece("function"), path, project).replace("{GIVEN}", path)


def drawn_data(task: str) -> str:
    """Return a ``data.py`` that draws pictures of the task."""
    return piece("drawn") + piece(f"answered_{task}")


def folder_data(folder: Path, task: str, project: Path, facts: Facts) -> str:
    """Return a ``data.py`` that reads a folder of images."""
    text = piece("folder") + piece(f"folder_{task}")
    layout = LAYOUTS[task]
    text = text.replace("{LAYOUT}", f"\nThe folder holds {layout[:60]}{_rest(layout[60:])}.")
    text = text.replace("{FOLDER}", _relative(folder, project))
    text = text.replace("{COLOURS}", '"RGB"' if facts.channels == 3 else '"L"')
    if facts.black_and_white:
        text = text.replace(
            "return np.asarray(small).astype(np.int64)",
            "return (np.asarray(small) > 127).astype(np.int64)",
        ).replace("the mask's value, 255 is ignored", "1 where the mask is white")
    for module in ("csv", "json"):
        if f"{module}." in text.partition("FOLDER =")[2]:
            text = text.replace("from pathlib", f"import {module}\nfrom pathlib", 1)
    return text


def npz_data(path: Path, keys: tuple[str, str], project: Path) -> str:
    """Return a ``data.py`` that reads the arrays of a file."""
    text = piece("npz").replace("{FILE}", _relative(path, project))
    return text.replace("{INPUTS}", json.dumps(keys[0])).replace("{TARGETS}", json.dumps(keys[1]))


def _rest(text: str) -> str:
    """Break the rest of a sentence at a space, so that no line is too long."""
    head, space, tail = text.partition(" ")
    return f"{head}\n{tail}" if space else head


def _relative(path: Path, project: Path) -> str:
    return json.dumps(Path(os.path.relpath(path.resolve(), project.resolve())).as_posix())


def _imported(text: str, path: str, project: Path) -> str:
    """Fill in what is imported, and where it lies if that is no installed package."""
    module, _, name = path.partition(":")
    if not module.replace(".", "_").isidentifier() or not name.isidentifier():
        message = f"{path!r}: an import path is package.module:name"
        raise InputError(message)
    text = text.replace("{MODULE}", module).replace("{NAME}", name)
    root = _root(path, module)
    if root is None or root == project.resolve():
        return text.replace("{PATH}", "")
    up = Path(os.path.relpath(root, project.resolve())).as_posix()
    line = f"sys.path.append(str(Path(__file__).resolve().parent / {json.dumps(up)}))"
    text = text.replace("{PATH}", "import sys\nfrom pathlib import Path\n")
    told = f"{line}  # where {module} lies\n"
    return text.replace(
        f"from {module} import {name}\n", f"\n{told}\nfrom {module} import {name}\n"
    )


def _root(path: str, module: str) -> Path | None:
    """Return the folder of the user's that a module is imported from; None: it is installed."""
    file = source_file(path, Path.cwd())
    if file is None or Path.cwd() not in file.resolve().parents or "site-packages" in file.parts:
        return None
    up = module.count(".") + (file.name == "__init__.py")
    return file.resolve().parents[up]
