"""The compiler's own listing of a plan: kernels, the types they read and write, bytes they move.

It is one verbose message that begins ``Layers:``, in the inspector's text form, and the only layer
information that a machine without a GPU gets. Which kernel runs is decided on the GPU when the plan
is loaded, so neither tactics nor sparsity stand in it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from trt_qat.engine.evidence import layer_info
from trt_qat.engine.evidence.layer_info import Layer, LayerInfo, onnx_names
from trt_qat.engine.evidence.oneline import parse
from trt_qat.engine.evidence.tactics import precision_of, product_type

SCOPE = (
    "the schedule of TensorRT for RTX's compiler: which types every kernel reads and writes. It is "
    "not what TensorRT 8 to 11 build, whose Q/DQ optimizer this compiler bypasses, and it names "
    "neither sparse kernels nor tactics nor times: those are decided on the GPU at load"
)
"""What the evidence of such a build says, and what it does not."""

STUB = "__myelin_CASK_STUB"
_AHEAD = "Number of target compute capabilities:"
_MESSAGE = re.compile(r"^\[[VIWEF]\] ", re.M)
_LISTING = re.compile(r"^(?:\[V\] )?Layers:\s*$", re.M)
_MEMORY = {
    "scratch_bytes": re.compile(r"Max Scratch Memory: (\d+) bytes"),
    "activation_bytes": re.compile(r"Total Activation Memory: (\d+) bytes"),
    "weight_bytes": re.compile(r"Total Weights Memory: (\d+) bytes"),
}
_BITS = {
    "Float": 32, "Half": 16, "BFloat16": 16, "Int8": 8, "UInt8": 8, "FP8": 8, "Bool": 8,
    "Int32": 32, "Int64": 64, "Int4": 4, "FP4": 4,
}  # fmt: skip
_NO_KERNEL = frozenset({"signal", "wait", "jmp", "cjmp", "shape_call", "no_op"})
# A kernel of these kinds moves or generates and multiplies nothing.
_NO_PRODUCT = _NO_KERNEL | {
    "kgen", "maxpool", "avgpool", "memcpy", "reformat", "copy", "memset", "foreign",
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """A tensor that a kernel reads or writes: its type in the compiler's words, -1 where open."""

    name: str
    dtype: str
    dims: tuple[int, ...]

    @property
    def size(self) -> int | None:
        """Its bytes; None where a dimension is open or the type is not known."""
        if self.dtype not in _BITS or any(dim < 0 for dim in self.dims):
            return None
        return math.prod(self.dims) * _BITS[self.dtype] // 8


@dataclass(frozen=True)
class Kernel:
    """One line of the listing.

    Attributes:
        name: as the compiler calls it: after the ONNX node, or after the operations in it.
        type: correlation (a convolution), gemm, runtime_fusion, kgen (generated), ...
        inputs: activations that it reads.
        constants: weights and literals that it reads.
        outputs: activations that it writes.
        onnx: ONNX nodes that it computes.
    """

    name: str
    type: str
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    onnx: tuple[str, ...]

    @property
    def runs(self) -> bool:
        """Whether it is a kernel at all, and no signal or jump of the schedule."""
        return self.type not in _NO_KERNEL

    @property
    def multiplies(self) -> bool:
        """Whether it holds a convolution or a matrix product."""
        return self.type not in _NO_PRODUCT

    @property
    def weight(self) -> Tensor | None:
        """What the activation is multiplied by: a constant, else the second activation."""
        first = next(iter(self.constants), None)
        if first is not None and len(first.dims) > 1:
            return first
        return self.inputs[1] if len(self.inputs) > 1 else None

    @property
    def precision(self) -> str:
        """What it multiplies in: int8 where both sides arrive as codes, else the float type."""
        weight = self.weight
        found = product_type(
            self.name,
            self.type,
            [precision_of(tensor.dtype) for tensor in self.inputs[:1]],
            None if weight is None else precision_of(weight.dtype),
            [precision_of(tensor.dtype) for tensor in self.outputs],
        )
        return found or "unknown"


@dataclass(frozen=True)
class Listing:
    """What the log of a build lists.

    Attributes:
        text: the listing itself, in the inspector's text form.
        kernels: in the order of execution.
        memory: ``scratch_bytes``, ``activation_bytes``, ``weight_bytes`` where the log tells them.
        at_load: kernels are chosen when the plan is loaded, which is TensorRT for RTX's way.
    """

    text: str
    kernels: tuple[Kernel, ...]
    memory: Mapping[str, int]
    at_load: bool

    def info(self, sized: Listing | None = None) -> LayerInfo:
        """Return its layers in the schema of every engine.

        Args:
            sized: the same network with its shapes fixed, to take the bytes of layers from that are
                alike in both; a listing for a range of shapes tells no sizes.
        """
        found = layer_info.parse(self.text, "the compiler's listing")
        sizes = _sizes((sized or self).kernels)
        found.layers = [
            self._completed(layer, kernel, sizes)
            for layer, kernel in zip(found.layers, self.kernels, strict=True)
        ]
        return found

    def _completed(
        self, layer: Layer, kernel: Kernel, sizes: Mapping[Key, tuple[int | None, int | None]]
    ) -> Layer:
        read, written = sizes.get(_key(kernel), (None, None))
        product = kernel.runs and kernel.multiplies
        return replace(
            layer,
            tactic="unknown" if self.at_load else layer.tactic,
            bytes_read=read,
            bytes_written=written,
            epilogue_int8=ends_in_int8(self.kernels, kernel) if product else None,
        )

    def traffic(self) -> dict[str, int | None]:
        """Return kernels, and bytes of activations and constants that they move together.

        Bytes are None where shapes are open: a plan for a range of shapes tells no sizes.
        """
        running = [kernel for kernel in self.kernels if kernel.runs]
        return {
            "kernels": len(running),
            "bytes_read": total(t for kernel in running for t in kernel.inputs),
            "bytes_written": total(t for kernel in running for t in kernel.outputs),
            "bytes_constants": total(t for kernel in running for t in kernel.constants),
        }

    def by_type(self) -> dict[str, int]:
        """Return how many kernels of each kind there are."""
        return dict(Counter(kernel.type for kernel in self.kernels if kernel.runs))


def total(tensors: Iterable[Tensor]) -> int | None:
    """Return the bytes of some tensors together; None where one is not known."""
    sizes = [tensor.size for tensor in tensors]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def listing_of(log: str) -> Listing | None:
    """Read the log of a build, or a listing alone; None: it holds none."""
    begin = _LISTING.search(log)
    if begin is None:
        return None
    end = _MESSAGE.search(log, begin.end())
    text = "Layers:\n" + log[begin.end() + 1 : end.start() if end else len(log)]
    document = parse(text)
    if document is None:
        return None
    kernels = tuple(kernel_of(entry) for entry in document["Layers"])
    found = {key: pattern.findall(log) for key, pattern in _MEMORY.items()}
    memory = {key: int(values[-1]) for key, values in found.items() if values}
    return Listing(text, kernels, memory, STUB in text or _AHEAD in log)


Key = tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def _key(kernel: Kernel) -> Key:
    """Return what makes a kernel the same in two builds: its kind, its nodes, its types."""
    types = tuple(t.dtype for t in kernel.inputs), tuple(t.dtype for t in kernel.outputs)
    return kernel.type, tuple(sorted(kernel.onnx)), *types


def _sizes(kernels: Iterable[Kernel]) -> dict[Key, tuple[int | None, int | None]]:
    """Return bytes read and written by kernel, where one alone answers to its key."""
    listed = list(kernels)
    alike = Counter(map(_key, listed))
    return {
        _key(kernel): (total(kernel.inputs), total(kernel.outputs))
        for kernel in listed
        if alike[_key(kernel)] == 1 or not kernel.onnx
    }


def kernel_of(entry: Mapping[str, Any]) -> Kernel:
    """Return a layer of the parsed listing as a kernel."""
    return Kernel(
        name=str(entry["Name"]),
        type=str(entry.get("LayerType", "")),
        inputs=_tensors(entry, "Inputs"),
        constants=_tensors(entry, "Constants"),
        outputs=_tensors(entry, "Outputs"),
        onnx=onnx_names(entry),
    )


def _tensors(entry: Mapping[str, Any], key: str) -> tuple[Tensor, ...]:
    held = entry.get(key)
    given = (e for e in held if isinstance(e, Mapping)) if isinstance(held, list) else ()
    # A cut or damaged line lacks keys.
    return tuple(
        Tensor(str(each.get("Name", "")), str(each.get("Datatype", "")), _dims(each))
        for each in given
    )


def _dims(tensor: Mapping[str, Any]) -> tuple[int, ...]:
    told = tensor.get("Dimensions")
    return tuple(told) if isinstance(told, list) else (-1,)


def behind(kernels: Iterable[Kernel], kernel: Kernel) -> list[Kernel]:
    """Return the kernels that read what a kernel writes."""
    names = {tensor.name for tensor in kernel.outputs}
    return [k for k in kernels if k is not kernel and any(t.name in names for t in k.inputs)]


def ends_in_int8(kernels: Iterable[Kernel], kernel: Kernel) -> bool:
    """Tell whether a layer hands on codes: its kernel writes them, or those generated behind it."""
    if kernel.outputs and all(tensor.dtype == "Int8" for tensor in kernel.outputs):
        return True
    readers = behind(kernels, kernel)
    return bool(readers) and all(
        reader.type == "kgen" and all(tensor.dtype == "Int8" for tensor in reader.outputs)
        for reader in readers
    )
