"""A fake-quantized torch model against its ONNX, island by island, while the torch model runs.

Every island (`trt_qat.graph.islands`) is given what torch's quantizers returned, and what it
computes is held against what torch's next quantizers were given. It runs as soon as torch has come
as far, and what it was given is forgotten then: memory is that of the tensors in between.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trt_qat.errors import DataError, GraphError
from trt_qat.graph.islands import Cut, Island, Point
from trt_qat.qat.call_order import Kept
from trt_qat.qat.gap import HALVES, TOLERANCE_HALF, gap, off_grid, tolerance_of
from trt_qat.qat.placement.rewrite import quantizer_of
from trt_qat.qat.quantizers.fake_quant import scale_of, shift_of
from trt_qat.qat.quantizers.formats import format_of
from trt_qat.runners.islands import Arrays, Given, Run, jittered, opened

NOISE_FACTOR = 16.0
"""An error is none where rounding what an island is given moves its result by a sixteenth of it."""

SCALES_OFF = 1e-6
"""Relative, of a scale that was divided in float32 on another device."""

MISROUNDED = 1e-3
"""Part of the elements that a quantizer may round otherwise than the file's pair."""


@dataclass(frozen=True)
class Disagreement:
    """Where the file is not the model.

    Attributes:
        place: of the node, in topological order.
        tensor: of the file.
        what: differs there, and by how much.
        nodes: names of those that compute the tensor, from the quantization points before.
    """

    place: int
    tensor: str
    what: str
    nodes: tuple[str, ...] = ()


@dataclass
class Matched:
    """One batch through both.

    Attributes:
        points: quantization points that were compared.
        outputs: likewise.
        elements: of all of these tensors.
        worst: largest error, relative to the largest magnitude of its tensor.
        worst_at: that tensor.
        nan: the first tensor of which the model itself computes NaN; empty: none.
        copies: whether several copies of the batch gave the same several times.
        disagreements: in no order.
        uneven: names of points whose quantizer was called more or less often than it is in the
            file: nothing else here says anything then.
    """

    points: int = 0
    outputs: int = 0
    elements: int = 0
    worst: float = 0.0
    worst_at: str = ""
    copies: bool = True
    nan: str = ""
    disagreements: list[Disagreement] = field(default_factory=list)
    uneven: tuple[str, ...] = ()


class Match:
    """Running one batch through a model and the islands of its file.

    Args:
        cut: the file.
        name: what messages call it.
        quantizers: of its points; every point has one.
        merged: points of quantizers whose calls on equal values are one pair in the file.
        copies: run the islands on so many copies of the batch as well; 1: do not.
        orders: of quantizers of several points, the point that each call belongs to, where that is
            not the order of the file. A model's own code quantizes what is read, when it is read;
            the file, when it is made (``torch.cat(levels[::-1])``).
        kept: quantizers whose calls are kept, to tell their order.
    """

    def __init__(
        self,
        cut: Cut,
        name: str,
        quantizers: Mapping[str, nn.Module],
        merged: Collection[str] = (),
        copies: int = 1,
        orders: Mapping[nn.Module, Sequence[int]] | None = None,
        kept: Collection[nn.Module] = (),
    ) -> None:
        self.cut, self.name, self.copies = cut, name, copies
        self._orders = orders or {}
        self.found = Matched()
        self._slots: dict[nn.Module, list[Point]] = defaultdict(list)
        for point in cut.points:
            self._slots[quantizers[point.node]].append(point)
        self.kept = Kept(kept, self._slots)
        self._merged: dict[nn.Module, list[Tensor]] = {
            quantizers[name]: [] for name in merged if name in quantizers
        }
        self._calls: Counter[nn.Module] = Counter()
        self._values = Given(cut)
        self._expected: dict[str, list[tuple[Tensor, Point | None]]] = defaultdict(list)
        wanted = Counter(point.before for point in cut.points) + Counter(cut.graph.outputs)
        self._missing = {
            island: len(island.reads) + sum(wanted[name] for name in island.makes)
            for island in cut.islands
        }
        self._makers = {name: island for island in cut.islands for name in island.makes}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Compare whatever the model's quantizers are called with meanwhile."""
        handles = [module.register_forward_hook(self._on_call) for module in self._slots]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def give(self, name: str, value: Tensor) -> None:
        """Give an input of the network, or what a pair returns."""
        if self._values.readers[name]:
            self._hand(name, self._typed(name, value), None)

    def expect(self, name: str, value: Tensor, point: Point | None = None) -> None:
        """Say what a tensor in front of a point, or an output, is in torch."""
        island = self._makers.get(name)
        if island is None:  # an output that is stored in the file
            return
        # A copy where it has to wait, because an operation in place may follow.
        kept = value.detach() if self._missing[island] == 1 else value.detach().clone()
        self._expected[name].append((kept, point))
        self._arrived(island)

    def result(self) -> Matched:
        """Return what was found; the model has been run."""
        self.found.uneven = tuple(
            point.node
            for module, points in self._slots.items()
            if self._calls[module] != len(points)
            for point in points
        )
        return self.found

    def several(self) -> tuple[nn.Module, ...]:
        """Return the quantizers of several points that a disagreement was found at."""
        wrong = {one.tensor for one in self.found.disagreements}
        return tuple(
            module
            for module, points in self._slots.items()
            if len(points) > 1 and any(point.before in wrong for point in points)
        )

    def _on_call(self, module: nn.Module, args: Any, returned: Any) -> None:
        value: Tensor = args[0].detach()
        if module in self._merged:
            seen = self._merged[module]
            if any(one.shape == value.shape and torch.equal(one, value) for one in seen):
                return
            seen.append(value.clone())
        index = self._calls[module]
        self._calls[module] += 1
        points = self._slots[module]
        if index >= len(points):
            return
        self.kept.called(module, value)
        point = points[self._orders[module][index] if module in self._orders else index]
        quantizer = quantizer_of(module)
        self._check_pair(quantizer, point, value, returned)
        shift = shift_of(quantizer)
        self.expect(point.before, value - shift if shift else value, point)
        for name in point.behind:
            self.give(name, returned - shift if shift else returned)

    def _check_pair(self, quantizer: nn.Module, point: Point, value: Tensor, returned: Any) -> None:
        scale, kind = float(scale_of(quantizer)), format_of(quantizer)
        exact = TOLERANCE_HALF if value.dtype in HALVES else SCALES_OFF
        if abs(scale - point.scale) > exact * scale:
            what = f"its scale is {point.scale:.6g} in the file and {scale:.6g} in the model"
            self._disagree(point.place, point.node, what)
        elif (part := off_grid(value, returned, point.scale, kind)) > MISROUNDED:
            what = f"{part:.2%} of its values are rounded otherwise than in the model"
            self._disagree(point.place, point.node, what)

    def _typed(self, name: str, value: Tensor) -> NDArray[Any]:
        value = value.detach().cpu()
        if value.dtype == torch.bfloat16:
            value = value.float()
        return np.array(value.numpy(), dtype=self.cut.dtype(name))

    def _hand(self, name: str, value: NDArray[Any], copies: NDArray[Any] | None) -> None:
        self._values.add(name, value, copies)
        for island in self._values.readers[name]:
            self._arrived(island)

    def _arrived(self, island: Island) -> None:
        self._missing[island] -= 1
        if self._missing[island]:
            return
        try:
            run = opened(self.cut, island, self.name)
            made = run(self._values.of(island))
        except (GraphError, DataError) as error:
            self._disagree(island.place, island.makes[0], str(error), self._names(island))
            return
        for name in island.makes:
            for value, point in self._expected[name]:
                self._judge(island, run, name, value.cpu(), made[name], point)
        several = self._in_copies(island, run) if self.copies > 1 and self.found.copies else {}
        self._values.drop(island)
        for name in island.makes:
            self._expected.pop(name, None)
        for name, array in made.items():
            if self._values.readers[name] and island.nodes:
                self._hand(name, array, several.get(name))

    def _judge(
        self,
        island: Island,
        run: Run,
        name: str,
        want: Tensor,
        made: NDArray[Any],
        point: Point | None,
    ) -> None:
        place = island.place if point is None else point.place
        got = torch.from_numpy(np.ascontiguousarray(made))
        if point is not None and want.numel() == got.numel() == 1:
            got = got.reshape(want.shape)  # the exporter writes a mean over everything as (1,)
        self.kept.computed(name, got)
        if want.shape != got.shape:
            what = f"it is {tuple(got.shape)} in the file and {tuple(want.shape)} in the model"
            self._disagree(place, name, what, self._names(island))
            return
        found = self.found
        found.points += point is not None
        found.outputs += point is None
        found.elements += want.numel()
        error = gap(want, got, 0.0 if point is None else point.scale)
        if math.isnan(error) and torch.isnan(want).any():
            found.nan = found.nan or name
            return
        tolerance = tolerance_of(want)
        if not error <= tolerance and not error <= self._noise(island, run, name, got):
            what = f"it is off by {error:.2g} of its largest magnitude (tolerance {tolerance:g})"
            self._disagree(place, name, what, self._names(island))
        if not error <= found.worst:
            found.worst, found.worst_at = error, name

    def _noise(self, island: Island, run: Run, name: str, got: Tensor) -> float:
        """Return the error that is none, because float rounding alone makes it.

        What is chosen among values, as by TopK, jumps: no sixteenth of the rounding shows it.
        """
        given, found = self._values.of(island), 0.0
        for factor in (1.0, NOISE_FACTOR):
            try:
                moved = run(jittered(given, factor))[name]
            except DataError:  # an index that has left its table
                continue
            error = gap(got, torch.from_numpy(np.ascontiguousarray(moved)))
            found = max(found, error * NOISE_FACTOR / factor)
        return found

    def _in_copies(self, island: Island, run: Run) -> Arrays:
        """Run several copies of the batch; the last must give what the batch gives alone."""
        try:
            made = run(self._values.of(island, self.copies))
        except DataError:
            self.found.copies = False
            return {}
        for name in island.makes:
            got = torch.from_numpy(np.ascontiguousarray(made[name]))
            for value, point in self._expected[name]:
                want, last = value.cpu(), got
                if want.dim():
                    rows = want.shape[0]
                    last = got[-rows:]
                    if got.shape != (self.copies * rows, *want.shape[1:]):
                        self.found.copies = False
                        return {}
                error = gap(want, last, 0.0 if point is None else point.scale)
                if not error <= max(tolerance_of(want), 2 * self.found.worst):
                    self.found.copies = False
        return made

    def _names(self, island: Island) -> tuple[str, ...]:
        return tuple(self.cut.graph.nodes[place].name for place in island.nodes)

    def _disagree(self, place: int, tensor: str, what: str, nodes: tuple[str, ...] = ()) -> None:
        self.found.disagreements.append(Disagreement(place, tensor, what, nodes))
