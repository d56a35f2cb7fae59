"""Which channels are the same throughout a network: what writes them, what reads them.

A space is the channels of one or more tensors that must keep one order and one size, because an
addition joins them or an operation carries them through. Two questions are asked of it: may its
channels be reordered, and may each be divided by a factor that its readers multiply by. Whatever
is not known to allow it is fixed.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import fx, nn

from trt_qat.qat import placement
from trt_qat.qat.channel_ops import carries_channels, ends_are_read, hands_on, keeps_zero_slope
from trt_qat.qat.placement.calls import tensors_of
from trt_qat.qat.placement.flow import Flow, Vertex
from trt_qat.qat.placement.kinds import Kind, argument, weight_argument, weighted_function
from trt_qat.qat.placement.stock import stock_class
from trt_qat.qat.placement.trace import Region
from trt_qat.qat.placement.unsigned import ends_at_zero

Purpose = Literal["order", "scale", "shrink"]

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)


@dataclass
class Space:
    """Channels that stay together.

    Attributes:
        size: how many.
        writers: paths of layers and norms whose output channels they are.
        readers: paths of layers whose input channels they are.
        carried: paths of norms and depthwise layers that hand them on (purpose ``order``).
    """

    size: int = 0
    writers: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    carried: list[str] = field(default_factory=list)


def channel_spaces(model: nn.Module, batch: Any, purpose: Purpose) -> list[Space]:
    """Return the spaces of a float model that are free, in the order of the network.

    Args:
        model: traced as `quantize` traces it; not changed.
        batch: inputs that it takes.
        purpose: ``order``: channels may be reordered; ``scale``: each may be divided by a positive
            factor that its readers multiply by; ``shrink``: likewise, where a ReLU6 or another
            clip from 0 lets what it keeps below its end become smaller, and not larger.
    """
    return spaces_by_purpose(model, batch, (purpose,))[purpose]


def spaces_by_purpose(
    model: nn.Module, batch: Any, purposes: tuple[Purpose, ...]
) -> dict[Purpose, list[Space]]:
    """Return the free spaces for each purpose, of one trace, as `channel_spaces` does for one."""
    model = copy.deepcopy(model)
    trace = placement.trace(model, batch)
    flow = placement.build_flow(trace)
    shapes: dict[fx.Node, tuple[int, ...]] = {}
    for region in trace.regions:
        shapes |= _shapes(region)
    found = {}
    for purpose in purposes:
        finder = _Finder(model, flow, shapes, purpose)
        for vertex in flow.vertices:
            finder.visit(vertex)
        found[purpose] = finder.spaces()
    return found


def own_weight(layer: nn.Module) -> nn.Parameter:
    """Return the weight of a layer as it is stored, whatever a mask makes of it."""
    weight = layer._parameters["weight"]
    assert isinstance(weight, nn.Parameter)
    return weight


def is_depthwise(layer: nn.Module) -> bool:
    """Tell whether a convolution has one filter for each channel."""
    groups = getattr(layer, "groups", 1)
    return bool(groups > 1 and groups == layer.in_channels == layer.out_channels)


class _Shapes(fx.Interpreter):
    """Runs a graph and notes the shape of every tensor."""

    def __init__(self, region: Region) -> None:
        super().__init__(region.owner, graph=region.graph, garbage_collect_values=True)
        self.found: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run a node."""
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            self.found[n] = tuple(result.shape)
        return result


def _shapes(region: Region) -> dict[fx.Node, tuple[int, ...]]:
    """Return the shapes in a region; none where its graph cannot be run by itself."""
    if region.leaf:
        return {}
    interpreter = _Shapes(region)
    was = region.owner.training
    try:
        with torch.no_grad():
            region.owner.eval()
            interpreter.run(*tensors_of(region.call.leaves))
    except Exception:  # whatever the graph holds that only its code can run: nothing is free then
        return {}
    finally:
        region.owner.train(was)
    return interpreter.found


def _is_as_called(vertex: Vertex, owner: str) -> bool:
    """Tell whether a function that is given a layer's weight does what a call of the layer would.

    It is given the layer's bias or none, and, as a part of such a call, what the call was given.
    """
    bias = argument(vertex.node, 2, "bias")
    mine = bias is None or (isinstance(bias, fx.Node) and str(bias.target) == f"{owner}.bias")
    if not mine or weighted_function(vertex.node) not in ("conv", "linear"):
        return False
    opened = vertex.node.meta.get("opened")
    before = vertex.inputs[0] if vertex.inputs else vertex
    if opened is None or opened.path != owner:
        return True
    while before.node.meta.get("opened") == opened and before.kind is Kind.COMMUTE:
        before = before.inputs[0]
    return bool(before.node.meta.get("opened") != opened)


class _Finder:
    """Unites tensors vertex by vertex, and notes what fixes them."""

    def __init__(
        self,
        model: nn.Module,
        flow: Flow,
        shapes: dict[fx.Node, tuple[int, ...]],
        purpose: Purpose,
    ) -> None:
        self.model, self.flow, self.shapes, self.purpose = model, flow, shapes, purpose
        self.parents: dict[Vertex, Vertex] = {}
        self.fixed: list[Vertex] = []
        self.spatial: list[Vertex] = []  # made by pools and the like, whose channels are axis 1
        self.facts: list[tuple[Vertex, str, str, int]] = []  # tensor, field of Space, value, axis
        parameters = (
            id(p)
            for m in model.modules()
            for p in m._parameters.values()
            if p is not None
        )  # fmt: skip
        self._tied = {key for key, count in Counter(parameters).items() if count > 1}

    def visit(self, vertex: Vertex) -> None:
        """Note what one operation says of its inputs and of its output."""
        if vertex.kind in (Kind.META, Kind.CONSTANT):
            return
        known = [v for v in (vertex, *vertex.inputs) if v.node in self.shapes]
        if vertex.kind is Kind.OUTPUT or len(known) <= len(vertex.inputs):
            self._fix(vertex, *vertex.inputs)
        elif vertex.kind is Kind.WEIGHTED:
            self._layer(vertex)
        elif isinstance(vertex.module, NORMS):
            self._norm(vertex)
        elif vertex.kind in (Kind.ADD, Kind.MUL):
            self._join(vertex)
        elif vertex.kind in (Kind.POINTWISE, Kind.COMMUTE, Kind.AVERAGE):
            self._carry(vertex)
        else:
            self._fix(vertex, *vertex.inputs)

    def spaces(self) -> list[Space]:
        """Return what is free, has a writer and a reader."""
        fixed = {self._root(vertex) for vertex in self.fixed}
        fixed |= self._of_two_sizes()
        calls = Counter((kind, value) for _, kind, value, _ in self.facts)
        fixed |= {self._root(v) for v, kind, value, _ in self.facts if calls[kind, value] > 1}
        found: dict[Vertex, Space] = {}
        axes: dict[Vertex, set[int]] = {self._root(vertex): {1} for vertex in self.spatial}
        for vertex, kind, value, axis in self.facts:
            root = self._root(vertex)
            axes.setdefault(root, set()).add(axis)
            space = found.setdefault(root, Space())
            getattr(space, kind).append(value)
            space.size = space.size or self.shapes[vertex.node][axis]
        return [
            space
            for root, space in found.items()
            if root not in fixed and len(axes.get(root, ())) == 1
            if space.writers and space.readers
        ]

    def _of_two_sizes(self) -> set[Vertex]:
        """Return what unites channels of different numbers, as a gate of one for all does."""
        sizes: dict[Vertex, set[int]] = {}
        for vertex, _, _, axis in self.facts:
            sizes.setdefault(self._root(vertex), set()).add(self.shapes[vertex.node][axis])
        return {root for root, found in sizes.items() if len(found) > 1}

    def _layer(self, vertex: Vertex) -> None:
        (before,) = vertex.inputs or [vertex]
        path = self._path_of(vertex)
        if path is None:
            self._fix(vertex, before)
            return
        layer = self.model.get_submodule(path)
        dims = len(self.shapes[vertex.node])
        axis = dims - 1 if isinstance(layer, nn.Linear) else 1
        if not isinstance(layer, nn.Linear) and dims != own_weight(layer).dim():  # no batch axis
            self._fix(vertex, before)
        elif is_depthwise(layer) and self.purpose == "order":
            self._unite(vertex, before)
            self.facts.append((vertex, "carried", path, axis))
        elif getattr(layer, "groups", 1) > 1 and not is_depthwise(layer):
            self._fix(vertex, before)
        else:
            self.facts.append((before, "readers", path, axis))
            self.facts.append((vertex, "writers", path, axis))

    def _path_of(self, vertex: Vertex) -> str | None:
        """Return the path of a layer that is called once and whose weight is its own."""
        if vertex.module is not None:
            layer, path = vertex.module, vertex.path
            ours = stock_class(layer) is not None
        else:
            weight = weight_argument(vertex.node)
            owner, _, key = str(weight.target).rpartition(".")
            ours = weight.op == "get_attr" and key == "weight" and len(weight.users) == 1
            path = ".".join(part for part in (vertex.region.path, owner) if part)
            layer = self.model.get_submodule(path) if ours else nn.Identity()
            ours = ours and _is_as_called(vertex, owner)
        free = layer._parameters.get("weight") is not None and not self._is_tied(layer)
        return path if ours and free and isinstance(layer, LAYERS) else None

    def _is_tied(self, module: nn.Module) -> bool:
        """Tell whether another module holds the weight or the bias as well."""
        return any(id(parameter) in self._tied for parameter in module._parameters.values())

    def _norm(self, vertex: Vertex) -> None:
        (before,) = vertex.inputs
        norm, dims = vertex.module, len(self.shapes[vertex.node])
        assert norm is not None
        by_layer = isinstance(norm, nn.LayerNorm)
        if (
            stock_class(norm) is None
            or norm.weight is None
            or self._is_tied(norm)
            or (by_layer and len(norm.normalized_shape) != 1)  # type: ignore[arg-type]
        ):
            self._fix(vertex, before)
            return
        axis = dims - 1 if by_layer else 1
        if self.purpose == "order":
            self._unite(vertex, before)
            self.facts.append((vertex, "carried", vertex.path, axis))
        else:
            self._fix(before)
            self.facts.append((vertex, "writers", vertex.path, axis))

    def _join(self, vertex: Vertex) -> None:
        shapes = {self.shapes[v.node] for v in vertex.inputs}
        gate = vertex.kind is Kind.MUL
        if gate:  # of a squeeze-and-excitation: one number a channel
            shapes = {shape[:2] for shape in shapes}
        plain = all(n in self.flow.by_node for n in vertex.node.all_input_nodes)
        if len(shapes) > 1 or not plain or (gate and self.purpose != "order"):
            self._fix(vertex, *vertex.inputs)
        else:
            self._unite(vertex, *vertex.inputs)

    def _carry(self, vertex: Vertex) -> None:
        before = vertex.inputs[0]
        shapes = self.shapes[before.node], self.shapes[vertex.node]
        free = len(vertex.inputs) == 1 and carries_channels(vertex, *shapes)
        if free and self.purpose != "order":
            clips = self.purpose == "shrink" and not vertex.absorbed and ends_at_zero(vertex)
            free = keeps_zero_slope(vertex) or (clips and ends_are_read(vertex))
        if not free:
            self._fix(vertex, *vertex.inputs)
            return
        if not hands_on(vertex):
            self.spatial.append(vertex)
        self._unite(vertex, before)

    def _fix(self, *vertices: Vertex) -> None:
        self.fixed.extend(vertices)

    def _unite(self, first: Vertex, *others: Vertex) -> None:
        for other in others:
            a, b = self._root(first), self._root(other)
            if a is not b:
                self.parents[b] = a

    def _root(self, vertex: Vertex) -> Vertex:
        while vertex in self.parents:
            vertex = self.parents[vertex]
        return vertex
