"""Which call of a quantizer belongs to which of its points in the file.

A model's own code has a tensor quantized when it is read, the file when it is made: of
``torch.cat(levels[::-1])``, whose members share one quantizer, the calls come in reverse. What a
call was given and what the file computes in front of a point tell which belong together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn

from trt_qat.graph.islands import Point
from trt_qat.qat.gap import gap, tolerance_of


class Kept:
    """What quantizers of several points were called with, and what the file has there.

    Args:
        modules: those quantizers.
        slots: the points of each, in the order of the file.
    """

    def __init__(
        self, modules: Collection[nn.Module], slots: Mapping[nn.Module, Sequence[Point]]
    ) -> None:
        self._slots = {module: slots[module] for module in modules}
        self._wanted = {point.before for points in self._slots.values() for point in points}
        self._calls: dict[nn.Module, list[Tensor]] = defaultdict(list)
        self._made: dict[str, Tensor] = {}

    def called(self, module: nn.Module, value: Tensor) -> None:
        """Note a call."""
        if module in self._slots:
            self._calls[module].append(value.detach().cpu().clone())

    def computed(self, name: str, value: Tensor) -> None:
        """Note a tensor of the file."""
        if name in self._wanted:
            self._made[name] = value

    def orders(self) -> dict[nn.Module, list[int]]:
        """Return, of every quantizer, the point that each call belongs to.

        A call that fits no point that is left takes the first of those of its shape: what is
        computed there may be wrong for the order before it was.
        """
        return {
            module: self._order(calls, self._slots[module]) for module, calls in self._calls.items()
        }

    def _order(self, calls: Sequence[Tensor], points: Sequence[Point]) -> list[int]:
        left = list(range(len(points)))
        found: dict[int, int] = {}
        for fits in (self._fits, self._has_shape, lambda call, point: True):
            for place, call in enumerate(calls):
                if place in found:
                    continue
                index = next((i for i in left if fits(call, points[i])), None)
                if index is not None:
                    found[place] = index
                    left.remove(index)
        return [found[place] for place in range(len(calls))]

    def _has_shape(self, call: Tensor, point: Point) -> bool:
        made = self._made.get(point.before)
        return made is not None and made.shape == call.shape

    def _fits(self, call: Tensor, point: Point) -> bool:
        if not self._has_shape(call, point):
            return False
        return gap(call, self._made[point.before], point.scale) <= tolerance_of(call)
