"""Which number format each layer multiplies in, and so each tensor that it reads is quantized to.

A kernel multiplies operands of one format (QDQ022), so a pair belongs to who reads it: where two
formats read one tensor, each gets a pair of its own. What stands between a pair and the layer has
the format of the layer; where it hands a tensor on to layers of two, the pairs stand behind it.
"""

from __future__ import annotations

from trt_qat.qat.placement.demand import Demand, Plan
from trt_qat.qat.placement.flow import Flow, Vertex
from trt_qat.qat.placement.kinds import Kind
from trt_qat.qat.placement.layers import check_patterns, matches
from trt_qat.recipe.specs import QuantizeSpec


def layer_formats(flow: Flow, spec: QuantizeSpec) -> dict[Vertex, str]:
    """Return what the recipe says of every weighted layer and product; the last pattern wins.

    Raises:
        RecipeError: a pattern matches no layer.
    """
    layers = [*flow.of(Kind.WEIGHTED), *flow.of(Kind.MATMUL)]
    check_patterns(spec.layers, (v.path for v in layers), "quantize.layers")
    found = dict.fromkeys(layers, str(spec.format))
    for pattern, kind in spec.layers.items():
        found |= {v: kind for v in layers if matches(v.path, (pattern,))}
    return found


class ReadFormats:
    """In which format each reader takes what it reads.

    Args:
        plan: with the formats of its layers; the first one's is that of what no layer decides.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._default = next(iter(plan.formats.values()), "int8")
        self._one = len(set(plan.formats.values())) < 2

    def of(self, demand: Demand, reader: Vertex) -> str:
        """Return the format that ``reader`` takes its operands in."""
        if self._one:
            return self._default
        if reader in self._plan.formats:
            return self._plan.formats[reader]
        if reader in demand.fused and (layer := self._above(demand.fused[reader])):
            return self._plan.formats[layer]
        behind = self._behind(reader)
        if len(behind) == 1:
            return next(iter(behind))
        above = next((v for v in map(self._above, reader.inputs) if v is not None), None)
        return self._default if above is None else self._plan.formats[above]

    def mixed(self, demand: Demand, made: Vertex) -> bool:
        """Tell whether a tensor is read in several formats."""
        if self._one:
            return False
        readers = (u for u in made.users if (made, u) in demand.edges)
        return len({self.of(demand, u) for u in readers}) > 1 or len(self._behind(made)) > 1

    def _above(self, vertex: Vertex) -> Vertex | None:
        """Return the layer that makes a tensor, through what is fused behind it."""
        while vertex not in self._plan.formats:
            if vertex.kind not in (Kind.POINTWISE, Kind.BATCH_NORM) or not vertex.inputs:
                return None
            vertex = vertex.inputs[0]
        return vertex

    def _behind(self, vertex: Vertex) -> set[str]:
        """Return the formats of the layers that a vertex hands something on to, however far."""
        stack, seen, found = _users(vertex), {vertex}, set[str]()
        while stack:
            user = stack.pop()
            if user in seen:
                continue
            seen.add(user)
            if user in self._plan.formats:
                found.add(self._plan.formats[user])
            elif user.kind in _THROUGH:
                stack.extend(_users(user))
        return found


_THROUGH = frozenset({
    Kind.INPUT, Kind.OUTPUT, Kind.COMMUTE, Kind.CONCAT, Kind.AVERAGE, Kind.POINTWISE,
})  # fmt: skip


def _users(vertex: Vertex) -> list[Vertex]:
    """Return who reads a tensor, in other regions too."""
    if vertex.kind is Kind.OUTPUT:
        return [u for made in vertex.inputs for leaf in made.leaves for u in leaf.users]
    return list(vertex.users)
