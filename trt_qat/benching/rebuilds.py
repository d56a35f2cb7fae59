"""Models made anew, again and again: how far two builds of one network differ.

TensorRT times kernels while it builds, so two builds of one ONNX may take other kernels; a
difference between two engines that is smaller than that between two builds of one says nothing.
onnxruntime builds whenever a session is opened, and a torch function makes its module whenever it
is called, so for them to open is to rebuild.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trt_qat.artifact import sha256_file
from trt_qat.benching.session import Session
from trt_qat.benching.stats import Floats
from trt_qat.engine.origin import origin_of
from trt_qat.errors import InputError
from trt_qat.recipe.specs import BuildSpec
from trt_qat.runners.protocol import Runner

Say = Callable[[str], None]
BUILT = ("trt", "trt-graph", "trt-trusted")


@dataclass(frozen=True)
class Recipe:
    """What an engine is built from."""

    kind: str
    onnx: Path
    spec: BuildSpec


def recipe_of(spec: str) -> Recipe | None:
    """Return what a SPEC's engine is built from; None where opening the SPEC rebuilds it.

    ``trt:FILE.onnx`` is built with the defaults, ``trt:FILE.engine`` from the ONNX beside it with
    the options in its sidecar. Neither keeps a timing cache: it would make every build take the
    kernels of the first.

    Raises:
        InputError: the engine does not say what it was built from, or that has changed, or it is
            one of implicit INT8.
    """
    kind, _, rest = spec.partition(":")
    if kind not in BUILT:
        return None
    path = Path(rest)
    if path.suffix == ".onnx":
        return Recipe(kind, path, BuildSpec(timing_cache="none"))
    origin = origin_of(path)
    if origin is not None:
        origin.check_rebuildable(path)
    for name, digest in ({} if origin is None else origin.parents).items():
        onnx = path.parent / name
        if origin and onnx.is_file() and sha256_file(onnx) == digest:
            given = origin.spec.model_copy(update={"timing_cache": "none"})
            # A network with its casts in it is built as it stands.
            typed = onnx.name.endswith(".typed.onnx")
            if typed:
                given = given.model_copy(update={"remainder": "fp32"})
            return Recipe(kind, onnx, given)
    message = (
        f"{spec}: cannot be rebuilt: no sidecar names an ONNX beside it that is unchanged since; "
        "give the ONNX, as trt:FILE.onnx"
    )
    raise InputError(message)


@contextlib.contextmanager
def workshop(sources: Sequence[str | Runner], say: Say) -> Iterator[Callable[[], list[str]]]:
    """Yield what returns the SPECs of freshly built models; their files go when the block ends.

    Raises:
        InputError: an engine that cannot be rebuilt.
        BackendUnavailable: TensorRT or a GPU is missing.
    """
    specs = [source for source in sources if isinstance(source, str)]
    recipes = [recipe_of(spec) for spec in specs]
    with tempfile.TemporaryDirectory(prefix="trt-qat-rebuild-") as folder:
        count = 0

        def build() -> list[str]:
            nonlocal count
            count += 1
            return [
                spec if recipe is None else _engine(recipe, Path(folder) / f"{count}-{i}", say)
                for i, (spec, recipe) in enumerate(zip(specs, recipes, strict=True))
            ]

        yield build


def _engine(recipe: Recipe, folder: Path, say: Say) -> str:
    from trt_qat.engine.build.build import build

    folder.mkdir()
    say(f"building {recipe.onnx}")
    made = build(recipe.onnx, folder / "model.engine", spec=recipe.spec, say=say)
    return f"{recipe.kind}:{made.path}"


@dataclass(frozen=True)
class Spread:
    """How far builds of one model, or the ratios of builds of two, differ.

    Attributes:
        values: one a build: the median latency in milliseconds, or the ratio.
        within: standard deviation, in logarithms, of the sessions of one build; None where every
            build had one session.
    """

    values: tuple[float, ...]
    within: float | None

    def to_dict(self, name: str) -> dict[str, Any]:
        """Return the JSON's ``rebuilds``, its values under a name."""
        logs = np.log(self.values)
        return {
            name: list(self.values),
            "range": [min(self.values), max(self.values)],
            "spread": max(self.values) / min(self.values) - 1,
            "deviation": float(np.std(logs, ddof=1)),
            "deviation_within": self.within,
        }


def by_build(logs: Sequence[float], builds: int) -> Floats:
    """Return the mean of each build's sessions; sessions are in order, as many for each build.

    Args:
        logs: ``(builds * sessions,)``, logarithms.
        builds: how many.
    """
    means: Floats = np.asarray(logs, dtype=np.float64).reshape(builds, -1).mean(axis=1)
    return means


def spread(logs: Sequence[float], builds: int) -> Spread:
    """Return how far the builds differ, and how far the sessions of one build do."""
    each = np.asarray(logs, dtype=np.float64).reshape(builds, -1)
    within = None if each.shape[1] == 1 else math.sqrt(float(each.var(axis=1, ddof=1).mean()))
    return Spread(tuple(np.exp(each.mean(axis=1)).tolist()), within)


def p50_spread(sessions: Sequence[Session], model: int, builds: int) -> Spread | None:
    """Return the spread of a model's median latency; None without rebuilds."""
    return spread([each.log_p50(model) for each in sessions], builds) if builds else None


def ratio_spread(sessions: Sequence[Session], a: int, b: int, builds: int) -> Spread | None:
    """Return the spread of the ratio of two models; None without rebuilds."""
    if not builds:
        return None
    return spread([each.log_ratio(a, b) for each in sessions], builds)


def agree(found: Spread) -> bool:
    """Tell whether the ratio of every build lies on the same side of 1."""
    return min(found.values) > 1 or max(found.values) < 1
