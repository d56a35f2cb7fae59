"""Reading an ONNX file that nobody vouches for: one clear error, no file touched."""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, ModelProto, TensorProto

from trt_qat.errors import GraphError
from trt_qat.files import absent
from trt_qat.graph import large, tensors

# protobuf cannot hold a message of 2 GiB or more; larger models keep their weights beside it.
_PROTOBUF_LIMIT_BYTES = 2**31 - 1
_DEFAULT_DOMAINS = ("", "ai.onnx")


def load_graph(path: str | os.PathLike[str]) -> ModelProto:
    """Read and check an ONNX file; weights in external files are located, not read.

    The model that comes back is well formed: every tensor holds what it claims, every node input
    has one producer, there is no cycle, and all external data lies inside the file's folder. The
    folder is noted in each external tensor, so that `trt_qat.graph.tensors.read_array` finds it.

    Args:
        path: An ``.onnx`` file.

    Returns:
        The model. Its nodes stay in the order of the file.

    Raises:
        GraphError: no such file, no ONNX model, damaged, cyclic, or external data that is missing,
            too short, or outside the folder.
    """
    file = Path(path)
    model = _parse(file)
    try:
        check_graph(model)
        _locate_external(model, file.parent)
    except GraphError as error:
        msg = f"{file}: {error}"
        raise GraphError(msg) from error
    return model


def embed_weights(model: ModelProto) -> ModelProto:
    """Return a copy of the model with its external weights read into it.

    Where all of them are too many for one message, large ones stay where they are, located.

    Raises:
        GraphError: external data cannot be read.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    total = sum(map(tensors.size_bytes, tensors.tensors_of(model.graph)))
    stored = len(copy.graph.initializer) if total > large.LARGE_BYTES else 0
    for place, tensor in enumerate(tensors.tensors_of(copy.graph)):
        stays = place < stored and tensors.size_bytes(tensor) > large.SMALL_BYTES
        if tensors.is_external(tensor) and not stays:
            large.hold(tensor)
    return copy


def _names(model: ModelProto) -> Iterator[object]:
    yield from (opset.domain for opset in model.opset_import)
    for function in model.functions:
        yield from (function.name, function.domain, *function.input, *function.output)
        yield from _node_names(function.node)
    yield from _graph_names(model.graph)


def _graph_names(graph: GraphProto) -> Iterator[object]:
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    for tensor in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)):
        yield tensor.name
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))
    yield from _node_names(graph.node)


def _node_names(nodes: Iterable[onnx.NodeProto]) -> Iterator[object]:
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
        for body in bodies(node):
            yield from _graph_names(body)


def _parse(file: Path) -> ModelProto:
    if not file.is_file():
        msg = f"{file}: {absent(file)}; give the path of an .onnx model"
        raise GraphError(msg)
    try:
        size = file.stat().st_size
        if size > _PROTOBUF_LIMIT_BYTES:
            msg = (
                f"{file}: {size} bytes, and one ONNX file holds 2 GiB at most; "
                "export with external data"
            )
            raise GraphError(msg)
        model = ModelProto()
        model.ParseFromString(file.read_bytes())
    except OSError as error:
        msg = f"{file}: cannot be read: {error.strerror or error}"
        raise GraphError(msg) from error
    except DecodeError as error:
        msg = f"{file}: no ONNX model, or damaged: {error}"
        raise GraphError(msg) from error
    if not model.HasField("graph") or not model.graph.node:
        msg = f"{file}: no ONNX model: it holds no graph"
        raise GraphError(msg)
    return model


def check_graph(model: ModelProto) -> None:
    """Check that a model in memory is well formed; external data is not looked at.

    Raises:
        GraphError: a tensor that does not hold what it claims, an operator set that is missing, an
            input that nothing produces, a tensor produced twice, or a cycle.
    """
    check_contents(model)
    topological_order(model.graph)


def check_contents(model: ModelProto) -> None:
    """Check tensors and operator sets, and leave the order of nodes to `topological_order`.

    Raises:
        GraphError: a tensor that does not hold what it claims, a missing operator set, or a name
            that is no text.
    """
    for name in _names(model):
        if not isinstance(name, str):  # protobuf hands out bytes where they are no UTF-8
            msg = f"the name {name!r} is no UTF-8 text: the file is damaged"
            raise GraphError(msg)
    for tensor in tensors.tensors_of(model.graph):
        tensors.check_tensor(tensor, f"graph {model.graph.name!r}")
    domains = {opset.domain for opset in model.opset_import}
    standard = any(node.domain in _DEFAULT_DOMAINS for node in model.graph.node)
    if standard and not domains & set(_DEFAULT_DOMAINS):
        msg = "the model imports no operator set of the default domain (opset_import)"
        raise GraphError(msg)


def topological_order(graph: GraphProto, outer: frozenset[str] = frozenset()) -> list[int]:
    """Return node indices such that producers come first; sub-graphs are checked on the way.

    Args:
        graph: A graph or the body of an If, Loop or Scan.
        outer: Tensors of the enclosing graphs that the body may read.

    Raises:
        GraphError: an input that nothing produces, a tensor produced twice, or a cycle.
    """
    given = _given(graph)
    _check_twins(graph)
    producer: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for output in filter(None, node.output):
            if output in producer or output in given:
                msg = f"tensor {output!r} is produced twice, the second time by a {node.op_type}"
                raise GraphError(msg)
            producer[output] = index
    scope = outer | given | producer.keys()
    for value in graph.output:
        if value.name not in scope:
            msg = f"graph output {value.name!r} is produced by nothing"
            raise GraphError(msg)
    for node in graph.node:
        for body in bodies(node):
            topological_order(body, scope)
    return _sorted(graph, producer, scope)


def _check_twins(graph: GraphProto) -> None:
    """Check that no two inputs and no two stored tensors share a name; one of each may."""
    stored = [tensor.name for tensor in graph.initializer]
    stored += [sparse.values.name for sparse in graph.sparse_initializer]
    given = [value.name for value in graph.input]
    for names, what in ((given, "an input"), (stored, "stored")):
        twin = next((name for name, count in Counter(names).items() if count > 1), None)
        if twin is not None:
            msg = f"tensor {twin!r} is {what} twice: which one counts is not defined"
            raise GraphError(msg)


def _sorted(graph: GraphProto, producer: dict[str, int], scope: frozenset[str]) -> list[int]:
    waits: list[int] = []
    feeds: list[list[int]] = [[] for _ in graph.node]
    for index, node in enumerate(graph.node):
        sources: set[int] = set()
        for name in reads(node):
            if name not in scope:
                msg = f"a {node.op_type} reads tensor {name!r}, which nothing produces"
                raise GraphError(msg)
            if name in producer:
                sources.add(producer[name])
        waits.append(len(sources))
        for source in sources:
            feeds[source].append(index)
    # A heap keeps the file's order wherever that order is already topological.
    ready = [index for index, count in enumerate(waits) if not count]
    order: list[int] = []
    while ready:
        order.append(heapq.heappop(ready))
        for fed in feeds[order[-1]]:
            waits[fed] -= 1
            if not waits[fed]:
                heapq.heappush(ready, fed)
    if len(order) < len(waits):
        stuck = next(index for index, count in enumerate(waits) if count)
        node = graph.node[stuck]
        msg = f"the graph is cyclic: {node.op_type} {node.name!r} depends on its own output"
        raise GraphError(msg)
    return order


def reads(node: onnx.NodeProto) -> list[str]:
    """Return the tensors that a node reads, those its sub-graphs take from outside too."""
    found = [name for name in node.input if name]
    for body in bodies(node):
        inner = _given(body).union(*(child.output for child in body.node))
        for child in body.node:
            found += [name for name in reads(child) if name not in inner]
        found += [value.name for value in body.output if value.name not in inner]
    return found


def _given(graph: GraphProto) -> set[str]:
    """Return the tensors of a graph that no node of it produces."""
    given = {value.name for value in graph.input} | {init.name for init in graph.initializer}
    return given | {sparse.values.name for sparse in graph.sparse_initializer}


def bodies(node: onnx.NodeProto) -> list[GraphProto]:
    """Return the sub-graphs of an If, Loop or Scan, empty for any other node."""
    found: list[GraphProto] = []
    for attribute in node.attribute:
        if attribute.HasField("g"):
            found.append(attribute.g)
        found += attribute.graphs
    return found


def _locate_external(model: ModelProto, folder: Path) -> None:
    """Check the span of every external tensor and note the folder in it."""
    sizes: dict[str, int] = {}
    for tensor in tensors.tensors_of(model.graph):
        if not tensors.is_external(tensor):
            continue
        location = tensors.external_entry(tensor, "location") or ""
        if location not in sizes:
            sizes[location] = tensors.confined(folder, location).stat().st_size
        tensors.external_span(tensor, sizes[location])
        note_folder(tensor, folder)


def note_folder(tensor: TensorProto, folder: Path) -> None:
    """Write into an external tensor where its file lies, whatever the file itself said."""
    kept = [entry for entry in tensor.external_data if entry.key != tensors.BASEPATH]
    table = [(entry.key, entry.value) for entry in kept]
    del tensor.external_data[:]
    for key, value in [*table, (tensors.BASEPATH, str(folder.resolve()))]:
        tensor.external_data.add(key=key, value=value)
