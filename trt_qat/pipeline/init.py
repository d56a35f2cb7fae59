"""``trt-qat init``: a project of the user's own, which runs as it stands."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from trt_qat.artifact import write_text
from trt_qat.atomic import staged
from trt_qat.errors import InputError, nearest
from trt_qat.files import absent
from trt_qat.pipeline import init_code, init_given
from trt_qat.pipeline.init_code import OWN_PARTS, TASKS, piece
from trt_qat.pipeline.init_given import Facts
from trt_qat.recipe.named import check_path
from trt_qat.recipe.schema import recipe_schema

WORKFLOW = ".github/workflows/trt-qat.yml"

_TRAIN = {
    "classification": "epochs = 6\nbatch_size = 32\nlr = 5e-3",
    "segmentation": "epochs = 6\nbatch_size = 32\nlr = 5e-3\nlabel_smoothing = 0.0",
    "detection": "epochs = 20\nbatch_size = 32\nlr = 5e-3",
    "regression": "epochs = 20\nbatch_size = 32\nlr = 5e-3",
    "embedding": "epochs = 1\nbatch_size = 32",
    "own": "epochs = 20\nbatch_size = 32\nlr = 5e-3",
}
_DENSE = ("detection", "regression", "own")
"""Tasks whose small networks 2:4 would cost more than a short training brings back.

A network or data of the user's start dense too: how long 2:4 must be trained there nobody knows.
"""

_MOST = 128
"""Samples to calibrate on, of a quarter of what there is at most."""

_FINETUNE = "epochs = 2\nbatch_size = 32\nlr = {}"
_LOSS = {"detection": 0.03, "regression": 0.03, "own": 0.03}
"""Of accuracy, beyond the default, for networks as small as those that are written here."""


@dataclass(frozen=True)
class Asked:
    """What a project is made for.

    Attributes:
        task: a kind of the recipe's ``[task]``.
        model: import path of the factory of the user's network; None: a small one is written.
        data: a folder, an ``.npz`` or an import path; None: pictures are drawn.
        weights: checkpoint of the network; None: it is trained.
    """

    task: str = "classification"
    model: str | None = None
    data: str | None = None
    weights: str | None = None


def init(folder: str | Path, asked: Asked | None = None) -> list[Path]:
    """Write a project: network, data, recipe, calibration set, README and a CI workflow.

    Args:
        folder: made if absent; nothing in it is ever overwritten.
        asked: what for; None: a network and pictures to be replaced.

    Returns:
        The files written.

    Raises:
        InputError: what is named is not there or of another form, one of the files is already
            there, or the folder is a file.
    """
    folder, asked = Path(folder), asked or Asked()
    if folder.exists() and not folder.is_dir():
        message = f"{folder} is a file; give a folder"
        raise InputError(message)
    files = _files(folder, asked)
    if present := [name for name in files if (folder / name).exists()]:
        message = f"{folder} already has {', '.join(present)}; give another folder"
        raise InputError(message)
    with staged(folder) as stage:
        for name, text in files.items():
            write_text(stage / name, text)
    return [folder / name for name in files]


def engine_name(folder: Path) -> str:
    """Return the name of a project's engine: that of its folder, as recipes allow it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("._-") or "engine"


def _files(folder: Path, asked: Asked) -> dict[str, str]:
    """Return the texts of a project by their path in it."""
    check(asked)
    name = engine_name(folder)
    data, facts = _data(folder, asked)
    if asked.model is None:
        model = init_code.own_model(asked.task, facts)
    else:
        model = init_code.given_model(asked.model, asked.task, folder)
    samples = _MOST if facts.samples is None else max(min(_MOST, facts.samples // 4), 1)
    values = {"NAME": name, "TASK": asked.task, "ABOUT": _about(asked), "SAMPLES": str(samples)}
    files = {
        "model.py": model,
        "data.py": data,
        f"engines/{name}.toml": _recipe(folder, name, asked),
        "engines/recipe.schema.json": json.dumps(recipe_schema(), indent=2) + "\n",
        f"calibration/{name}.toml": _filled(piece("calibration"), values),
        "README.md": _filled(piece("readme"), values),
        WORKFLOW: _filled(piece("workflow"), values),
        ".gitignore": piece("gitignore"),
    }
    # What the user has under this very name needs no module around it.
    for part, path in (("model.py", asked.model), ("data.py", asked.data)):
        if path is not None and path.partition(":")[0] == part[:-3] and (folder / part).is_file():
            del files[part]
    return files


def check(asked: Asked) -> None:
    """Refuse what is not there.

    Raises:
        InputError: no such task, module, function, file or folder, or data of another form.
    """
    if asked.task not in TASKS:
        message = (
            f"--task {asked.task}: no such task; did you mean {nearest(asked.task, TASKS)[0]!r}? "
            f"allowed: {', '.join(TASKS)}"
        )
        raise InputError(message)
    if asked.model is not None:
        _check_import("--model", asked.model)
    if asked.weights is not None and not Path(asked.weights).is_file():
        message = f"--weights {asked.weights}: cannot be read: {absent(Path(asked.weights))}"
        raise InputError(message)
    if asked.weights is not None and asked.model is None:
        message = "--weights is of a network of yours: give --model module:factory too"
        raise InputError(message)
    _looked_at(asked)


def _check_import(option: str, path: str) -> None:
    if ":" not in path:
        message = f"{option} {path}: give an import path, package.module:name"
        raise InputError(message)
    check_path(option, path, Path.cwd())


def _looked_at(asked: Asked) -> tuple[Facts, tuple[str, str]]:
    """Return what the model must fit, and the keys of an ``.npz``."""
    if asked.data is None:
        return Facts(), ("", "")
    path = Path(asked.data).expanduser()
    if path.is_dir():
        return init_given.of_folder(path, asked.task), ("", "")
    if path.suffix == ".npz":
        return init_given.of_npz(path, asked.task)
    if ":" not in asked.data:
        message = f"--data {path}: no such folder; allowed: a folder, an .npz, module:function"
        raise InputError(message)
    _check_import("--data", asked.data)
    return Facts(), ("", "")


def _data(folder: Path, asked: Asked) -> tuple[str, Facts]:
    """Return the text of ``data.py``, and what the model must fit."""
    facts, keys = _looked_at(asked)
    if asked.data is None:
        return init_code.drawn_data(asked.task), facts
    path = Path(asked.data).expanduser()
    if path.is_dir():
        return init_code.folder_data(path, asked.task, folder, facts), facts
    if path.suffix == ".npz":
        return init_code.npz_data(path, keys, folder), facts
    return init_code.given_data(asked.data, folder), facts


def _recipe(folder: Path, name: str, asked: Asked) -> str:
    parts = "".join(
        f'{part} = "{_source("model", asked.model, part, folder)}"\n'
        for part in OWN_PARTS.get(asked.task, ())
    )
    weights = ""
    if asked.weights is not None:
        path = os.path.relpath(Path(asked.weights).resolve(), (folder / "engines").resolve())
        weights = f"weights = {json.dumps(Path(path).as_posix())}\n"
    train = f"[train]\n{_TRAIN[asked.task]}\n\n" if asked.weights is None else ""
    loss = f"\n[tolerances]\naccuracy_loss = {_LOSS[asked.task]}\n" if asked.task in _LOSS else ""
    values = {
        **{"NAME": name, "TASK": asked.task, "PARTS": parts, "WEIGHTS": weights, "TRAIN": train},
        # What was trained for long is moved little: a rate for beginners spoils it.
        **{"FINETUNE": _FINETUNE.format("1e-3" if asked.weights is None else "1e-4")},
        "TOLERANCES": loss,
        "SPARSE": "false" if asked.task in _DENSE or asked.model or asked.data else "true",
        "FACTORY": _source("model", asked.model, "model", folder),
    }
    return _filled(piece("recipe"), values)


def _source(module: str, given: str | None, name: str, folder: Path) -> str:
    """Return the import path of a function of the project."""
    if (
        given is not None
        and given.partition(":")[0] == module
        and (folder / f"{module}.py").is_file()
    ):
        return given if name == module else f"{module}:{name}"
    return f"{module}:{name}"


def _about(asked: Asked) -> str:
    model = f"around `{asked.model}`" if asked.model else "a small one, for yours to take its place"
    data = (
        f"reads `{asked.data}`" if asked.data else "draws pictures, for yours to take their place"
    )
    return f"| `model.py` | the network: {model} |\n| `data.py` | {data} |"


def _filled(text: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", value)
    return text
