"""Where the quantizers go: TensorRT's placement rules, applied to the data flow.

`decide` asks each quantized layer for an INT8 input and follows that demand up the graph until it
meets a tensor that can carry the pair. The names E1-E8 and P1-P9 are explained, with their sources
and pictures, in docs/placement.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator

from trt_qat.qat.placement.demand import Demand, Plan, ends_of, readers_of
from trt_qat.qat.placement.flow import Flow, Vertex
from trt_qat.qat.placement.formats import ReadFormats, layer_formats
from trt_qat.qat.placement.fusion import (
    comes_from_layer,
    fused_output,
    has_unfused_activation,
    has_unfused_norm,
    is_depthwise,
    is_hooked,
    is_pad,
    main_operand,
)
from trt_qat.qat.placement.kinds import Kind
from trt_qat.qat.placement.layers import (
    GROUPED,
    HEAD,
    ONLY_WEIGHTS,
    READS_FLOAT,
    float_layers,
    weight_axis,
    weight_shape,
)
from trt_qat.qat.placement.unsigned import unsigned_sites
from trt_qat.recipe.specs import QuantizeSpec

SPARSE_GAIN_CHANNELS = 256  # TensorRT#4065: sparse tactics win from 256 channels on

_THROUGH = frozenset({
    Kind.ADD, Kind.MUL, Kind.DIFFERENCE, Kind.CONCAT, Kind.COMMUTE, Kind.AVERAGE, Kind.POINTWISE,
    Kind.BATCH_NORM,
})  # fmt: skip
"""What may lie between INT8 layers such that a float one among them is an island."""

_READS = {
    Kind.ADD: "a residual stream",
    Kind.FLOAT: "normalisation, softmax or attention",
    Kind.DIFFERENCE: "a difference or quotient of activations",
    Kind.MATMUL: "attention",
    Kind.OUTPUT: "a network output or untraced code",
    Kind.WEIGHTED: "a layer that the recipe keeps float",
}


def decide(flow: Flow, spec: QuantizeSpec, sparse: frozenset[str] = frozenset()) -> Plan:
    """Return where every quantizer goes.

    Args:
        flow: the model's data flow.
        spec: patterns and options of the recipe.
        sparse: paths of the layers that hold 2:4 masks.

    Raises:
        RecipeError: a pattern matches no layer.
    """
    formats = layer_formats(flow, spec)
    plan = Plan(float_layers=float_layers(flow, spec, formats))
    _fill_islands(plan.float_layers)
    plan.weighted = [v for v in flow.of(Kind.WEIGHTED) if v not in plan.float_layers]
    alone = [v for v, why in plan.float_layers.items() if why == READS_FLOAT]
    plan.weight_only = {v: formats[v] for v in alone}
    plan.weight_axes = {
        **{v: weight_axis(v, spec) for v in plan.weighted},
        **{v: weight_axis(v, spec, blocked=True) for v in alone},
    }
    plan.matmuls = [
        v
        for v in flow.of(Kind.MATMUL)
        if formats[v] not in ONLY_WEIGHTS and (spec.attention == "int8" or not _in_attention(v))
    ]
    plan.formats = {v: formats[v] for v in (*plan.weighted, *plan.matmuls)}
    read_as = ReadFormats(plan)
    blocked: set[Vertex] = set()
    while True:
        plan.notes.clear()
        demand = Demand(plan, blocked)
        for vertex in (*plan.weighted, *plan.matmuls):
            for operand in vertex.inputs:
                demand.want(vertex, operand)
        _close_epilogues(demand, spec, sparse)
        _note_float_outputs(demand)
        carried = [v for v in demand.wanted if demand.carries(v)]
        shared = {v for v in carried if _has_float_reader(v, demand) or read_as.mixed(demand, v)}
        if not shared:
            break
        blocked |= shared
    _place_sites(demand)
    plan.read_as = {(made, reader): read_as.of(demand, reader) for made, reader in demand.edges}
    plan.unsigned = unsigned_sites(plan, spec.zero_point)
    return plan


def _fill_islands(reasons: dict[Vertex, str]) -> None:
    """Quantize layers without a good INT8 kernel where INT8 layers lie on both sides (P9).

    Float there costs a conversion in and another out, which is more than the kernel does.
    """
    small = {v for v, why in reasons.items() if why.startswith(GROUPED)}
    while outside := [v for v in small if not _is_island(v, small, reasons)]:
        small.difference_update(outside)
    for vertex in small:
        del reasons[vertex]


def _is_island(vertex: Vertex, small: set[Vertex], reasons: dict[Vertex, str]) -> bool:
    """Tell whether all layers around are INT8, the other small ones taken for that, or heads."""

    def closes(end: Vertex) -> bool:
        is_layer = end.kind is Kind.WEIGHTED
        return is_layer and (end in small or reasons.get(end, HEAD).startswith(HEAD))

    sides = (_ends(vertex, lambda v: v.inputs), _ends(vertex, lambda v: v.users))
    return all(side and all(map(closes, side)) for side in sides)


def _ends(vertex: Vertex, step: Callable[[Vertex], list[Vertex]]) -> list[Vertex]:
    """Return where ``step`` ends: at layers, at what computes in float, at a region's border."""
    return [v for v in _reach(vertex, step, through=_THROUGH) if v.kind not in _THROUGH]


def _has_float_reader(vertex: Vertex, demand: Demand) -> bool:
    return any(not demand.reads_int8(u, vertex) for u in vertex.users)


def _in_attention(vertex: Vertex) -> bool:
    """Tell whether a product of two activations is one of the two in an attention.

    The other one or a softmax is beside it; a linear attention, ``q @ (k.T @ v)``, has no softmax.
    """

    def belongs(other: Vertex) -> bool:
        name = type(other.module).__name__ + str(other.node.target)
        return other.kind is Kind.MATMUL or "softmax" in name.lower()

    around = (*_reach(vertex, lambda v: v.users), *_reach(vertex, lambda v: v.inputs))
    return any(map(belongs, around))


def _reach(
    vertex: Vertex,
    step: Callable[[Vertex], list[Vertex]],
    through: Container[Kind] = frozenset(Kind) - {Kind.WEIGHTED, Kind.MATMUL},
) -> Iterator[Vertex]:
    """Yield what ``step`` reaches through operations of some kinds: neither layers nor products."""
    stack, seen = list(step(vertex)), {vertex}
    while stack:
        v = stack.pop()
        if v not in seen:
            seen.add(v)
            yield v
            if v.kind in through:
                stack.extend(step(v))


def _close_epilogues(demand: Demand, spec: QuantizeSpec, sparse: frozenset[str]) -> None:
    """Give INT8 layers an INT8 output where their readers tolerate it (P2's exception, P5)."""
    plan = demand.plan
    for layer in (*plan.weighted, *plan.matmuls):
        end = fused_output(layer, demand.fused)
        while (add := _closing_add(end, demand)) is not None:  # the last block before a pool
            demand.join_add(add, main_operand(add, plan.float_layers))
            end = fused_output(add, demand.fused)
        readers = list(readers_of(end))
        if end in demand.wanted or (readers and all(map(demand.tolerates, readers))):
            for user in end.users:
                if all(map(demand.tolerates, ends_of(user))):
                    _close(user, end, demand)
        elif (add := _depthwise_sum(end, layer)) is not None:
            demand.join_add(add, end)
        elif spec.sparse_epilogue and layer.path in sparse and _expected_to_gain(layer):
            for user in layer.users:
                demand.want(user, layer)


def _close(user: Vertex, end: Vertex, demand: Demand) -> None:
    """Let ``user`` read ``end`` as INT8, and with it who reads that behind commuting operations.

    A Concat joins one scale: all of its operands come from INT8 layers, or none is asked for.
    """
    if user.kind is Kind.CONCAT and not all(_may_join(v, demand) for v in user.inputs):
        return
    demand.want(user, end)
    if demand.carries(user):
        for reader in user.users:
            if (user, reader) not in demand.edges:
                _close(reader, user, demand)


def _may_join(operand: Vertex, demand: Demand) -> bool:
    """Tell whether an operand of a Concat is INT8 or comes from INT8 layers, through others too."""
    stack, seen = [operand], {operand}
    while stack:
        made = stack.pop()
        if made in demand.wanted or comes_from_layer(made, demand.plan.float_layers):
            continue
        if not demand.carries(made) or not made.inputs:
            return False
        stack += [v for v in made.inputs if v not in seen]
        seen.update(made.inputs)
    return True


def _note_float_outputs(demand: Demand) -> None:
    """Say why a layer writes float, once every layer has had its say about the Adds."""
    plan = demand.plan
    for layer in (*plan.weighted, *plan.matmuls):
        end = fused_output(layer, demand.fused)
        if end not in demand.wanted and layer not in demand.wanted:
            kinds = sorted({_READS.get(r.kind, r.kind.value) for r in readers_of(end)})
            readers = "a hook" if is_hooked(layer) else ", ".join(kinds or ["nobody"])
            plan.notes[layer] = f"P8: read as float by {readers}"
        elif has_unfused_activation(layer):
            plan.notes[layer] = "depthwise: no INT8 kernel fuses its activation"
        elif has_unfused_norm(layer):
            plan.notes[layer] = (
                "E3: read as float by a BatchNorm, folding it needs scales per channel"
            )


def _depthwise_sum(end: Vertex, layer: Vertex) -> Vertex | None:
    """Return the Add that fuses behind a depthwise layer: no kernel of it takes a float operand."""
    if len(end.users) != 1 or end.users[0].kind is not Kind.ADD or not is_depthwise(layer):
        return None
    return end.users[0]


def _closing_add(end: Vertex, demand: Demand) -> Vertex | None:
    """Return the Add behind ``end`` that nobody wants as INT8, but may write it and should.

    Its readers tolerate INT8, and its operands are INT8 already or come from INT8 layers.
    """
    if len(end.users) != 1 or end.users[0].kind is not Kind.ADD:
        return None
    add, layers = end.users[0], demand.plan.float_layers
    if any((operand, add) in demand.edges for operand in add.inputs):
        return None
    if main_operand(add, layers) not in (end, None):
        return None
    readers = list(readers_of(fused_output(add, demand.fused)))
    closes = bool(readers) and all(map(demand.tolerates, readers))
    others = (v for v in add.inputs if v is not end)
    if closes and all(v in demand.wanted or comes_from_layer(v, layers) for v in others):
        return add
    return None


def _expected_to_gain(layer: Vertex) -> bool:
    shape = weight_shape(layer)
    reduction = shape.inputs * math.prod(shape.kernel)
    return min(shape.outputs, reduction) >= SPARSE_GAIN_CHANNELS


def _place_sites(demand: Demand) -> None:
    """Turn wanted tensors into sites, as far up as commuting operations carry a scale (P6)."""
    plan = demand.plan
    for made in demand.wanted:
        for twin in (*made.leaves, *([made.source] if made.source else [])):
            plan.groups.join(made, twin)
        readers = [u for u in made.users if (made, u) in demand.edges]
        if demand.carries(made):
            for operand in made.inputs:
                plan.groups.join(made, operand)
            moving = (Kind.COMMUTE, Kind.CONCAT)
            computing = [u for u in readers if u.kind not in moving and not demand.carries(u)]
            # TensorRT fuses a Pad into its convolution only with nothing between them.
            if computing and not is_pad(made):
                plan.echoes[made] = computing
        elif readers:
            plan.sites[made] = readers
