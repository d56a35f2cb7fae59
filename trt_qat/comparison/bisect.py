"""Which fused layer differs first, found without changing what is fused.

A compiled candidate cannot be asked for inner tensors: marking all of them as outputs takes the
fusions apart that may hold the fault. So it is built again with a few more outputs, only where
fused layers end anyway (`trt_qat.graph.cuts`), and the reference is run from the candidate's own
values at those places. What differs then is the error that the layers in between make: the error of
the layers before them is in both. The interval that differs first is cut again until it is one
fused group. That the marks changed nothing is checked on the network's outputs, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from trt_qat.comparison.layerwise import ROUNDING, LayerDifference
from trt_qat.errors import DataError
from trt_qat.graph.cuts import Cut, cuts, suspects
from trt_qat.graph.taps import Tap
from trt_qat.measure.difference import Difference
from trt_qat.runners.ort_tapped import OrtTapped, Values
from trt_qat.runners.protocol import Feed, Outputs, Runner

MARKS = 16
"""Tensors that are marked at once: a build of TensorRT takes minutes, and 16 cut a ResNet-50 into
pieces of a few layers."""

MAX_MEAN_STEPS = 0.02
"""Of the codes of a group that computes what the reference does. Kernels that round otherwise move
one code in a thousand by one step; a table of 256 values or a mean over integers one in a
hundred."""

SUSPECT_MEAN_STEPS, SUSPECT_MORE_DB = 0.001, 20.0
"""Of what several groups make together: the later ones may hide the error of an earlier one. A
false suspicion costs a build and no more."""


class Rebuildable(Protocol):
    """A candidate that can be built again with inner tensors as outputs besides its own.

    Attributes:
        min_sqnr_db: of a float tensor that a group of its kernels writes; less is no rounding.
    """

    min_sqnr_db: float

    def with_outputs(self, taps: Sequence[Tap]) -> Runner:
        """Return a runner of the same network whose outputs hold these tensors too."""


@dataclass(frozen=True)
class Bisection:
    """What `bisect` found; `to_dict` is its JSON.

    Attributes:
        builds: how often the candidate was built with marks.
        marked: tensors that were marked in the last build.
        cuts: how many tensors could be marked.
        outputs_kept: the network's own outputs were the same with and without marks, bit for bit:
            the marks did not change what is fused.
        layers: what was measured at the marks of the last build, in order.
        first_divergence: the group that differs first; None: none does.
        nodes: names of the nodes of that group.
    """

    builds: int
    marked: tuple[str, ...]
    cuts: int
    outputs_kept: bool
    layers: tuple[LayerDifference, ...]
    first_divergence: LayerDifference | None
    nodes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the ``bisection`` of the JSON of a comparison: all but what is there already."""
        document = asdict(self)
        del document["layers"], document["first_divergence"]
        return document


def bisect(
    ref: OrtTapped,
    cand: Rebuildable,
    feeds: Sequence[Feed],
    *,
    marks: int = MARKS,
) -> Bisection:
    """Find the first fused group whose own error is more than rounding.

    Args:
        ref: the network on onnxruntime, Q and DQ as plain float operators; its ``taps`` are set.
        cand: the same network, compiled.
        feeds: batches by input name; they are run again for every build.
        marks: tensors to mark at once.

    Raises:
        DataError: no feeds, or a tensor of the candidate that has another shape or is not finite.
    """
    search = _Search(ref, cand, feeds)
    marked: list[str] = []
    between = search.cuts
    while True:
        layers = search.split(marked, between, marks)
        marked = [name for name in layers if name not in search.own_outputs]
        known = (*marked, *search.own_outputs)
        first, between = None, []
        for tensor, found in layers.items():
            between = suspects(search.cuts, tensor, known)
            if found.differs(cand.min_sqnr_db, whole=bool(between)):
                first = tensor
                break
        if first is None or not between:
            return search.result(layers, first)


class _Search:
    """The network's cuts, and what was built and measured."""

    def __init__(self, ref: OrtTapped, cand: Rebuildable, feeds: Sequence[Feed]) -> None:
        if not feeds:
            message = "compare: no feeds; give at least one batch"
            raise DataError(message)
        self.ref, self.cand, self.feeds = ref, cand, feeds
        self.cuts = cuts(ref.model)
        ref.taps = [cut.tap for cut in self.cuts]
        self.own_outputs = [value.name for value in ref.model.graph.output]
        self.builds, self.outputs_kept = 0, True
        with cand.with_outputs(()) as plain:
            self._plain = [self._own(plain.infer(feed)) for feed in feeds]

    def split(
        self, marked: Sequence[str], between: Sequence[Cut], marks: int
    ) -> dict[str, _Marked]:
        """Measure with more marks between; with fewer where so many change the outputs."""
        while True:
            layers, kept = self.measure([*marked, *_spread(between, marks)])
            if kept or marks == 1:
                self.outputs_kept &= kept
                return layers
            marks = max(1, min(marks, len(between)) // 2)

    def measure(self, marked: Sequence[str]) -> tuple[dict[str, _Marked], bool]:
        """Build with these marks; what is measured at each, in order, and if outputs are kept."""
        kept = True
        own = set(self.own_outputs)
        found = {
            cut.tensor: _Marked(cut)
            for cut in self.cuts
            if cut.tensor in own or cut.tensor in marked
        }
        names = list(found)
        self.builds += 1
        more = [mark.cut.tap for name, mark in found.items() if name not in own]
        with self.cand.with_outputs(more) as runner:
            for feed, plain in zip(self.feeds, self._plain, strict=True):
                outputs = runner.infer(feed)
                kept &= _equal(plain, self._own(outputs))
                values = {name: _as_tap(outputs[name], found[name].cut) for name in names}
                for name, array in self.ref.observe(feed, names).items():
                    found[name].grown.update(array, values[name], name)
                for name, array in self.ref.force(feed, values).items():
                    found[name].own.update(array, values[name], name)
        return found, kept

    def _own(self, outputs: Outputs) -> Values:
        return {name: np.array(outputs[name]) for name in self.own_outputs}

    def result(self, layers: dict[str, _Marked], first: str | None) -> Bisection:
        """Return what was found."""
        return Bisection(
            builds=self.builds,
            marked=tuple(name for name in layers if name not in self.own_outputs),
            cuts=len(self.cuts),
            outputs_kept=self.outputs_kept,
            layers=tuple(_layer(found) for found in layers.values()),
            first_divergence=None if first is None else _layer(layers[first]),
            nodes=() if first is None else layers[first].cut.nodes,
        )


class _Marked:
    """A marked tensor: its difference from the reference's, and from what the reference makes."""

    def __init__(self, cut: Cut) -> None:
        self.cut = cut
        self.grown = Difference()
        self.own = Difference()

    def differs(self, min_sqnr_db: float, *, whole: bool) -> bool:
        """Tell whether its own error is more than rounding; ``whole``: of more than one group."""
        own = self.own
        if self.cut.tap.step is not None:
            return own.mean_abs > (SUSPECT_MEAN_STEPS if whole else MAX_MEAN_STEPS)
        limit = min_sqnr_db + (SUSPECT_MORE_DB if whole else 0.0)
        return own.sqnr_db is not None and own.sqnr_db < limit and own.max_abs > ROUNDING


def _as_tap(array: Any, cut: Cut) -> Any:
    """Return what a candidate handed out in the type that the reference has there."""
    return np.asarray(array, dtype=cut.tap.dtype)


def _equal(one: Values, other: Values) -> bool:
    return all(np.array_equal(array, other[name]) for name, array in one.items())


def _spread(among: Sequence[Cut], count: int) -> list[str]:
    """Return the tensors of at most ``count`` cuts at equal distances."""
    if len(among) <= count:
        return [cut.tensor for cut in among]
    return [among[(i + 1) * len(among) // (count + 1)].tensor for i in range(count)]


def _layer(found: _Marked) -> LayerDifference:
    """Return a marked tensor as an entry of ``layers``; codes are given in units of the tensor."""
    tap, grown, own = found.cut.tap, found.grown, found.own
    unit = 1.0 if tap.step is None else tap.step
    return LayerDifference(
        name=tap.node,
        op=tap.op,
        ref_tensor=tap.tensor,
        cand_tensor=tap.tensor,
        max_abs=grown.max_abs * unit,
        mean_abs=grown.mean_abs * unit,
        cosine=grown.cosine,
        sqnr_db=grown.sqnr_db,
        argmax_agreement=None,
        steps=None if tap.step is None else grown.max_abs,
        local_sqnr_db=own.sqnr_db,
        local_max_abs=own.max_abs * unit,
        saturated=None,
        relative=grown.relative,
    )
