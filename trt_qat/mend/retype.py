"""``--fp16``: rewrite a QDQ graph so that what is not INT8 computes in FP16.

Every tensor has the type of the node that writes it, and a Cast stands where a reader needs the
other. Between DQ and its layer a Cast would hide the DQ from TensorRT, so a DQ that both types
read is doubled instead. A Q has the type of what it quantizes, a DQ that of its reader, and the
scale has the type of the float side, as a strongly typed network demands ("Working with Quantized
Types", TensorRT documentation). ONNX permits FP16 scales from opset 19 on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trt_qat.graph import load
from trt_qat.graph.node import Node
from trt_qat.graph.qdq import Graph
from trt_qat.graph.shapes import Shapes, infer
from trt_qat.graph.tensors import Array
from trt_qat.mend import masks, normal, precision, trial
from trt_qat.mend.mends import Change
from trt_qat.mend.precision import Half, Plan
from trt_qat.wording import counted

_FLOAT, _HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)
_RULE = "QDQ201"


def to_half(
    model: ModelProto,
    spec: Half,
    feeds: Sequence[trial.Feeds],
    *,
    given: bool,
) -> tuple[ModelProto, list[Change]]:
    """Return a copy of a model whose float remainder computes in FP16, and what was done.

    Args:
        model: A QDQ model without local functions, its weights inside.
        spec: What stays FP32, and whether inputs and outputs change.
        feeds: Inputs to measure ranges on; none: ranges are not measured.
        given: The feeds are the user's and not random; random ones need more headroom.

    Raises:
        GraphError: the model is not valid ONNX, cannot be brought to opset 19, or does not run.
        InputError: a pattern of ``spec.keep`` matches nothing.
    """
    copy = normal.raised(model)
    normal.store_constants(copy)
    graph = Graph(copy)
    shapes = infer(graph)
    known = masks.find(graph)
    written = [name for node in graph.nodes for name in node.outputs if name]
    floats = [name for name in written if shapes.types.get(name) == _FLOAT]
    measured = floats if feeds else []
    floor = dict.fromkeys(known.tensors, masks.MASKED_BELOW)
    ranges = trial.magnitudes(copy, measured, feeds, shapes=shapes, floor=floor)
    if given:
        ranges |= {name: _largest(feeds, name) for name in graph.inputs}
    headroom = precision.HEADROOM_GIVEN if given else precision.HEADROOM_RANDOM
    made = precision.plan(graph, shapes, spec, ranges, precision.LARGEST / headroom)
    changes = _changes(graph, shapes, made, measured=bool(feeds))
    if not made.half and not made.scales:
        return copy, changes
    _Retyper(graph, shapes, made, spec.half_io).rewrite()
    return normal.checked(copy, "the FP16 graph"), changes


def _largest(feeds: Sequence[trial.Feeds], name: str) -> float:
    values = (feed[name] for feed in feeds if feed[name].dtype.kind == "f")
    return max((float(np.max(np.abs(v), initial=0.0)) for v in values), default=0.0)


def _changes(graph: Graph, shapes: Shapes, made: Plan, *, measured: bool) -> list[Change]:
    total = len(made.half) + len(made.kept)
    range_note = "" if measured else " Ranges were not measured: no inputs could be fed."
    head = f"Cast {len(made.half)} of {counted(total, 'FP32 node')} to FP16.{range_note}"
    kept = [Change(_RULE, n.name, f"Kept FP32: {why}.") for n, why in precision.reasons(made)]
    clamped = [
        Change(_RULE, "", f"Clamped the mask constant {name!r} to {masks.HALF_MASK:.0f}.")
        for name in sorted(made.masks.constants)
    ]
    return [Change(_RULE, "", head), *clamped, *kept] if total else []


class _Retyper:
    """Edits the protos of one graph; the index is stale afterwards."""

    def __init__(self, graph: Graph, shapes: Shapes, made: Plan, half_io: bool) -> None:
        self.graph, self.shapes, self.made = graph, shapes, made
        self.taken = set(graph.tensors) | {t.name for t in graph.proto.initializer}
        # Tensors whose own name must stay FP32: bodies read them by name.
        captured = {
            name
            for node in graph.nodes
            if load.bodies(node.proto)
            for name in load.reads(node.proto)
        }
        outputs = {name for name in graph.outputs if shapes.types.get(name) == _FLOAT}
        inputs = {name for name in graph.inputs if shapes.types.get(name) == _FLOAT}
        written = {name for node in made.half for name in node.outputs}
        self.half_inputs = inputs - captured - outputs if half_io else set()
        self.half_outputs = (outputs & written) - captured if half_io else set()
        self.pinned = captured | (outputs - self.half_outputs)
        self.names: dict[tuple[str, int], str] = {}
        self.have: dict[str, int] = {}
        self.first: list[NodeProto] = []
        self.behind: dict[Node, list[NodeProto]] = {}
        self.half_quantizers: set[Node] = set()

    def rewrite(self) -> None:
        self._declare_ends()
        for node in self.graph.nodes:
            if node.is_quantize():
                self._quantize(node)
            elif node.is_dequantize():
                self._dequantize(node)
            else:
                self._compute(node)
        nodes = list(self.first)
        for node in self.graph.nodes:
            nodes += [normal.copied(node.proto), *self.behind.get(node, [])]
        del self.graph.proto.node[:]
        self.graph.proto.node.extend(nodes)
        del self.graph.proto.value_info[:]  # of the old types; readers infer them again

    def _declare_ends(self) -> None:
        for values, half in (
            (self.graph.proto.input, self.half_inputs),
            (self.graph.proto.output, self.half_outputs),
        ):
            for value in values:
                if value.name in half:
                    value.type.tensor_type.elem_type = _HALF
        for name in self.graph.inputs:
            self._note(name, _HALF if name in self.half_inputs else _FLOAT, name)

    def _note(self, tensor: str, kind: int, name: str) -> None:
        self.have.setdefault(tensor, kind)
        self.names[tensor, kind] = name

    def _fresh(self, tensor: str, suffix: str) -> str:
        name = f"{tensor}_{suffix}"
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def _is_float(self, tensor: str) -> bool:
        return self.shapes.types.get(tensor) == _FLOAT

    def _wanted(self, node: Node, position: int) -> int | None:
        """Return the type that a reader needs of an FP32 tensor, None if either will do."""
        if node.op in precision.SHAPE_SOURCES:
            return None
        if node.is_quantize() or (node.is_dequantize() and position == 1):
            # Codes and float side of a pair belong together; what a DQ hands to a Q may be half.
            return _HALF if node in self.made.scales else _FLOAT
        follows = precision.input_follows(self.graph, node, position)
        return _HALF if node in self.made.half and follows else _FLOAT

    def _provide(self, tensor: str, kind: int) -> str:
        """Return the name under which a tensor has a type; add a Cast or a copy if none has."""
        known = self.names.get((tensor, kind))
        if known is not None:
            return known
        suffix = "fp16" if kind == _HALF else "fp32"
        name = self._fresh(tensor, suffix)
        stored = self.graph.initializer(tensor)
        if stored is not None:
            if kind == _FLOAT:
                return tensor
            value = self.graph.constant(tensor)
            assert value is not None, "an initialiser has a value"
            if tensor in self.made.masks.constants:
                value = masks.clamped(value)
            self._store(name, value.astype(np.float16))
        else:
            cast = helper.make_node(
                "Cast", [self.names[tensor, self.have[tensor]]], [name], name=name, to=kind
            )
            writer = self.graph.producer(tensor)
            self._after(writer, cast)
        self.names[tensor, kind] = name
        return name

    def _after(self, writer: Node | None, node: NodeProto) -> None:
        if writer is None:
            self.first.append(node)
        else:
            self.behind.setdefault(writer, []).append(node)

    def _store(self, name: str, value: Array) -> str:
        self.graph.proto.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _scale(self, node: Node, kind: int) -> str:
        """Return the name of a rounded scale; Q and DQ of a pair round alike, whatever their type.

        A scale that does not fit keeps its name and its value.
        """
        rounded = self.made.scales.get(node)
        name = node.input(1)
        if rounded is None:
            return name
        if self.graph.initializer(name) is None:  # of two levels: the one before has the type
            return self._provide(name, kind)
        key = (f"scale of {name}", kind)
        if key not in self.names:
            typed = rounded if kind == _HALF else rounded.astype(np.float32)
            suffix = "fp16" if kind == _HALF else "rounded"
            self.names[key] = self._store(self._fresh(name, suffix), typed)
        return self.names[key]

    def _quantize(self, node: Node) -> None:
        source = node.input(0)
        if not self._is_float(source):
            return
        half = self.have.get(source) == _HALF and node in self.made.scales
        if self.graph.initializer(source) is None:
            node.proto.input[0] = self._provide(source, _HALF if half else _FLOAT)
        node.proto.input[1] = self._scale(node, _HALF if half else _FLOAT)

    def _dequantize(self, node: Node) -> None:
        tensor = node.output
        if not self._is_float(tensor):
            return
        wanted: set[int] = {_FLOAT} if tensor in self.pinned else set()
        for reader in self.graph.consumers(tensor):
            places = [i for i, name in enumerate(reader.inputs) if name == tensor]
            wanted |= {kind for i in places if (kind := self._wanted(reader, i)) is not None}
        if tensor in self.half_outputs:
            wanted.add(_HALF)
        kinds = wanted if node in self.made.scales and wanted else {_FLOAT}
        self.have[tensor] = _HALF if kinds == {_HALF} else _FLOAT
        if len(kinds) == 2:
            self._double(node)
        self.names[tensor, self.have[tensor]] = tensor
        self._type_dequantize(node, node.proto, self.have[tensor])

    def _double(self, node: Node) -> None:
        twin = normal.copied(node.proto)
        twin.output[0] = self._fresh(node.output, "fp16")
        twin.name = twin.output[0]
        self._type_dequantize(node, twin, _HALF)
        self._after(node, twin)
        self.names[node.output, _HALF] = twin.output[0]

    def _type_dequantize(self, node: Node, proto: NodeProto, kind: int) -> None:
        proto.input[1] = self._scale(node, kind)
        for attribute in proto.attribute:
            if attribute.name == "output_dtype" and attribute.i == _FLOAT:
                attribute.i = kind

    def _compute(self, node: Node) -> None:
        half = node in self.made.half
        for i, name in enumerate(node.inputs):
            if name and self._is_float(name):
                kind = self._wanted(node, i) or self.have.get(name, _FLOAT)
                node.proto.input[i] = self._provide(name, kind)
        for i, name in enumerate(node.outputs):
            if not name or not self._is_float(name):
                continue
            follows = half and precision.output_follows(self.graph, node, i)
            if follows and name in self.pinned:
                self._rename_output(node, i, name)
            else:
                self._note(name, _HALF if follows else _FLOAT, name)
        if half and node.op == "Cast":
            self._set_type(node)

    def _rename_output(self, node: Node, position: int, name: str) -> None:
        """Write FP16 under another name, and the FP32 that others ask for under the old one."""
        inner = self._fresh(name, "fp16")
        node.proto.output[position] = inner
        self._note(name, _HALF, inner)
        cast = helper.make_node("Cast", [inner], [name], name=f"{inner}_cast", to=_FLOAT)
        self._after(node, cast)
        self.names[name, _FLOAT] = name

    def _set_type(self, node: Node) -> None:
        for attribute in node.proto.attribute:
            if attribute.name == "to" and attribute.type == AttributeProto.INT:
                attribute.i = _HALF if attribute.i == _FLOAT else attribute.i
