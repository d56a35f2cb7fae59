"""Reading ``TensorProto``: how large it claims to be, what it holds, where its bytes lie."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from trt_qat.errors import GraphError

Array = NDArray[Any]

# Key under which `load_graph` notes the folder of external data; onnx's own external_data_helper
# names and reads it too, so it survives a copy of the model.
BASEPATH = "basepath"

_FLOAT_DATA = (TensorProto.FLOAT, TensorProto.COMPLEX64)
_DOUBLE_DATA = (TensorProto.DOUBLE, TensorProto.COMPLEX128)
_UINT64_DATA = (TensorProto.UINT32, TensorProto.UINT64)

# Bits of one element. Numbers, not names, from FLOAT8 on: onnx 1.16 lacks the later ones.
_BITS: Mapping[int, int] = {
    TensorProto.FLOAT: 32,
    TensorProto.UINT8: 8,
    TensorProto.INT8: 8,
    TensorProto.UINT16: 16,
    TensorProto.INT16: 16,
    TensorProto.INT32: 32,
    TensorProto.INT64: 64,
    TensorProto.BOOL: 8,
    TensorProto.FLOAT16: 16,
    TensorProto.DOUBLE: 64,
    TensorProto.UINT32: 32,
    TensorProto.UINT64: 64,
    TensorProto.COMPLEX64: 64,
    TensorProto.COMPLEX128: 128,
    TensorProto.BFLOAT16: 16,
    17: 8,  # FLOAT8E4M3FN
    18: 8,  # FLOAT8E4M3FNUZ
    19: 8,  # FLOAT8E5M2
    20: 8,  # FLOAT8E5M2FNUZ
    21: 4,  # UINT4
    22: 4,  # INT4
    23: 4,  # FLOAT4E2M1
    24: 8,  # FLOAT8E8M0
    25: 2,  # UINT2
    26: 2,  # INT2
}
_PLAIN: Mapping[int, str] = {
    TensorProto.FLOAT: "<f4",
    TensorProto.UINT8: "u1",
    TensorProto.INT8: "i1",
    TensorProto.INT32: "<i4",
    TensorProto.INT64: "<i8",
    TensorProto.FLOAT16: "<f2",
    TensorProto.DOUBLE: "<f8",
}


def type_name(data_type: int) -> str:
    """Return the lower-case ONNX name of an element type, ``int8`` or ``type 99``."""
    try:
        return str(TensorProto.DataType.Name(data_type)).lower()
    except ValueError:
        return f"type {data_type}"


def element_bits(data_type: int) -> int:
    """Return the bits of one element; 0 for strings and unknown types."""
    return _BITS.get(data_type, 0)


def elements(tensor: TensorProto) -> int:
    """Return how many elements the tensor's dimensions claim."""
    return math.prod(tensor.dims)


def size_bytes(tensor: TensorProto) -> int:
    """Return how many bytes the tensor's dimensions and element type claim."""
    return (elements(tensor) * element_bits(tensor.data_type) + 7) // 8


def is_external(tensor: TensorProto) -> bool:
    """Tell whether the values lie in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def external_entry(tensor: TensorProto, key: str) -> str | None:
    """Return one entry of the tensor's external-data table (the last of its name)."""
    found = [entry.value for entry in tensor.external_data if entry.key == key]
    return found[-1] if found else None


def check_tensor(tensor: TensorProto, where: str) -> None:
    """Check that what a tensor claims and what it holds agree; external bytes are not looked at.

    Raises:
        GraphError: unknown element type, negative dimension, or a length that differs.
    """
    name = f"tensor {tensor.name!r} of {where}"
    if any(dim < 0 for dim in tensor.dims):
        msg = f"{name} has a negative dimension: {list(tensor.dims)}; export the model again"
        raise GraphError(msg)
    if tensor.data_type == TensorProto.STRING:
        return
    if not element_bits(tensor.data_type):
        msg = f"{name} has element type {tensor.data_type}, which this onnx does not know"
        raise GraphError(msg)
    if is_external(tensor):
        return
    held, unit, want = _held(tensor)
    if held != want:
        msg = (
            f"{name} claims {type_name(tensor.data_type)}{list(tensor.dims)}, {want} {unit}, "
            f"and holds {held}: the file is damaged"
        )
        raise GraphError(msg)


def _held(tensor: TensorProto) -> tuple[int, str, int]:
    """Return what is stored, its unit, and what the dimensions ask for in that unit."""
    count, kind = elements(tensor), tensor.data_type
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data), "bytes", size_bytes(tensor)
    if kind in _FLOAT_DATA:
        return len(tensor.float_data), "values", count * (2 if kind != TensorProto.FLOAT else 1)
    if kind in _DOUBLE_DATA:
        return len(tensor.double_data), "values", count * (2 if kind != TensorProto.DOUBLE else 1)
    if kind == TensorProto.INT64:
        return len(tensor.int64_data), "values", count
    if kind in _UINT64_DATA:
        return len(tensor.uint64_data), "values", count
    # Types under 8 bits are packed into bytes, one byte to an int32 entry.
    packed = 8 // min(8, element_bits(kind))
    return len(tensor.int32_data), "values", -(-count // packed)


def confined(folder: Path, location: str) -> Path:
    """Return the file that an external-data ``location`` names, if it lies in ``folder``.

    Raises:
        GraphError: an absolute path, a path that leaves the folder (links resolved), no such file.
    """
    pure = PurePosixPath(location)
    absolute = pure.is_absolute() or PureWindowsPath(location).is_absolute()
    if not location or absolute or ".." in pure.parts or "\0" in location:
        msg = (
            f"external data at {location!r} points outside the model's folder; "
            "only a relative path inside it is read"
        )
        raise GraphError(msg)
    try:
        root, path = folder.resolve(), (folder / location).resolve()
        if not path.is_relative_to(root):
            msg = (
                f"external data at {location!r} points outside the model's folder through a link; "
                "put the file itself beside the model"
            )
            raise GraphError(msg)
        if not path.is_file():
            msg = f"external data file {location!r} is not beside the model; copy it there"
            raise GraphError(msg)
    except (OSError, RuntimeError, ValueError) as error:  # name too long, link loop, odd bytes
        msg = f"external data at {location!r} cannot be opened: {error}"
        raise GraphError(msg) from error
    return path


def external_span(tensor: TensorProto, file_bytes: int) -> tuple[int, int]:
    """Return ``(offset, length)`` in bytes of a tensor in its file of ``file_bytes``.

    Raises:
        GraphError: the table is not numeric, or the span is not what the dimensions claim, or it
            reaches beyond the file.
    """
    want = size_bytes(tensor)
    try:
        offset = int(external_entry(tensor, "offset") or 0)
        length = int(external_entry(tensor, "length") or want)
    except ValueError as error:
        msg = f"tensor {tensor.name!r}: offset or length of its external data is no number"
        raise GraphError(msg) from error
    if length != want:
        msg = (
            f"tensor {tensor.name!r} claims {type_name(tensor.data_type)}{list(tensor.dims)}, "
            f"{want} bytes, but its external data has {length}"
        )
        raise GraphError(msg)
    if offset < 0 or offset + length > file_bytes:
        msg = (
            f"tensor {tensor.name!r} needs bytes {offset} to {offset + length} of external data "
            f"file {external_entry(tensor, 'location')!r}, which has {file_bytes}: it is truncated"
        )
        raise GraphError(msg)
    return offset, length


def read_array(tensor: TensorProto, folder: Path | None = None) -> Array:
    """Return a tensor's values as an array of its dimensions; external bytes are read now.

    FP8, BF16 and 4-bit types come as the ``ml_dtypes`` that `onnx.numpy_helper` gives.

    Args:
        tensor: An initialiser or the value of a Constant.
        folder: Where external data lies; default: what `load_graph` noted.

    Raises:
        GraphError: what it claims and what it holds differ, or its external data cannot be read.
    """
    raw: bytes | None = None
    if is_external(tensor):
        raw = external_bytes(tensor, folder)
    elif tensor.HasField("raw_data"):
        raw = tensor.raw_data
    plain = _PLAIN.get(tensor.data_type)
    try:
        if raw is not None and plain is not None:
            return np.frombuffer(raw, dtype=plain).reshape(tuple(tensor.dims))
        if raw is not None:
            inline = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=raw)
            return np.asarray(numpy_helper.to_array(inline))
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        msg = f"tensor {tensor.name!r} cannot be read: {error}"
        raise GraphError(msg) from error


def external_bytes(tensor: TensorProto, folder: Path | None = None) -> bytes:
    """Return the bytes of an external tensor, as `read_array` finds them.

    Raises:
        GraphError: they cannot be read.
    """
    noted = external_entry(tensor, BASEPATH)
    if folder is None and noted is None:
        msg = (
            f"tensor {tensor.name!r} has external data and the model's folder is not known; "
            "load the file with trt_qat.graph.load.load_graph"
        )
        raise GraphError(msg)
    root = folder if folder is not None else Path(str(noted))
    path = confined(root, external_entry(tensor, "location") or "")
    try:
        with path.open("rb") as file:
            offset, length = external_span(tensor, path.stat().st_size)
            file.seek(offset)
            data = file.read(length)
    except OSError as error:
        msg = f"external data of tensor {tensor.name!r} cannot be read: {error}"
        raise GraphError(msg) from error
    if len(data) != length:
        msg = f"external data of tensor {tensor.name!r} ended after {len(data)} bytes of {length}"
        raise GraphError(msg)
    return data


def tensors_of(graph: onnx.GraphProto) -> list[TensorProto]:
    """Return every tensor that a graph stores, its nodes' attributes and sub-graphs included."""
    found = list(graph.initializer)
    for sparse in graph.sparse_initializer:
        found += [sparse.values, sparse.indices]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                found.append(attribute.t)
            found += attribute.tensors
            bodies = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
            for body in bodies:
                found += tensors_of(body)
    return found
