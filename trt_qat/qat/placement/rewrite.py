"""Putting the planned quantizers into the model, without changing what its user sees of it.

A region's owner keeps its type (as a base class), its attributes, its submodules and its state
dict keys; its ``forward`` becomes the traced graph with quantizers in it, which live in the
owner's ``qdq``.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import fx, nn

from trt_qat.qat.placement.callsite import QUANTIZERS
from trt_qat.qat.placement.constants import Computed
from trt_qat.qat.placement.demand import Plan
from trt_qat.qat.placement.edges import own_path_of
from trt_qat.qat.placement.flow import Flow, Vertex
from trt_qat.qat.placement.kinds import Kind, takes_member, weight_argument
from trt_qat.qat.placement.layers import functional_parameters
from trt_qat.qat.placement.program import derived, install
from trt_qat.qat.placement.repairs import holder_of
from trt_qat.qat.placement.trace import Region, Trace
from trt_qat.qat.quantizers.fake_quant import fake_quantize, rounds
from trt_qat.qat.quantizers.formats import format_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from modelopt.torch.quantization.nn import TensorQuantizer


WeightSource = nn.Parameter | Computed
"""What the weight of a functional layer is: a parameter, or computed of some."""


class Echo(nn.Module):
    """A Q/DQ pair of a tensor that is on its grid already.

    It stands behind commuting operations, where TensorRT expects the consumer's own pair. Training
    is spared the work; in evaluation the model computes what its file does, even where an operation
    was taken for commuting and is not.
    """

    def __init__(self, quantizer: nn.Module) -> None:
        super().__init__()
        self.of = [quantizer]  # in a list: not a submodule, or its state would be saved twice

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return ``inputs`` on the grid."""
        if self.training or not rounds(self.of[0]):
            return inputs
        return fake_quantize(inputs, cast("TensorQuantizer", self.of[0]))


def quantizer_of(module: nn.Module) -> nn.Module:
    """Return the quantizer that a pair is of: itself, or what it is the echo of."""
    return module.of[0] if isinstance(module, Echo) else module


@dataclass
class Placed:
    """What the model holds after rewriting.

    ``activations`` maps a quantizer's name to the quantizer, ``closed`` maps a layer that no
    region covers to the quantizer of its input or output, ``norms`` a layer to its BatchNorm,
    ``of_inputs`` names quantizers of what the network is given, and of nothing else.
    """

    activations: dict[str, nn.Module] = field(default_factory=dict)
    functional_weights: dict[str, tuple[nn.Module, WeightSource, int | None]] = field(
        default_factory=dict
    )
    echoes: dict[str, Echo] = field(default_factory=dict)
    closed: list[tuple[nn.Module, str, nn.Module]] = field(default_factory=list)
    norms: dict[nn.Module, nn.Module] = field(default_factory=dict)
    of_inputs: set[str] = field(default_factory=set)


def rewrite(
    trace: Trace,
    flow: Flow,
    plan: Plan,
    of_activation: Callable[[str, bool], nn.Module],
    of_weight: Callable[[int | None, str], nn.Module],
) -> Placed:
    """Insert a quantizer at every site and give each region's owner the new forward.

    Args:
        trace: the regions.
        flow: their vertices.
        plan: where quantizers go.
        of_activation: makes the quantizer of an activation in a format, unsigned or not.
        of_weight: makes that of a weight by its channel axis, None for one scale per tensor.
    """
    placed = Placed()
    of_group: dict[tuple[Vertex, str], str] = {}
    computed: set[str] = set()
    for site, kind, readers in _split(plan, plan.sites):
        group = plan.groups.group(site), kind
        if group not in of_group:
            of_group[group] = _unique(_label(site), placed.activations)
            placed.activations[of_group[group]] = of_activation(kind, site in plan.unsigned)
        name = of_group[group]
        quantizer = placed.activations[name]
        if not _is_given(site):
            computed.add(name)
        if site.region.leaf:
            side = "input_quantizer" if site.kind is Kind.INPUT else "output_quantizer"
            placed.closed.append((site.region.owner, side, quantizer))
        else:
            _insert(site, readers, name, quantizer)
    placed.of_inputs = placed.activations.keys() - computed
    for made, kind, readers in _split(plan, plan.echoes):
        shared = of_group.get((plan.groups.group(made), kind))
        if shared is not None:
            echo = Echo(placed.activations[shared])
            key = _unique(f"{_label(made)}_again", placed.echoes)
            placed.echoes[key] = echo
            _insert(made, readers, key, echo)
    for vertex in (*plan.weighted, *plan.weight_only):
        if vertex.module is None:
            axis, kind = plan.weight_axes[vertex], plan.weight_format(vertex)
            made_by = functools.partial(of_weight, axis, kind)
            _quantize_functional_weight(vertex, axis, kind, placed, made_by)
    placed.norms = _norms(flow)
    for region in trace.regions:
        if not region.leaf:
            _install(region)
    return placed


def _is_given(site: Vertex) -> bool:
    """Tell whether a tensor is an input of the whole network."""
    region = site.region
    return site.kind is Kind.INPUT and site.source is None and not (region.leaf or region.path)


def _split(
    plan: Plan, sites: Mapping[Vertex, list[Vertex]]
) -> Iterator[tuple[Vertex, str, list[Vertex]]]:
    """Yield sites with each of the formats that they are read in, and who reads that."""
    for site, readers in sites.items():
        found = plan.by_format(site, readers)
        for kind, those in found.items():
            yield site, kind, those
            if site.region.leaf:  # one place for a quantizer on either side
                break


def _label(vertex: Vertex) -> str:
    return vertex.path.replace(".", "_") or "input"


def _unique(name: str, taken: dict[str, Any]) -> str:
    """Return a name that is free, also as a key of ModuleDict: it takes no ``to`` or ``keys``."""
    candidate, count = name, 1
    while candidate in taken or hasattr(nn.ModuleDict, candidate):
        candidate, count = f"{name}_{count}", count + 1
    return candidate


def _insert(site: Vertex, readers: list[Vertex], name: str, quantizer: nn.Module) -> None:
    holder_of(site.region.owner)[name] = quantizer
    graph = site.region.graph
    with graph.inserting_after(site.node):
        quantized = graph.call_module(f"{QUANTIZERS}.{name}", (site.node,))
    for reader in readers:
        for vertex in (reader, *reader.absorbed):
            vertex.node.replace_input_with(site.node, quantized)
        if takes_member(reader.node):
            _cut_quantized(reader.node, site.node, quantized)


def _cut_quantized(member: fx.Node, made: fx.Node, quantized: fx.Node) -> None:
    """Let a member of a chunk be cut from the quantized tensor; others may be cut from the float.

    Members of one chunk that read the quantized tensor share its second cut.
    """
    cut = member.args[0]
    assert isinstance(cut, fx.Node)
    if made not in cut.all_input_nodes:
        return
    copies = (user for user in quantized.users if user.meta.get("cut_of") is cut)
    copy = next(copies, None)
    if copy is None:
        with cut.graph.inserting_before(cut.next):
            copy = cut.graph.node_copy(cut, lambda node: quantized if node is made else node)
        copy.meta = {**cut.meta, "cut_of": cut}
    member.replace_input_with(cut, copy)
    if not cut.users:
        cut.graph.erase_node(cut)


def _quantize_functional_weight(
    vertex: Vertex,
    axis: int | None,
    kind: str,
    placed: Placed,
    made_by: Callable[[], nn.Module],
) -> None:
    """Put a weight quantizer between a parameter and the functional layer that reads it.

    Layers that read one parameter along one axis in one format share its quantizer; a conv and a
    conv_transpose of tied weights do not.
    """
    weight = weight_argument(vertex.node)
    owner = vertex.region.owner
    path = vertex.path if weight.op != "get_attr" else str(weight.target)
    source = _weight_source(vertex, weight)
    known = placed.functional_weights
    wanted = axis, kind
    name = next(
        (n for n, (q, s, a) in known.items() if s is source and (a, format_of(q).name) == wanted),
        None,
    )
    if name is None:
        name = _unique(f"{path.replace('.', '_')}_quantizer", known)
        known[name] = (made_by(), source, axis)
    holder = holder_of(owner)
    holder[name] = known[name][0]
    with vertex.region.graph.inserting_before(vertex.node):
        quantized = vertex.region.graph.call_module(f"{QUANTIZERS}.{name}", (weight,))
    vertex.node.replace_input_with(weight, quantized)


def _weight_source(vertex: Vertex, weight: fx.Node) -> WeightSource:
    """Return the parameter that a weight is, else the code that computes it."""
    if weight.op == "get_attr":
        return functional_parameters(vertex)[0]
    return Computed.of(weight, vertex.region.owner)


def _norms(flow: Flow) -> dict[nn.Module, nn.Module]:
    """Return layer -> the BatchNorm whose output the layer's node writes once it is folded in.

    It is folded where both are called once; the flow has seen that it alone reads the layer.
    """
    calls = Counter(vertex.module for vertex in flow.vertices if vertex.module is not None)
    return {
        layer: norm.module
        for norm in flow.of(Kind.BATCH_NORM)
        if norm.module is not None
        and (layer := norm.inputs[0].module) is not None
        and calls[layer] == calls[norm.module] == 1
    }


def _install(region: Region) -> None:
    program = region.program()
    program.own_path = own_path_of(region)
    install(region.owner, program)


def enclose(layer: nn.Module) -> None:
    """Give a layer that no region covers places for the quantizers of its input and its output.

    ModelOpt's quantized layers have them already.
    """
    if hasattr(layer, "input_quantizer"):
        return
    vars(layer)["_own_forward"] = vars(layer).pop("forward", None)
    layer.input_quantizer, layer.output_quantizer = nn.Identity(), nn.Identity()
    layer.__class__ = derived(type(layer), "Closed", _closed_forward)


def _closed_forward(original: type[nn.Module]) -> Callable[..., Any]:
    def forward(self: nn.Module, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        run: Any = self._own_forward or functools.partial(original.forward, self)
        output = run(self.input_quantizer(x), *args, **kwargs)  # type: ignore[operator]
        return self.output_quantizer(output)  # type: ignore[operator]

    return forward
