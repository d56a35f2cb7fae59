"""The data flow of a model as one graph of vertices over all its regions.

A vertex is an operation and the tensor that it makes. Regions meet where the same tensor object
leaves one and enters another: `observe_links` runs the model once on a real batch and watches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from trt_qat.qat.placement.calls import Call, evaluated_on_few, tensors_of
from trt_qat.qat.placement.kinds import (
    Kind,
    activations,
    classify,
    classify_leaf,
    takes_member,
    weight_argument,
)
from trt_qat.qat.placement.stock import stock_class
from trt_qat.qat.placement.trace import Region, Trace


@dataclass(eq=False)
class Vertex:
    """One operation; ``inputs`` are those that carry activations, ``users`` the reverse."""

    kind: Kind
    region: Region
    node: fx.Node
    inputs: list[Vertex] = field(default_factory=list)
    users: list[Vertex] = field(default_factory=list)
    module: nn.Module | None = None
    leaves: list[Vertex] = field(default_factory=list)  # INPUTs of other regions, same tensor
    source: Vertex | None = None  # of an INPUT: the vertex of another region that made it
    leaves_network: bool = False  # seen among the tensors that the whole model returned
    absorbed: list[Vertex] = field(default_factory=list)  # inner operations of x * sigmoid(x)
    depth: int = 0  # weighted layers on the longest way here from the region's inputs
    layer: str | None = None  # of a layer whose own code was traced: its path below the region

    @property
    def path(self) -> str:
        """Name of the operation as a path from the model's root."""
        if self.node.op == "call_module":
            return self.region.module_path(self.node)
        if self.layer is not None:
            return ".".join(part for part in (self.region.path, self.layer) if part)
        stack = self.node.meta.get("nn_module_stack") or {}
        scopes = [str(value[0]) for value in stack.values()]
        scope = scopes[-1] if scopes else ""
        return ".".join(part for part in (self.region.path, scope, self.node.name) if part)


@dataclass
class Flow:
    """Vertices in execution order within a region, regions in the order of the model's tree."""

    vertices: list[Vertex]
    by_node: dict[fx.Node, Vertex]

    def of(self, kind: Kind) -> Iterator[Vertex]:
        """Yield the vertices of one kind."""
        return (v for v in self.vertices if v.kind is kind)


def build_flow(trace: Trace) -> Flow:
    """Build the vertices of every region and connect them within it."""
    vertices: list[Vertex] = []
    by_node: dict[fx.Node, Vertex] = {}
    for region in trace.regions:
        modules = dict(region.owner.named_modules(remove_duplicate=False))
        for node in region.graph.nodes:
            module = modules[str(node.target)] if node.op == "call_module" else None
            vertex = Vertex(classify(node, modules), region, node, module=module)
            if vertex.kind not in (Kind.META, Kind.CONSTANT):
                vertex.inputs = [by_node[n] for n in activations(node)]
                for producer in vertex.inputs:
                    producer.users.append(vertex)
            vertices.append(vertex)
            by_node[node] = vertex
    flow = Flow(vertices, by_node)
    _name_opened_layers(flow)
    for vertex in vertices:
        _take_out_of_tuple(vertex)
    for vertex in vertices:
        _fold_unary_chain(vertex)
        _unfold_standalone_norm(vertex)
        below = max((v.depth for v in vertex.inputs), default=0)
        vertex.depth = below + (vertex.kind is Kind.WEIGHTED)
    return flow


def _name_opened_layers(flow: Flow) -> None:
    """Give the product of a layer whose own code was traced the layer's name.

    Where there are several, as in an attention, they are named by their parameters.
    """
    products: dict[tuple[int, Any], list[Vertex]] = {}
    for vertex in flow.of(Kind.WEIGHTED):
        opened = vertex.node.meta.get("opened")
        if opened is not None:
            products.setdefault((id(vertex.region), opened), []).append(vertex)
    for (_, opened), made in products.items():
        for vertex in made:
            vertex.layer = opened.path if len(made) == 1 else _parameter_name(vertex)


def _parameter_name(product: Vertex) -> str | None:
    """Return the path of a product's parameter without the word weight, None if it is computed."""
    weight = weight_argument(product.node)
    path = str(weight.target) if weight.op == "get_attr" else ""
    return path.removesuffix("weight").rstrip("._") or None


def _take_out_of_tuple(vertex: Vertex) -> None:
    """Let no tensor be a tuple: what is taken out of a chunk is a slice of what was cut.

    The members of any other tuple, as of topk or an LSTM, come out of a float operation.
    """
    if vertex.kind is Kind.META or not takes_member(vertex.node) or not vertex.inputs:
        return
    (cut,) = vertex.inputs
    if cut.kind is not Kind.COMMUTE:
        vertex.kind = Kind.FLOAT
        return
    vertex.inputs = list(cut.inputs)
    cut.users.remove(vertex)
    for source in cut.inputs:
        source.users.append(vertex)
    if not cut.users:
        for source in cut.inputs:
            source.users.remove(cut)
        cut.inputs, cut.kind = [], Kind.META


def _fold_unary_chain(vertex: Vertex) -> None:
    """Make an Add or Mul whose operands all come from one tensor a unary operation on it.

    ``x * sigmoid(x)`` is SiLU: one pointwise kernel for TensorRT, whatever its spelling.
    """
    if vertex.kind not in (Kind.ADD, Kind.MUL):
        return
    sources = {pointwise_source(v) for v in vertex.inputs}
    if len(sources) != 1:
        return
    (source,) = sources
    inner = _between(vertex, source)
    if any(user is not vertex and user not in inner for v in inner for user in v.users):
        return
    vertex.kind, vertex.inputs, vertex.absorbed = Kind.POINTWISE, [source], inner
    source.users = [u for u in source.users if u not in inner and u is not vertex] + [vertex]
    for operation in inner:
        operation.kind = Kind.META


def _between(vertex: Vertex, source: Vertex) -> list[Vertex]:
    """Return the unary operations on the ways from ``source`` to ``vertex``."""
    found: list[Vertex] = []
    stack = list(vertex.inputs)
    while stack:
        v = stack.pop()
        if v is not source and v not in found:
            found.extend((v, *v.absorbed))
            stack.extend(v.inputs)
    return found


def _unfold_standalone_norm(vertex: Vertex) -> None:
    """A BatchNorm that does not follow a layer of its own is an affine unary operation.

    So is one behind a layer that runs code of its own: what that returns may be no layer's output.
    """
    if vertex.kind is Kind.BATCH_NORM:
        before = vertex.inputs[0]
        hooked = before.module is not None and stock_class(before.module) is None
        if before.kind is not Kind.WEIGHTED or len(before.users) != 1 or hooked:
            vertex.kind = Kind.POINTWISE


def pointwise_source(vertex: Vertex) -> Vertex:
    """Return the vertex whose tensor a chain of unary operations starts from."""
    while vertex.kind is Kind.POINTWISE and vertex.inputs:
        vertex = vertex.inputs[0]
    return vertex


def observe_links(model: nn.Module, batch: Any, flow: Flow) -> None:
    """Run ``model`` once and link region inputs to whoever made the very same tensor object.

    Args:
        model: the model, unmodified.
        batch: a tensor, tuple or dict, as `call_model` takes it.
        flow: gets ``source``, ``leaves`` and ``leaves_network`` filled in.
    """
    inputs: dict[nn.Module, list[Vertex]] = {}
    outputs: dict[nn.Module, Vertex] = {}
    for vertex in flow.vertices:
        if vertex.kind is Kind.INPUT:
            inputs.setdefault(vertex.region.owner, []).append(vertex)
        elif vertex.kind is Kind.OUTPUT:
            outputs[vertex.region.owner] = vertex
    made: dict[int, Vertex] = {}
    keep: list[torch.Tensor] = []  # so that no id is used twice

    def before(owner: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = Call.of(inputs[owner][0].region.call.signature, args, kwargs)
        for vertex, value in zip(inputs[owner], tensors_of(call.leaves), strict=False):
            keep.append(value)
            maker = made.setdefault(id(value), vertex)
            if maker is not vertex and vertex.source is None:
                vertex.source = maker
                maker.leaves.append(vertex)

    def after(owner: nn.Module, args: Any, result: Any) -> None:
        nodes = [n for n in outputs[owner].node.all_input_nodes if classify_leaf(n) is None]
        tensors = tensors_of(result)
        if len(nodes) == len(tensors):
            keep.extend(tensors)
            for node, tensor in zip(nodes, tensors, strict=True):
                made.setdefault(id(tensor), flow.by_node[node])

    handles = [m.register_forward_pre_hook(before, with_kwargs=True) for m in inputs]
    handles += [m.register_forward_hook(after) for m in outputs]
    try:
        result = evaluated_on_few(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    for tensor in tensors_of(result):
        if id(tensor) in made:
            made[id(tensor)].leaves_network = True
