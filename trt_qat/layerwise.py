"""Where two models begin to differ: every tensor that both have, compared twice.

Once as the whole candidate computes it, which shows how an error grows; and once with the
reference's values at the inputs of every node ("forced"), which shows the error that this node
alone makes. The first node whose own error is more than rounding is the first divergence: no error
of the layers before it can explain it. Rounding ties need no exception: a value that float
rounding puts on the other side of a tie costs one step of one element in 100,000, some 80 dB
below the signal, and it is not carried on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trt_qat.accumulate import Difference
from trt_qat.errors import DataError, TrtQatError, first_line
from trt_qat.graph.load import embed_weights, load_graph
from trt_qat.graph.taps import FORCED, Tap, forced, observed, taps
from trt_qat.qat.int8 import CODE_MAX
from trt_qat.runners import PARITY_SESSION, Feed, OrtRunner, Runner, open_session

Values = dict[str, NDArray[Any]]

MIN_LOCAL_SQNR_DB = 60.0
"""Of a node that computes what the reference's does. Float rounding leaves 100 dB and more, ties of
rounding some 80; a scale wrong by a factor of two leaves less than 40."""

ROUNDING = 1e-6
"""Absolute differences below it are rounding whatever the power of the signal."""

MEMORY_BYTES = 1_000_000_000
"""For the tensors of one batch: the observed ones, the forced ones and their differences."""

_COPIES = 4


@dataclass(frozen=True)
class LayerDifference:
    """One tensor of the candidate against the reference's.

    Attributes:
        name: the candidate's node.
        op: its operator.
        ref_tensor: what it is called in the reference.
        cand_tensor: what it is called in the candidate.
        max_abs: largest absolute difference, in units of the tensor.
        mean_abs: mean absolute difference.
        cosine: of the angle between the two as vectors.
        sqnr_db: signal over difference; None where they are equal.
        argmax_agreement: None: hidden tensors have no classes.
        steps: ``max_abs`` in steps of the INT8 grid that the tensor is quantized to; None: float.
        local_sqnr_db: the same with the reference's values at the node's inputs: its own error.
        local_max_abs: likewise.
        saturated: part of the elements that the INT8 grid cuts off; None: float.
    """

    name: str
    op: str
    ref_tensor: str
    cand_tensor: str
    max_abs: float
    mean_abs: float
    cosine: float
    sqnr_db: float | None
    argmax_agreement: float | None
    steps: float | None
    local_sqnr_db: float | None
    local_max_abs: float
    saturated: float | None

    def diverges(self, min_sqnr_db: float) -> bool:
        """Tell whether the node's own error is more than rounding."""
        noisy = self.local_sqnr_db is not None and self.local_sqnr_db < min_sqnr_db
        return noisy and self.local_max_abs > ROUNDING


class Reference(Protocol):
    """A model whose inner tensors can be read."""

    def match(self, wanted: list[Tap]) -> dict[str, str]:
        """Return the candidate's tensor -> what it is called here, for those that are here."""

    def observe(self, feed: Feed, names: list[str]) -> Values:
        """Run one batch; the named tensors, which are overwritten by the next one."""


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
        self._sessions: dict[tuple[bool, tuple[str, ...]], _Session] = {}

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

    def observe(self, feed: Feed, names: list[str]) -> Values:
        """Run one batch; the named tensors."""
        return self._session(names, force=False).run(feed, names)

    def force(self, feed: Feed, values: Values) -> Values:
        """Run one batch with ``values`` at the inputs of every node; the same tensors, computed."""
        names = list(values)
        session = self._session(names, force=True)
        given = {name: values[name.removeprefix(FORCED)] for name in session.forced}
        return session.run({**feed, **given}, names)

    def _session(self, names: list[str], *, force: bool) -> _Session:
        key = (force, tuple(names))
        if key not in self._sessions:
            wanted = [tap for tap in self.taps if tap.tensor in set(names)]
            make = forced if force else observed
            self._sessions[key] = _Session(make(self.model, wanted), self.path)
        return self._sessions[key]


class _Session:
    """A session of a changed graph; inputs that nothing reads any more may be missing from it.

    Nodes are not fused: every node's output is wanted.
    """

    def __init__(self, model: Any, path: Path) -> None:
        self.path = path
        content: bytes = model.SerializeToString()
        self._session = open_session(content, str(path), PARITY_SESSION, fuse=False)
        self.inputs = [item.name for item in self._session.get_inputs()]
        self.forced = [name for name in self.inputs if name.startswith(FORCED)]

    def run(self, feed: Mapping[str, NDArray[Any]], names: list[str]) -> Values:
        fed = {name: feed[name] for name in self.inputs if name in feed}
        try:
            return dict(zip(names, self._session.run(names, fed), strict=True))
        except Exception as error:
            # onnxruntime's own exceptions share no public base class.
            message = f"{self.path}: onnxruntime cannot run it: {first_line(error)}"
            raise DataError(message) from error


@dataclass
class Layers:
    """The layers of a comparison, in the order of the candidate's nodes.

    Attributes:
        layers: one entry a matched tensor.
        first_divergence: the first whose own error is more than rounding; None: there is none.
        unmatched: names of the candidate's nodes whose tensors the reference does not have.
    """

    layers: tuple[LayerDifference, ...]
    first_divergence: LayerDifference | None
    unmatched: tuple[str, ...] = ()


@dataclass
class _Tally:
    """Both differences of a tensor, and what its grid cuts off."""

    grown: Difference = field(default_factory=lambda: Difference(with_classes=False))
    own: Difference = field(default_factory=lambda: Difference(with_classes=False))
    cut: int = 0


class LayerComparison:
    """Comparing every tensor that both models have, batch by batch.

    Args:
        ref: torch or onnxruntime.
        cand: onnxruntime; its nodes are run on the reference's values.
        memory_bytes: for the tensors of one batch; larger batches are cut into smaller ones.
    """

    def __init__(self, ref: Reference, cand: OrtTapped, memory_bytes: int = MEMORY_BYTES) -> None:
        self.ref, self.cand, self.memory_bytes = ref, cand, memory_bytes
        self.matched = ref.match(cand.taps)
        self._tallies: dict[str, _Tally] = {}
        self._samples: int | None = None

    def update(self, feed: Feed) -> None:
        """Add a batch, by the candidate's input names.

        Raises:
            DataError: a tensor has another shape in the reference, or holds NaN or infinity.
        """
        count = min((len(array) for array in feed.values() if array.ndim), default=0)
        if self._samples is None:
            self._samples = self._samples_at_once(feed, count)
        for start in range(0, count, self._samples):
            part = {name: array[start : start + self._samples] for name, array in feed.items()}
            self._add(part)

    def _samples_at_once(self, feed: Feed, count: int) -> int:
        """Return how many samples fit into memory, from what one needs; drop what is not there."""
        one = {name: array[:1] for name, array in feed.items()}
        try:
            values = self.ref.observe(one, list(self.matched.values()))
        except TrtQatError:  # a reference of a fixed batch takes no other
            values, samples = self.ref.observe(feed, list(self.matched.values())), count
        else:
            size = sum(array.nbytes for array in values.values())
            samples = max(1, self.memory_bytes // max(_COPIES * size, 1))
        if self.cand.fixed_batch:
            samples = count
        self.matched = {name: key for name, key in self.matched.items() if key in values}
        self._tallies = {name: _Tally() for name in self.matched}
        return samples

    def _add(self, feed: Feed) -> None:
        wanted = [tap for tap in self.cand.taps if tap.tensor in self.matched]
        names = [tap.tensor for tap in wanted]
        seen = self.ref.observe(feed, list(dict.fromkeys(self.matched.values())))
        reference = {name: seen[self.matched[name]] for name in names}
        # One after the other, so that the memory of the first is free for the second.
        for name, array in self.cand.observe(feed, names).items():
            self._tallies[name].grown.update(reference[name], array, name)
        for name, array in self.cand.force(feed, reference).items():
            self._tallies[name].own.update(reference[name], array, name)
        for tap in wanted:
            if tap.step is not None:
                self._tallies[tap.tensor].cut += _cut_off(reference[tap.tensor], tap.step)

    def result(self, min_local_sqnr_db: float = MIN_LOCAL_SQNR_DB) -> Layers:
        """Return the layers; below the limit a node's own error is a divergence."""
        layers = tuple(
            _layer(tap, self.matched[tap.tensor], self._tallies[tap.tensor])
            for tap in self.cand.taps
            if tap.tensor in self._tallies
        )
        first = next((layer for layer in layers if layer.diverges(min_local_sqnr_db)), None)
        unmatched = (tap.node for tap in self.cand.taps if tap.tensor not in self._tallies)
        return Layers(layers, first, tuple(unmatched))


def compare_layers(
    ref: Reference,
    cand: OrtTapped,
    feeds: Iterable[Feed],
    *,
    min_local_sqnr_db: float = MIN_LOCAL_SQNR_DB,
    memory_bytes: int = MEMORY_BYTES,
) -> Layers:
    """Compare every tensor that both models have, on all batches; see `LayerComparison`.

    Raises:
        DataError: a tensor has another shape in the reference, or holds NaN or infinity.
    """
    comparison = LayerComparison(ref, cand, memory_bytes)
    for feed in feeds:
        comparison.update(feed)
    return comparison.result(min_local_sqnr_db)


def tapped(runner: Runner) -> Reference | None:
    """Return the inner tensors of what a runner runs; None where they cannot be read."""
    if isinstance(runner, OrtRunner):
        return None if runner.fused else OrtTapped(runner.path)
    if runner.__class__.__module__ == "trt_qat.qat.runner":  # torch may not be installed
        from trt_qat.qat.tapped import TorchTapped

        return TorchTapped(runner.model)  # type: ignore[attr-defined]
    return None


def _has_fixed_batch(model: Any) -> bool:
    """Tell whether some input's first dimension is a number: no other batch may be fed."""
    stored = {tensor.name for tensor in model.graph.initializer}
    shapes = [
        item.type.tensor_type.shape.dim
        for item in model.graph.input
        if item.name not in stored and item.type.tensor_type.HasField("shape")
    ]
    return any(len(dims) > 0 and dims[0].HasField("dim_value") for dims in shapes)


def _cut_off(array: NDArray[Any], step: float) -> int:
    return int(np.count_nonzero(np.abs(array) > (CODE_MAX + 0.5) * step))


def _layer(tap: Tap, ref_tensor: str, tally: _Tally) -> LayerDifference:
    grown, own = tally.grown, tally.own
    return LayerDifference(
        name=tap.node,
        op=tap.op,
        ref_tensor=ref_tensor,
        cand_tensor=tap.tensor,
        max_abs=grown.max_abs,
        mean_abs=grown.mean_abs,
        cosine=grown.cosine,
        sqnr_db=grown.sqnr_db,
        argmax_agreement=None,
        steps=None if tap.step is None else grown.max_abs / tap.step,
        local_sqnr_db=own.sqnr_db,
        local_max_abs=own.max_abs,
        saturated=None if tap.step is None else tally.cut / max(grown.elements, 1),
    )
