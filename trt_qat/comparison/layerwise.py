"""Where two models begin to differ: every tensor that both have, compared twice.

Once as the whole candidate computes it, which shows how an error grows; and once with the
reference's values at the inputs of every node ("forced"), which shows the error that this node
alone makes. The first node whose own error is more than rounding is the first divergence: no error
of the layers before it can explain it. Rounding ties need no exception: a value that float
rounding puts on the other side of a tie costs one step of one element in 100,000, some 80 dB
below the signal, and it is not carried on.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from trt_qat.errors import TrtQatError
from trt_qat.graph.taps import Tap
from trt_qat.measure.difference import Difference
from trt_qat.runners.ort import OrtRunner
from trt_qat.runners.ort_tapped import OrtTapped, Values
from trt_qat.runners.protocol import Feed, Outputs, Runner

MIN_LOCAL_SQNR_DB = 60.0
"""Of a node that computes what the reference's does. Float rounding leaves 100 dB and more, ties of
rounding some 80; a scale wrong by a factor of two leaves less than 40."""

ROUNDING = 1e-6
"""Absolute differences below it are rounding whatever the power of the signal."""

MEMORY_BYTES = 1_000_000_000
"""For the tensors of one batch: the reference's and the candidate's."""

_COPIES = 2

_THREADS = 2
"""numpy lets go of the interpreter's lock; more than two wait for memory."""


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
        relative: norm of the difference over that of the reference; None: the reference is zero.
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
    relative: float | None = None

    def diverges(self, min_sqnr_db: float) -> bool:
        """Tell whether the node's own error is more than rounding."""
        noisy = self.local_sqnr_db is not None and self.local_sqnr_db < min_sqnr_db
        return noisy and self.local_max_abs > ROUNDING


def worst_of(layers: Iterable[LayerDifference], min_local_sqnr_db: float) -> LayerDifference | None:
    """Return the layer with the largest error of its own, beyond rounding; None: none has one."""
    diverging = [layer for layer in layers if layer.diverges(min_local_sqnr_db)]
    return min(diverging, key=lambda layer: layer.local_sqnr_db or 0.0, default=None)


class Reference(Protocol):
    """A model whose inner tensors can be read."""

    @property
    def outputs(self) -> Outputs | None:
        """What it returned in the last `observe`; None: observing changes how it is computed."""

    def match(self, wanted: list[Tap]) -> dict[str, str]:
        """Return the candidate's tensor -> what it is called here, for those that are here."""

    def observe(self, feed: Feed, names: list[str]) -> Values:
        """Run one batch; the named tensors, which are overwritten by the next one."""


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


class _Tally:
    """Both differences of a tensor; ``grown`` counts what the tensor's grid cuts off too."""

    def __init__(self, tap: Tap) -> None:
        # What comes from codes lies on the grid.
        limit = None if tap.op == "DequantizeLinear" else tap.limit
        self.grown = Difference(limit=limit)
        self.own = Difference(noise_only=True)


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

    def update(self, feed: Feed) -> tuple[Outputs | None, Outputs | None]:
        """Add a batch, by the candidate's input names.

        Returns:
            Outputs of the reference and of the candidate; None where only another run can tell
            them: the reference computes otherwise when it is observed, or outputs are not one row a
            sample and the batch was cut. The candidate computes with fewer nodes fused, which may
            round otherwise.

        Raises:
            DataError: a tensor has another shape in the reference, or holds NaN or infinity.
        """
        count = min((len(array) for array in feed.values() if array.ndim), default=0)
        if self._samples is None:
            self._samples = self._samples_at_once(feed, count)
        wanted: list[Outputs | None] = []
        answers: list[Outputs | None] = []
        for start in range(0, count, self._samples):
            part = {name: array[start : start + self._samples] for name, array in feed.items()}
            answers.append(self._add(part))
            wanted.append(self.ref.outputs)
        return _joined(wanted, count), _joined(answers, count)

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
        taps = {tap.tensor: tap for tap in self.cand.taps}
        self._tallies = {name: _Tally(taps[name]) for name in self.matched}
        return samples

    def _add(self, feed: Feed) -> Outputs:
        """Measure a part of a batch; return the candidate's outputs."""
        wanted = [tap for tap in self.cand.taps if tap.tensor in self.matched]
        names = [tap.tensor for tap in wanted]
        seen = self.ref.observe(feed, list(dict.fromkeys(self.matched.values())))
        reference = {name: seen[self.matched[name]] for name in names}
        # One after the other: the second run writes into the memory of the first.
        shapes = {name: array.shape for name, array in reference.items()}
        every = list(dict.fromkeys([*names, *self.cand.output_names]))
        grown = self.cand.observe(feed, every, shapes)
        answers = {name: np.array(grown[name]) for name in self.cand.output_names}
        self._measure({n: self._tallies[n].grown for n in names}, reference, grown)
        own = self.cand.force(feed, reference)
        self._measure({n: self._tallies[n].own for n in names}, reference, own)
        return answers

    def _measure(self, tallies: dict[str, Difference], ref: Values, cand: Values) -> None:
        with ThreadPoolExecutor(_THREADS) as threads:
            work = [threads.submit(t.update, ref[n], cand[n], n) for n, t in tallies.items()]
            for done in work:
                done.result()

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


def _joined(parts: list[Outputs | None], count: int) -> Outputs | None:
    """Return outputs of the parts of a batch as those of the whole; None where they are not."""
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    if len(known) == 1:
        return known[0]
    if not all(array.ndim for part in known for array in part.values()):
        return None
    whole = {name: np.concatenate([part[name] for part in known]) for name in known[0]}
    return whole if all(len(array) == count for array in whole.values()) else None


def _layer(tap: Tap, ref_tensor: str, tally: _Tally) -> LayerDifference:
    grown, own = tally.grown, tally.own
    own.signal = grown.signal  # of the same reference
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
        saturated=None if tap.limit is None else grown.beyond / max(grown.elements, 1),
        relative=grown.relative,
    )
