"""To and from Polygraphy: its runners, data loaders, saved inputs and saved outputs.

So that what a team has for ``polygraphy run`` can be used as it is, and outputs that were saved on
a device can be compared elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.errors import DataError, InputError, TrtQatError, first_line
from trt_qat.files import absent
from trt_qat.runners.protocol import Feed, Opened, Outputs, TensorSpec
from trt_qat.wording import counted

_NO_OUTPUTS = "no outputs that Polygraphy saved"
_NO_INPUTS = "no inputs that Polygraphy saved"
LOADER = "load_data"
"""The function of a data-loader script that Polygraphy calls where none is named."""


class PolygraphyRunner:
    """Any runner of Polygraphy behind the protocol of ours.

    Args:
        runner: a ``polygraphy.backend.base.BaseRunner``; it is activated on entry.
    """

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self.name = str(runner.name)
        self._opened = False

    @property
    def inputs(self) -> dict[str, TensorSpec]:
        """Inputs by name; empty while the runner is not active."""
        if not self.runner.is_active:
            return {}
        with _told(self.name):
            metadata = self.runner.get_input_metadata(use_numpy_dtypes=False)
        return {
            name: TensorSpec(name, _shape(name, entry.shape), entry.dtype.numpy().name)
            for name, entry in metadata.items()
        }

    def infer(self, feed: Feed) -> Outputs:
        """Run one batch.

        Raises:
            DataError: the runner does not take the feed.
        """
        for name, spec in self.inputs.items():
            if name in feed:
                spec.check(feed[name])
        with _told(self.name):
            outputs = self.runner.infer(dict(feed))
            # Its buffers may be written again by the next batch.
            return {name: np.array(array) for name, array in outputs.items()}

    def __enter__(self) -> PolygraphyRunner:
        if not self.runner.is_active:
            with _told(self.name):
                self.runner.activate()
            self._opened = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._opened:  # else it is the caller's to deactivate
            self.runner.deactivate()
            self._opened = False


class SavedRunner(Opened):
    """Replays outputs that ``polygraphy run --save-outputs`` or `save_outputs` wrote.

    Args:
        path: the JSON, optionally with ``:RUNNER`` where it holds several.

    Raises:
        InputError: no such file, not saved outputs, or no such runner in it.
    """

    def __init__(self, path: str | Path) -> None:
        file, _, wanted = str(path).partition(".json:")
        self.path = Path(f"{file}.json" if wanted else file)
        with _told(f"{self.path}: {_NO_OUTPUTS}"):
            results = {name: list(each) for name, each in _results(self.path).items()}
        if wanted and wanted not in results:
            message = f"{self.path}: holds no runner {wanted!r}; it holds {', '.join(results)}"
            raise InputError(message)
        if not wanted and len(results) != 1:
            message = (
                f"{self.path}: holds {len(results)} runners ({', '.join(results)}); name one: "
                f"polygraphy:{self.path}:{next(iter(results), 'RUNNER')}"
            )
            raise InputError(message)
        self.name = wanted or next(iter(results))
        self.inputs: dict[str, TensorSpec] = {}
        self._iterations = results[self.name]
        self._next = 0

    def infer(self, feed: Feed) -> Outputs:
        """Return the outputs of the next iteration; the feed must be the one that it ran on.

        Raises:
            DataError: there are fewer iterations than batches.
        """
        if self._next >= len(self._iterations):
            message = (
                f"{self.path}: holds {counted(len(self._iterations), 'iteration')} and more were "
                "asked for; compare on the inputs that were saved with them"
            )
            raise DataError(message)
        found = self._iterations[self._next]
        self._next += 1
        with _told(f"{self.path}: {_NO_OUTPUTS}"):
            return {name: np.asarray(found[name]) for name in found}


def is_polygraphy(thing: object) -> bool:
    """Tell whether something is of a class of Polygraphy's, without importing it."""
    return any(base.__module__.startswith("polygraphy.") for base in type(thing).__mro__)


def with_metadata(feeds: Any, inputs: Mapping[str, TensorSpec]) -> Iterable[Feed]:
    """Return feeds; a ``DataLoader`` of Polygraphy is told what the model's inputs are."""
    if is_polygraphy(feeds) and getattr(feeds, "input_metadata", True) is None and inputs:
        feeds.input_metadata = _metadata(inputs)
    checked: Iterable[Feed] = feeds
    return checked


def random_feed(inputs: Mapping[str, TensorSpec], samples: int) -> Feed:
    """Return one batch of uniform numbers of mean 0 and variance 1 by Polygraphy's DataLoader."""
    from polygraphy.comparator import DataLoader

    fixed = {
        name: TensorSpec(name, (spec.shape[0] if isinstance(spec.shape[0], int) else samples,
                                *spec.shape[1:]), spec.dtype)
        for name, spec in inputs.items()
    }  # fmt: skip
    edge = 3**0.5
    loader = DataLoader(seed=0, val_range=(-edge, edge))
    loader.input_metadata = _metadata(fixed)
    with _told("random inputs"):
        return {name: np.asarray(array) for name, array in loader[0].items()}


def load_feeds(source: str) -> list[Feed]:
    """Return the feeds of a data-loader script, ``FILE.py[:function]``, or of saved inputs.

    Raises:
        InputError: no such file, function or feed.
    """
    file, _, function = source.partition(".py:")
    path = Path(f"{file}.py" if function else source)
    if not path.is_file():
        message = f"{path}: {absent(path)}"
        raise InputError(message)
    feeds = _run_script(path, function or LOADER) if path.suffix == ".py" else _read(path)
    with _told(f"{path}: {_NO_INPUTS}"):
        found = [_feed(feed, path) for feed in feeds]
    if not found:
        message = f"{path}: gives no feed; each is a dict of arrays by input name"
        raise InputError(message)
    return found


def save_outputs(path: Path, runs: Sequence[tuple[str, Sequence[Outputs]]]) -> Path:
    """Write the outputs of runners, one dict a batch, for ``polygraphy run --load-outputs``."""
    from polygraphy.comparator import IterationResult, RunResults

    from trt_qat import artifact

    entries: list[tuple[str, Any]] = []
    for runner, batches in runs:
        name = f"{runner}-2" if runner in dict(entries) else runner
        entries.append((name, [IterationResult(dict(kept), 0.0, name) for kept in batches]))
    with artifact.atomic_path(path) as temporary:
        try:
            with _told(str(path)):
                RunResults(entries).save(str(temporary))
        except InputError as error:
            if isinstance(error.__cause__, OSError):  # the file's fault, not Polygraphy's
                raise error.__cause__ from None
            raise
    return path


def _run_script(path: Path, function: str) -> Iterable[Any]:
    from polygraphy import mod

    with _told(f"{path}:{function}"):
        return list(mod.import_from_script(str(path), function)())


def _read(path: Path) -> Iterable[Any]:
    from polygraphy.json import load_json

    with _told(f"{path}: {_NO_INPUTS}"):
        loaded = load_json(str(path))
    return loaded if isinstance(loaded, list) else [loaded]


def _results(path: Path) -> Any:
    from polygraphy.comparator import RunResults

    if not path.is_file():
        message = f"{path}: {absent(path)}"
        raise InputError(message)
    with _told(f"{path}: {_NO_OUTPUTS}"):
        return RunResults.load(str(path))


def _feed(feed: Any, path: Path) -> Feed:
    if not isinstance(feed, Mapping) or not feed:
        message = (
            f"{path}: gives {type(feed).__name__}; each feed is a dict of arrays by input name"
        )
        raise InputError(message)
    return {str(name): _array(value) for name, value in feed.items()}


def _array(value: Any) -> NDArray[Any]:
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


def _metadata(inputs: Mapping[str, TensorSpec]) -> Any:
    from polygraphy.common import TensorMetadata

    metadata = TensorMetadata()
    for name, spec in inputs.items():
        shape = tuple(size if isinstance(size, int) else -1 for size in spec.shape)
        metadata.add(name, np.dtype(spec.dtype), shape)
    return metadata


def _shape(name: str, shape: Any) -> tuple[int | str, ...]:
    return tuple(
        size if isinstance(size, int) and size >= 0 else str(size or f"{name}_{at}")
        for at, size in enumerate(shape or ())
    )


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn what Polygraphy, or a user's code that it calls, raises into one error of ours.

    Polygraphy would print its own besides.
    """
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    try:
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1):
            yield
    except PolygraphyException as error:
        message = f"{what}: Polygraphy: {first_line(error)}"
        raise InputError(message) from error
    except TrtQatError:
        raise
    except Exception as error:  # whatever a script or a backend raises
        message = f"{what}: raised {type(error).__name__}: {first_line(error)}"
        raise InputError(message) from error
