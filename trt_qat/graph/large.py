"""Models whose weights are more than one message of protobuf holds: they stay in their files.

In memory such a weight is a tensor that names its file (`trt_qat.graph.load` has located it), so
copies of the model cost nothing. onnxruntime maps the files, and a model is written with its
weights beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from onnx import ModelProto, StringStringEntryProto, TensorProto, helper

from trt_qat.atomic import atomic_path, followed
from trt_qat.errors import GraphError
from trt_qat.graph import tensors

LARGE_BYTES = 1_500_000_000
"""Of weights, beyond which they go beside the file: protobuf ends at 2 GiB."""

SMALL_BYTES = 1 << 16
"""Weights up to this size stay inside it even then: scales, axes and shapes are read by all."""

_FLOAT_BYTES = 4

_FOLDER = "session.model_external_initializers_file_folder_path"
_ALIGNED = 4096  # of a page, so that weights can be mapped


def is_large(model: ModelProto) -> bool:
    """Tell whether the weights take more than `LARGE_BYTES` as FP32, which Q/DQ make of INT8."""
    return sum(map(tensors.elements, model.graph.initializer)) * _FLOAT_BYTES > LARGE_BYTES


def is_large_file(path: Path) -> bool:
    """Tell the same of a file; of one that cannot be read, which others will say, False."""
    try:
        return is_large(onnx.load(path, load_external_data=False))
    except Exception:  # of protobuf, onnx and the system, without a common class
        return False


def serialized(model: ModelProto) -> tuple[bytes, dict[str, str]]:
    """Return a model as onnxruntime loads it from memory, and session entries that go with it.

    Raises:
        GraphError: what is held in it exceeds protobuf's 2 GiB.
    """
    outside = [tensor for tensor in model.graph.initializer if tensors.is_external(tensor)]
    if not outside:
        return _bytes(model), {}
    copy = ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensors.is_external(tensor):
            kept = [entry for entry in tensor.external_data if entry.key != tensors.BASEPATH]
            table = [(entry.key, entry.value) for entry in kept]
            del tensor.external_data[:]
            for key, value in table:
                tensor.external_data.add(key=key, value=value)
    folder = tensors.external_entry(outside[0], tensors.BASEPATH) or ""
    return _bytes(copy), {_FOLDER: folder}


def _bytes(model: ModelProto) -> bytes:
    try:
        return bytes(model.SerializeToString())
    except (ValueError, MemoryError) as error:  # of protobuf, for what exceeds 2 GiB
        msg = f"the model cannot be held as one ONNX of 2 GiB at most: {error}"
        raise GraphError(msg) from error


def without_external(model: ModelProto) -> ModelProto:
    """Return a copy whose external weights are inputs, for what would want to read them."""
    copy = ModelProto()
    copy.CopyFrom(model)
    known = {value.name for value in copy.graph.input}
    for at in reversed(range(len(copy.graph.initializer))):
        tensor = copy.graph.initializer[at]
        if tensors.is_external(tensor):
            if tensor.name not in known:
                value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
                copy.graph.input.append(value)
            del copy.graph.initializer[at]
    return copy


def with_external(model: ModelProto, source: ModelProto) -> ModelProto:
    """Give a model, changed, those external weights of ``source`` that it has as inputs."""
    outside = {t.name: t for t in source.graph.initializer if tensors.is_external(t)}
    known = {value.name for value in source.graph.input}
    for at in reversed(range(len(model.graph.input))):
        name = model.graph.input[at].name
        if name in outside and name not in known:
            del model.graph.input[at]
    model.graph.initializer.extend(outside.values())
    return model


def write(model: ModelProto, path: Path) -> None:
    """Write a model whole or not at all; weights of more than `LARGE_BYTES` go beside it.

    The name of their file holds their digest, so that the rename of the graph is the one moment
    at which the new pair takes the place of an old one.

    Args:
        model: its external weights are located, or it has none; not changed.
        path: where it comes to lie.

    Raises:
        GraphError: external weights cannot be read.
        OSError: it cannot be written.
    """
    target = followed(path)  # weights lie beside the graph itself, not beside a link to it
    copy = ModelProto()
    copy.CopyFrom(model)
    stored = [t for t in copy.graph.initializer if tensors.size_bytes(t) > SMALL_BYTES]
    large = sum(map(tensors.size_bytes, copy.graph.initializer)) > LARGE_BYTES
    try:
        with contextlib.ExitStack() as stack:
            partial = stack.enter_context(atomic_path(path))
            if large:
                name = data_name(target, map(_raw, stored))
                with atomic_path(target.with_name(name)) as data:
                    _lay_out(stored, data, name)
            for tensor in () if large else copy.graph.initializer:
                if tensors.is_external(tensor):
                    hold(tensor)
            partial.write_bytes(_bytes(copy))
    finally:
        remove_data_of_others(target)


def hold(tensor: TensorProto) -> None:
    """Read the bytes of an external tensor into it.

    Raises:
        GraphError: they cannot be read.
    """
    tensor.raw_data = tensors.read_array(tensor).tobytes()
    del tensor.external_data[:]
    tensor.ClearField("data_location")


def data_name(target: Path, contents: Iterable[bytes]) -> str:
    """Return the name of the file for a graph's weights, which holds their digest."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return f"{target.name}.{digest.hexdigest()[:12]}.data"


def _lay_out(stored: Iterable[TensorProto], data: Path, name: str) -> None:
    """Write the bytes of tensors one behind the other, and let each say where its own lie."""
    with data.open("wb") as stream:
        for tensor in stored:
            content = _raw(tensor)
            stream.write(bytes(-stream.tell() % _ALIGNED))
            place = {"location": name, "offset": stream.tell(), "length": len(content)}
            stream.write(content)
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
                tensor.ClearField(field)
            tensor.ClearField("uint64_data")
            del tensor.external_data[:]
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))


def _raw(tensor: TensorProto) -> bytes:
    if tensor.HasField("raw_data") and not tensors.is_external(tensor):
        return bytes(tensor.raw_data)
    if tensors.is_external(tensor):
        return tensors.external_bytes(tensor)
    return bytes(onnx.numpy_helper.from_array(tensors.read_array(tensor)).raw_data)


def locations(model: ModelProto) -> Iterator[StringStringEntryProto]:
    """Yield the entries of a model's weights that name their files."""
    for tensor in model.graph.initializer:
        yield from (entry for entry in tensor.external_data if entry.key == "location")


def remove_data_of_others(target: Path) -> None:
    """Remove weights that no graph at ``target`` refers to, or not any more."""
    files = list(target.parent.glob(f"{target.name}.*.data"))
    known: set[str] = set()
    if files and target.is_file():
        known = {entry.value for entry in locations(onnx.load(target, load_external_data=False))}
    for path in files:
        if path.name not in known:
            path.unlink(missing_ok=True)
