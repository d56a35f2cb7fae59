"""Mends of what TensorRT's parser and first graph passes refuse: QDQ019 to QDQ021, QDQ317."""

from __future__ import annotations

import numpy as np
from onnx import helper

from trt_qat.graph.qdq import Graph
from trt_qat.graph.shapes import infer
from trt_qat.lint.rules.parser import doubled_names, nameless_dimensions, scalar_constants
from trt_qat.lint.rules.release import without_kernel_shape
from trt_qat.mend.edits import Change, free, redirect, remove, store


def fold_scalars(graph: Graph) -> list[Change]:
    """Replace a DQ of a scalar by the float that it stands for."""
    changes, gone = [], []
    for node in scalar_constants(graph):
        codes, scaling = graph.constant(node.input(0)), graph.scaling(node)
        scale, zero = scaling.scale, scaling.zero_point
        if codes is None or scale is None or scale.size != 1 or not free(graph, node.output):
            continue
        point = 0.0 if zero is None else float(zero.astype(np.float64).ravel()[0])
        value = (float(codes.astype(np.float64)) - point) * float(scale.ravel()[0])
        name = store(graph, f"{node.output}_float", np.asarray(value, scale.dtype))
        redirect(graph, node.output, name)
        gone.append(node)
        changes.append(Change("QDQ019", node.name, "Folded a quantized scalar into a float one."))
    remove(graph, gone)
    return changes


def rename_dimensions(graph: Graph) -> list[Change]:
    """Give each dimension of the inputs that is called ``?`` or the like a name of its own."""
    changes = []
    for name in nameless_dimensions(graph):
        for value in graph.proto.input:
            for at, dim in enumerate(value.type.tensor_type.shape.dim):
                if dim.HasField("dim_param") and dim.dim_param == name:
                    dim.dim_param = f"{value.name}_{at}"
        changes.append(Change("QDQ020", "", f"Gave each dimension called {name!r} its own name."))
    for value in (*graph.proto.output, *graph.proto.value_info) if changes else ():
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param") and not dim.dim_param.isidentifier():
                dim.ClearField("dim_param")  # which of them it was is not known
    return changes


def rename_pairs(graph: Graph) -> list[Change]:
    """Give each Q and DQ whose name is taken another one."""
    taken = {node.name for each in graph.walk() for node in each.nodes} | set(graph.initializers)
    changes = []
    for node in doubled_names(graph):
        name = f"{node.name}_{node.op}"
        while name in taken:
            name += "_"
        taken.add(name)
        node.proto.name = name
        changes.append(Change("QDQ021", node.name, f"Renamed to {name!r}."))
    return changes


def state_kernels(graph: Graph) -> list[Change]:
    """Write the kernel_shape that the weight has."""
    changes = []
    bare = list(without_kernel_shape(graph))
    shapes = infer(graph) if bare else None
    for node in bare:
        size = shapes.known(node.input(1)) if shapes else None
        if size is not None:
            node.proto.attribute.append(helper.make_attribute("kernel_shape", list(size[2:])))
            changes.append(Change("QDQ317", node.name, f"Stated kernel_shape {list(size[2:])}."))
    return changes
