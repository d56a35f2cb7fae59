"""The inner tensors of an ONNX model on onnxruntime, computed into memory that is used again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.errors import DataError, first_line
from trt_qat.graph.large import is_large, serialized
from trt_qat.graph.load import embed_weights, load_graph
from trt_qat.graph.taps import FORCED, Tap, forced, observed, taps
from trt_qat.runners.ort import PARITY_SESSION, Session, open_session
from trt_qat.runners.protocol import Feed

Values = dict[str, NDArray[Any]]


class OrtTapped:
    """The tensors of an ONNX model on onnxruntime, Q and DQ as plain float operators.

    Raises:
        GraphError: the file is missing or damaged, or onnxruntime does not take the graph.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.model = embed_weights(load_graph(self.path))
        self.taps = taps(self.model)
        self.fixed_batch = _has_fixed_batch(self.model)
        self.outputs = None
        self.output_names = [value.name for value in self.model.graph.output]
        self._sessions: dict[tuple[bool, tuple[str, ...]], _Session] = {}
        self._memory = _Memory()

    def match(self, wanted: list[Tap]) -> dict[str, str]:
        """Match by the tensor's name, or else by the name and operator of its node."""
        here = {tap.tensor for tap in self.taps}
        by_node = {(tap.node, tap.op): tap.tensor for tap in reversed(self.taps)}
        found = {}
        for tap in wanted:
            name = tap.tensor if tap.tensor in here else by_node.get((tap.node, tap.op))
            if name is not None:
                found[tap.tensor] = name
        return found

    def observe(
        self, feed: Feed, names: list[str], shapes: Mapping[str, tuple[int, ...]] | None = None
    ) -> Values:
        """Run one batch; the named tensors, in memory that the next run overwrites.

        Where their ``shapes`` are known, onnxruntime need not hold them once more for itself.
        """
        session = self._session(names, force=False)
        if shapes is not None and all(name in shapes for name in names):
            dtypes = {tap.tensor: tap.dtype for tap in self.taps}
            self._memory.reserve(feed, {n: (shapes[n], dtypes[n]) for n in names if n in dtypes})
        return session.run(feed, {}, names)

    def force(self, feed: Feed, values: Values) -> Values:
        """Run one batch with ``values`` at the inputs of every node; the same tensors, computed.

        They lie in memory that the next run, of this or of `observe`, overwrites.
        """
        names = list(values)
        session = self._session(names, force=True)
        dtypes = {tap.tensor: tap.dtype for tap in self.taps}
        given = {  # of a reference that computes in another precision
            forced: np.asarray(values[name], dtype=dtypes[name])
            for forced in session.forced
            for name in [forced.removeprefix(FORCED)]
        }
        return session.run(feed, given, names)

    def _session(self, names: list[str], *, force: bool) -> _Session:
        key = (force, tuple(names))
        if key not in self._sessions:
            chosen = set(names)
            wanted = [tap for tap in self.taps if tap.tensor in chosen]
            make = forced if force else observed
            self._sessions[key] = _Session(make(self.model, wanted), self.path, self._memory)
        return self._sessions[key]


class _Memory:
    """Arrays that runs write into: the kernel needs longer to map fresh memory than a run takes."""

    def __init__(self) -> None:
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._arrays: Values = {}

    def of(self, feed: Feed, names: list[str]) -> Values | None:
        """Return the arrays of an earlier run of the same shapes; None: there was none."""
        if self._shapes != _shapes(feed) or not all(name in self._arrays for name in names):
            return None
        return {name: self._arrays[name] for name in names}

    def reserve(self, feed: Feed, wanted: Mapping[str, tuple[tuple[int, ...], Any]]) -> None:
        """Have arrays of these shapes and types for runs of a feed."""
        if self._shapes != _shapes(feed):
            self._shapes, self._arrays = _shapes(feed), {}
        for name, (shape, dtype) in wanted.items():
            if name not in self._arrays:
                self._arrays[name] = np.empty(shape, dtype)

    def keep(self, feed: Feed, arrays: Values) -> Values:
        """Keep what a run has returned for the next ones; return it."""
        self._shapes = _shapes(feed)
        self._arrays = {name: _owned(array) for name, array in arrays.items()}
        return dict(self._arrays)


def _shapes(feed: Feed) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in feed.items()}


def _owned(array: NDArray[Any]) -> NDArray[Any]:
    flags = array.flags
    return array if flags.owndata and flags.writeable and flags.c_contiguous else array.copy()


class _Session:
    """A session of a changed graph; inputs that nothing reads any more may be missing from it.

    onnxruntime fuses across no tensor that is wanted; the others may disappear.
    """

    def __init__(self, model: Any, path: Path, memory: _Memory) -> None:
        self.path, self._memory = path, memory
        content, entries = serialized(model)
        self._session = Session(
            partial(open_session, content, str(path), {**PARITY_SESSION, **entries}),
            lean=is_large(model),
        )
        self.inputs = [item.name for item in self._session.inputs]
        self.forced = [name for name in self.inputs if name.startswith(FORCED)]

    def run(self, feed: Feed, given: Feed, names: list[str]) -> Values:
        """Run with a feed of the model's own inputs and given values of its taps."""
        both = {**feed, **given}
        fed = {name: np.ascontiguousarray(both[name]) for name in self.inputs if name in both}
        known, session = self._memory.of(feed, names), self._session.open()
        try:
            # A shape that depends on values may be another one than in the run before.
            if known is not None and _into(session, fed, known):
                return known
            found = dict(zip(names, session.run(names, fed), strict=True))
        except Exception as error:
            # onnxruntime's own exceptions share no public base class.
            message = f"{self.path}: onnxruntime cannot run it: {first_line(error)}"
            raise DataError(message) from error
        return self._memory.keep(feed, found)


def _into(
    session: Any, fed: Mapping[str, NDArray[Any]], arrays: Mapping[str, NDArray[Any]]
) -> bool:
    """Run a session into given arrays; tell whether onnxruntime took them."""
    binding = session.io_binding()
    for name, array in fed.items():
        binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    for name, array in arrays.items():
        binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    try:
        session.run_with_iobinding(binding)
    except Exception:  # onnxruntime's own exceptions share no public base class
        return False
    return True


def _has_fixed_batch(model: Any) -> bool:
    """Tell whether some input's first dimension is a number: no other batch may be fed."""
    stored = {tensor.name for tensor in model.graph.initializer}
    shapes = [
        item.type.tensor_type.shape.dim
        for item in model.graph.input
        if item.name not in stored and item.type.tensor_type.HasField("shape")
    ]
    return any(len(dims) > 0 and dims[0].HasField("dim_value") for dims in shapes)
