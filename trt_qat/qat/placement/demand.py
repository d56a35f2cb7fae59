"""The demand for INT8: which tensors some reader wants quantized, found by going up the graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from trt_qat.qat.placement.flow import Vertex, pointwise_source
from trt_qat.qat.placement.fusion import is_dropout, main_operand
from trt_qat.qat.placement.kinds import Kind
from trt_qat.qat.placement.layers import OWN_CODE
from trt_qat.qat.placement.scales import ScaleGroups

ELEMENTWISE = (Kind.ADD, Kind.MUL)
CARRIERS = (Kind.COMMUTE, Kind.CONCAT, Kind.AVERAGE)


@dataclass
class Plan:
    """Where quantizers go.

    ``sites`` maps a tensor's vertex to the vertices that read its quantized form; sites in one
    scale group share a quantizer. ``echoes`` are tensors on that grid already, behind commuting
    operations, whose pair is only written at export. ``weighted`` are the layers whose weights are
    quantized, ``weight_axes`` along which axis, None for one scale per tensor. ``formats`` are of
    layers and products, ``read_as`` of tensors, by who reads them.
    """

    sites: dict[Vertex, list[Vertex]] = field(default_factory=dict)
    echoes: dict[Vertex, list[Vertex]] = field(default_factory=dict)
    groups: ScaleGroups = field(default_factory=ScaleGroups)
    weighted: list[Vertex] = field(default_factory=list)
    weight_axes: dict[Vertex, int | None] = field(default_factory=dict)
    matmuls: list[Vertex] = field(default_factory=list)
    formats: dict[Vertex, str] = field(default_factory=dict)
    weight_only: dict[Vertex, str] = field(default_factory=dict)  # layers that read float
    read_as: dict[tuple[Vertex, Vertex], str] = field(default_factory=dict)  # (made by, read by)
    float_layers: dict[Vertex, str] = field(default_factory=dict)
    notes: dict[Vertex, str] = field(default_factory=dict)  # INT8 in, float out, and why
    unsigned: set[Vertex] = field(default_factory=set)  # sites whose zero point is folded
    unread: dict[str, str] = field(default_factory=dict)  # layers that no traced code runs, and why

    def weight_format(self, layer: Vertex) -> str:
        """Return the format of a layer's weight."""
        return self.weight_only.get(layer) or self.formats[layer]

    def by_format(self, made: Vertex, readers: Iterable[Vertex]) -> dict[str, list[Vertex]]:
        """Return the readers of a tensor by the format that they take it in."""
        found: dict[str, list[Vertex]] = {}
        for reader in readers:
            found.setdefault(self.read_as[made, reader], []).append(reader)
        return found


class Demand:
    """Edges whose reader wants INT8, found by following demand up the graph."""

    def __init__(self, plan: Plan, blocked: set[Vertex]) -> None:
        self.plan = plan
        self.blocked = blocked  # commuting operations that a float reader shares
        self.wanted: dict[Vertex, None] = {}  # vertices whose tensor some INT8 reader wants
        self.edges: set[tuple[Vertex, Vertex]] = set()  # (made by, read by)
        self.fused: dict[Vertex, Vertex] = {}  # Add -> the operand that stays float (P4)
        self._pending: list[Vertex] = []
        self._asking = False

    def want(self, reader: Vertex, made: Vertex) -> None:
        """Let ``reader`` read ``made`` as INT8, and ask of ``made`` what that needs."""
        if (made, reader) in self.edges or made.node.meta.get("integer"):
            return  # indices and masks have no scale
        self.edges.add((made, reader))
        if reader.kind is Kind.AVERAGE:  # P5: INT8 in wants INT8 out
            self._want_output(reader)
        self._ask(made)

    def _ask(self, made: Vertex) -> None:
        """Ask of ``made``, and of whatever that asks for: one after the other, however deep."""
        self._pending.append(made)
        if self._asking:
            return
        self._asking = True
        try:
            while self._pending:
                first = len(self._pending) - 1
                self._want_tensor(self._pending.pop())
                self._pending[first:] = self._pending[first:][::-1]
        finally:
            self._asking = False

    def join_add(self, add: Vertex, main: Vertex | None) -> None:
        """Fuse ``add`` behind ``main``, if any, and ask for its other operands as INT8 (P4)."""
        if main is not None:
            self.fused[add] = main
        for operand in add.inputs:
            if operand is not main:
                self.want(add, operand)

    def carries(self, vertex: Vertex) -> bool:
        """Tell whether ``vertex`` passes its operands' scale on (P6).

        So does a dropout behind one that does: when deployed it is that tensor.
        """
        carrier = vertex
        while is_dropout(carrier):
            carrier = carrier.inputs[0]
        return carrier.kind in (Kind.COMMUTE, Kind.CONCAT) and vertex not in self.blocked

    def reads_int8(self, reader: Vertex, made: Vertex) -> bool:
        """Tell whether a reader of a quantized tensor gets, or may get, INT8 values."""
        return (made, reader) in self.edges or self.tolerates(reader)

    def tolerates(self, reader: Vertex) -> bool:
        """Tell whether a float reader may be given INT8 values: pools and heads (P5).

        Not what the recipe keeps float, nor a layer that runs code of its own on its input.
        """
        if reader.kind is Kind.WEIGHTED:
            return not self.plan.float_layers.get(reader, "").startswith(("recipe", OWN_CODE))
        return reader.kind is Kind.AVERAGE

    def _want_tensor(self, made: Vertex) -> None:
        if made in self.wanted:
            return
        self.wanted[made] = None
        if made.kind is Kind.INPUT:
            if made.source is not None:
                self._ask(made.source)
        elif made.kind in ELEMENTWISE:
            self._ask_elementwise(made)
        elif made.kind is Kind.AVERAGE or self.carries(made):
            for operand in made.inputs:
                self.want(made, operand)
        elif made.kind is Kind.POINTWISE:
            self._ask_chain(made)

    def _ask_chain(self, made: Vertex) -> None:
        """Ask what a chain of unary operations starts from: it fuses into a layer or an Add."""
        source = pointwise_source(made)
        while source.kind is Kind.INPUT and source.source is not None:
            source = pointwise_source(source.source)
        if source.kind in ELEMENTWISE:
            self._ask_elementwise(source)
        elif source.region is made.region and source.kind in CARRIERS:
            self.want(_first_reader(made), source)

    def _ask_elementwise(self, vertex: Vertex) -> None:
        self.join_add(vertex, main_operand(vertex, self.plan.float_layers))

    def _want_output(self, pool: Vertex) -> None:
        readers = list(readers_of(pool))
        if pool not in self.wanted and readers and all(map(self.tolerates, readers)):
            for user in pool.users:
                self.want(user, pool)


def _first_reader(made: Vertex) -> Vertex:
    """Return the unary operation at the top of the chain that ends in ``made``."""
    while made.inputs[0].kind is Kind.POINTWISE:
        made = made.inputs[0]
    return made


def readers_of(vertex: Vertex) -> Iterator[Vertex]:
    """Yield who reads a tensor in the end, looking through commuting operations and regions."""
    for user in vertex.users:
        yield from ends_of(user)


def ends_of(reader: Vertex) -> Iterator[Vertex]:
    """Yield who reads what ``reader`` hands on, itself if it does not."""
    stack, seen = [reader], set[Vertex]()
    while stack:
        user = stack.pop()
        if user in seen:
            continue
        seen.add(user)
        inner = [u for made in user.inputs for leaf in made.leaves for u in leaf.users]
        if user.kind is Kind.OUTPUT and inner:
            stack.extend(inner)
        elif user.kind in (Kind.COMMUTE, Kind.CONCAT) or is_dropout(user):
            stack.extend(user.users)
        else:
            yield user
