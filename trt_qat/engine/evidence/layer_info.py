"""What an engine consists of, in one schema, whichever TensorRT described it.

The inspector of TensorRT 8.6 and 10 gives each tensor one ``Format/Datatype``; that of 11 parts it
in two and lists ``I/O Tensors`` where there were ``Bindings`` ("Migrating IEngineInspector Usage",
TensorRT documentation). Both come as JSON or as text. An engine built without detailed verbosity
tells layer names only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from trt_qat.engine.evidence import json_text, oneline
from trt_qat.engine.evidence.tactics import (
    compute_type,
    is_sparse,
    multiplies,
    names_kernel,
    precision_of,
    product_type,
    purpose,
)
from trt_qat.errors import InputError

SCHEMA = "trt-qat layers 1"
INSPECTORS = ("combined", "split")
_INDICES = (None, "int32", "int64", "bool")
FLOATS = ("fp32", "fp16", "bf16", "fp64")
BUILD_LOG = "none: a builder's log"
PROFILE = "none: times of trtexec --exportProfile"
METADATA = "none: what a run of trtexec was asked for and measured"
PLAN_HEADER = "none: a plan's header"
_PROFILE = re.compile(r" ?\[profile (\d+)\]")
# Entries are parted by a record separator in JSON; printed logs lose it.
_ONNX_NAME = re.compile(r"\[ONNX Layer: (.*?)\](?=\x1e|\x1f|\[ONNX Layer:|$)")


@dataclass(frozen=True)
class Layer:
    """One layer of an engine: a kernel, or several that TensorRT runs as one.

    Attributes:
        name: as the engine gives it, without the mark of its profile.
        type: ``LayerType``, such as CaskConvolution, Reformat, kgen.
        purpose: compute, reformat (a copy to another format or type), qdq (a Q or DQ that fused
            with nothing) or none (no kernel at all).
        tactic: name of the kernel, else its number; empty where none is told.
        precision: what it computes in (int8, fp16, tf32, fp32, ...); None: not known.
        precision_in: types of its inputs; None for one that the engine does not tell.
        precision_out: types of its outputs, likewise.
        formats_in: memory formats of its inputs, as the engine words them.
        formats_out: memory formats of its outputs.
        sparse: sparse (a 2:4 kernel), dense, n/a (nothing is multiplied) or unknown.
        sparse_weights: the weights hold 2:4; None where the engine does not tell.
        onnx: nodes of the ONNX that it computes.
        profile: optimization profile that it belongs to.
        bytes_read: of activations; None where the engine does not tell.
        bytes_written: of activations, likewise.
        epilogue_int8: what is generated behind its kernel ends in INT8; None: not told.
        time_ms: what it takes, by trtexec's profiler; None: not told.
    """

    name: str
    type: str = ""
    purpose: str = "compute"
    tactic: str = ""
    precision: str | None = None
    precision_in: tuple[str | None, ...] = ()
    precision_out: tuple[str | None, ...] = ()
    formats_in: tuple[str, ...] = ()
    formats_out: tuple[str, ...] = ()
    sparse: str = "unknown"
    sparse_weights: bool | None = None
    onnx: tuple[str, ...] = ()
    profile: int = 0
    bytes_read: int | None = None
    bytes_written: int | None = None
    epilogue_int8: bool | None = None
    time_ms: float | None = None


_ONLY_WHERE_TOLD = ("bytes_read", "bytes_written", "epilogue_int8", "time_ms")


@dataclass
class LayerInfo:
    """Everything the inspector tells.

    Attributes:
        inspector: combined (8.6 and 10: one ``Format/Datatype``), split (11), or none.
        detailed: whether more than names is known.
        layers: of all profiles, in the order of execution.
        inputs_outputs: name, and mode, type and shape where they are told.
    """

    inspector: str
    detailed: bool
    layers: list[Layer] = field(default_factory=list)
    inputs_outputs: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the part of ``layers.json`` that the inspector decides."""
        return {
            "inspector": self.inspector,
            "detailed": self.detailed,
            "inputs_outputs": self.inputs_outputs,
            "layers": [_plain(layer) for layer in self.layers],
        }


def _plain(layer: Layer) -> dict[str, Any]:
    """Return what JSON would give back: lists where there are tuples."""
    fields = asdict(layer)
    told = (key for key in fields if fields[key] is not None or key not in _ONLY_WHERE_TOLD)
    return {key: list(v) if isinstance(v := fields[key], tuple) else v for key in told}


def parse(text: str, source: str = "layer information") -> LayerInfo:
    """Read what an inspector or ``trtexec --exportLayerInfo`` wrote.

    Args:
        text: JSON, or the text form.
        source: named in errors.

    Raises:
        InputError: it is neither.
    """
    try:
        document = json_text.loads(text)
    except json.JSONDecodeError as error:
        document = oneline.parse(text)
        if document is None:
            message = (
                f"{source}: neither JSON nor the inspector's text ({error.msg}, line "
                f"{error.lineno}); write it with `trtexec --exportLayerInfo=FILE "
                "--profilingVerbosity=detailed`"
            )
            raise InputError(message) from error
    if not isinstance(document, dict) or not isinstance(document.get("Layers"), list):
        message = f"{source}: JSON without a list 'Layers', so not an inspector's"
        raise InputError(message)
    return from_document(document, source)


def from_document(document: Mapping[str, Any], source: str) -> LayerInfo:
    """Read the inspector's JSON once it is parsed.

    Raises:
        InputError: a layer is neither a name nor an object with a name.
    """
    entries = document["Layers"]
    io = document.get("I/O Tensors", document.get("Bindings", []))
    io = io if isinstance(io, list) else []
    detailed = any(isinstance(entry, dict) for entry in entries)
    split = "I/O Tensors" in document or any(_is_split(entry) for entry in entries)
    layers = [_layer(entry, at, source) for at, entry in enumerate(entries)]
    return LayerInfo(
        "split" if split else "combined", detailed, layers, [_io_tensor(tensor) for tensor in io]
    )


def from_schema(document: Mapping[str, Any], source: str) -> LayerInfo:
    """Read our own ``layers.json`` again.

    Raises:
        InputError: it was damaged.
    """
    try:
        layers = [_restored(entry) for entry in document["layers"]]
        return LayerInfo(
            document["inspector"], document["detailed"], layers, document["inputs_outputs"]
        )
    except (KeyError, TypeError, AttributeError) as error:
        message = f"{source}: not a whole layers.json ({error}); inspect the engine again"
        raise InputError(message) from error


def _restored(entry: dict[str, Any]) -> Layer:
    fields: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    return Layer(**fields)


def _is_split(entry: Any) -> bool:
    return isinstance(entry, dict) and any(
        {"Datatype", "DataType"} & set(tensor) for tensor in _tensors(entry, "Inputs", "Outputs")
    )


def _tensors(entry: Mapping[str, Any], *keys: str) -> list[Mapping[str, Any]]:
    told = [entry.get(key) for key in keys]
    lists = [each for each in told if isinstance(each, list)]  # damaged files hold anything
    return [tensor for each in lists for tensor in each if isinstance(tensor, Mapping)]


def _layer(entry: Any, at: int, source: str) -> Layer:
    if isinstance(entry, str):
        name, profile = without_profile(entry)
        return Layer(name, purpose=purpose(name, "", "", {}), profile=profile)
    if not isinstance(entry, Mapping) or not isinstance(entry.get("Name"), str):
        message = f"{source}: layer {at} is {str(entry)[:60]!r}, neither a name nor an object"
        raise InputError(message)
    name, profile = without_profile(entry["Name"])
    kind = str(entry.get("LayerType", ""))
    tactic = str(entry.get("TacticName") or entry.get("TacticValue") or "")
    inputs, outputs = _tensors(entry, "Inputs"), _tensors(entry, "Outputs")
    types_in = tuple(_type(tensor) for tensor in inputs)
    types_out = tuple(_type(tensor) for tensor in outputs)
    what = purpose(name, kind, tactic, entry)
    return Layer(
        name=name,
        type=kind,
        purpose=what,
        tactic=tactic,
        precision=_precision(entry, tactic, types_in, types_out) if what == "compute" else None,
        precision_in=types_in,
        precision_out=types_out,
        formats_in=tuple(_format(tensor) for tensor in inputs),
        formats_out=tuple(_format(tensor) for tensor in outputs),
        sparse=_sparse(kind, tactic, entry, what),
        sparse_weights=_sparse_weights(entry),
        onnx=onnx_names(entry),
        profile=profile,
    )


def onnx_names(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the nodes of the ONNX that a layer computes, from its metadata."""
    return tuple(_ONNX_NAME.findall(str(entry.get("Metadata", ""))))


def _precision(
    entry: Mapping[str, Any],
    tactic: str,
    types_in: tuple[str | None, ...],
    types_out: tuple[str | None, ...],
) -> str | None:
    kind = str(entry.get("LayerType", ""))
    if "Constants" in entry and not names_kernel(tactic) and multiplies(kind, tactic, entry):
        weight = next(iter(_tensors(entry, "Constants")), None)
        plain = weight is None or len(weight.get("Dimensions") or ()) < 2
        second = types_in[1] if len(types_in) > 1 else None
        by = second if plain or weight is None else _type(weight)
        return product_type(str(entry["Name"]), kind, types_in[:1], by, types_out)
    if kind == "Myelin" and not entry.get("TacticName"):  # a region of many operations
        told = {one for one in (*types_in, *types_out) if one not in _INDICES}
        return told.pop() if len(told) == 1 else None
    if kind == "kgen":  # generated: what it reads as codes it computes with as floats
        floats = [one for one in (*types_in, *types_out) if one in FLOATS]
        return floats[0] if floats else compute_type(tactic, types_in, types_out)
    return compute_type(tactic, types_in, types_out)


def without_profile(name: str) -> tuple[str, int]:
    """Return a layer's name without the mark of its optimization profile, and the profile."""
    match = _PROFILE.search(name)
    return (_PROFILE.sub("", name), int(match[1])) if match else (name, 0)


def _type(tensor: Mapping[str, Any]) -> str | None:
    # 11 prints Datatype; its migration guide writes DataType.
    for key in ("Datatype", "DataType", "Format/Datatype"):
        if key in tensor:
            return precision_of(str(tensor[key]))
    return None


def _format(tensor: Mapping[str, Any]) -> str:
    return str(tensor.get("Format", tensor.get("Format/Datatype", "")))


def _sparse_weights(entry: Mapping[str, Any]) -> bool | None:
    value = entry.get("HasSparseWeights", entry.get("AllowSparse"))
    return None if value is None else bool(value)


def _sparse(kind: str, tactic: str, entry: Mapping[str, Any], what: str) -> str:
    if is_sparse(tactic):
        return "sparse"
    if what != "compute" or not multiplies(kind, tactic, entry):
        return "n/a"
    # A tactic that is only a number tells nothing of its kernel, nor does one chosen at load.
    return "dense" if entry.get("TacticName") and names_kernel(tactic) else "unknown"


def _io_tensor(tensor: Any) -> dict[str, Any]:
    if not isinstance(tensor, Mapping):
        return {"name": str(tensor)}
    keys = {"IOMode": "mode", "DataType": "type", "Datatype": "type", "Dimensions": "shape"}
    known = {ours: tensor[theirs] for theirs, ours in keys.items() if theirs in tensor}
    return {"name": str(tensor.get("Name", ""))} | known


def of_profile(layers: Iterable[Layer], profile: int) -> list[Layer]:
    """Return the layers of one optimization profile."""
    return [layer for layer in layers if layer.profile == profile]
