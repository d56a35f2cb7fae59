"""A second device on the CPU: tensors are told apart as on a machine with CUDA, and refuse alike.

Inside the block ``with pretended_cuda():`` tensors that are moved to ``cuda``, or are made there or
from others there, say that they lie there. An operation on tensors of both sides raises what torch
raises, as does taking one of them for an array. Nothing is computed elsewhere, so this finds what
mixes devices and not what a GPU computes otherwise.

A device is told by the storage, which views, parameters and ``detach`` share. Of storages that C++
made unseen, as gradients, nothing is known, and they mix with all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef as _StorageWeakRef
from torch.overrides import TorchFunctionMode, resolve_name

StorageWeakRef: Any = _StorageWeakRef  # torch leaves it untyped
CPU, CUDA = "cpu", "cuda"

MIXED = "Expected all tensors to be on the same device, but found at least two devices, {}"
ARRAY = (
    "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host "
    "memory first."
)
INDICES = "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
GENERATOR = "Expected a 'cuda' device type for generator but found 'cpu'"

_MOVES = {"to", "cuda", "cpu", "type_as"}
_ACROSS = {
    *("copy_", "data.__set__", "grad.__set__", "set_", "expand_as", "view_as", "reshape_as"),
    *("is_same_size", "_has_compatible_shallow_copy_type", "result_type", "can_cast", "backward"),
    *("is_set_to", "__deepcopy__", "requires_grad.__set__", "_is_alias_of", "is_"),
}
"""That take tensors of both sides: copies, and what looks at shapes and types alone."""
_JOINS = {"cat", "concat", "concatenate", "stack", "vstack", "hstack"}
"""That take not even a number from the other side."""
_OF_DATA = {"tensor", "as_tensor", "asarray"}
_ARRAYS = {"numpy", "__array__"}
_INPLACE = re.compile(r"[a-z]\w*[^_]_|__i(?!nvert)[a-z]+__")


@contextmanager
def pretended_cuda() -> Iterator[PretendedCuda]:
    """Pretend a second device inside the block."""
    device, from_numpy = PretendedCuda(), torch.from_numpy
    engine: Any = torch.autograd
    run_backward = engine._engine_run_backward

    def seen(array: Any) -> Any:  # no mode is asked for it
        return device.marked(from_numpy(array), CPU)

    def run(*args: Any, **kwargs: Any) -> Any:  # what an autograd.Function does is seen as well
        with device:
            return run_backward(*args, **kwargs)

    with (
        mock.patch.object(torch.export, "export", device.unseen(torch.export.export)),
        mock.patch.object(torch.onnx, "export", device.unseen(torch.onnx.export)),
        mock.patch.object(torch, "from_numpy", seen),
        mock.patch.object(torch.cuda, "current_device", return_value=0),
        mock.patch.object(engine, "_engine_run_backward", run),
        device,
    ):
        yield device


class PretendedCuda(TorchFunctionMode):
    """Tells which storages lie on the pretended device, and refuses what mixes them."""

    def __init__(self) -> None:
        super().__init__()
        # A weak reference keeps the address of a storage from being given to another.
        self._lies: dict[int, tuple[Any, str | None]] = {}
        self._asleep = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if self._asleep:
            return func(*args, **given)
        name = _name(func)
        first = args[0] if args else None
        if name in _ANSWERS and isinstance(first, Tensor):
            return _ANSWERS[name](func, self.side(first) == CUDA, first)
        if name in _ARRAYS and self.side(first) == CUDA and not given.get("force"):
            raise TypeError(ARRAY)
        if name in _MOVES and isinstance(first, Tensor):
            return self._moved(name, func, args, given)
        if name not in _ACROSS:
            self._check(name, args, given)
        asked = _device_in(given) or (CPU if _is_copy_of_data(name, first, given) else None)
        if asked is not None:
            given["device"] = torch.device(CPU)
        side = asked or self._side_of_all(args, given)
        if side is None and not any(isinstance(t, Tensor) for t in _leaves((args, given))):
            side = CPU  # a factory
        if side == CUDA and isinstance(given.get("generator"), torch.Generator):
            raise RuntimeError(GENERATOR)
        return self.marked(func(*args, **given), side)

    def unseen(self, export: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of torch's tracing that takes all for the CPU's, as it is.

        Where a device is told to what torch traces in C++, the process ends.
        """

        def exported(*args: Any, **kwargs: Any) -> Any:
            before, self._asleep = self._asleep, True
            try:
                return export(*args, **kwargs)
            finally:
                self._asleep = before

        return exported

    def side(self, value: Any) -> str | None:
        """Return where a tensor lies; None: nobody knows, or it is no tensor of the CPU."""
        storage = _storage(value)
        if storage is None:
            return None
        held = self._lies.get(storage._cdata)
        return None if held is None else held[1]

    def marked(self, result: Any, side: str | None) -> Any:
        """Note where new storages among results lie."""
        for tensor in _leaves(result):
            storage = _storage(tensor)
            if None not in (side, storage) and storage._cdata not in self._lies:
                self._lies[storage._cdata] = (StorageWeakRef(storage), side)
        return result

    def _side_of_all(self, args: Any, kwargs: Any) -> str | None:
        sides = {self.side(tensor) for tensor in _leaves((args, kwargs))} - {None}
        return CUDA if CUDA in sides else next(iter(sides), None)

    def _moved(self, name: str, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        value, others = args[0], [*args[1:], *kwargs.values()]
        here = self.side(value)
        asked = {"cuda": CUDA, "cpu": CPU}.get(name) or next(
            filter(None, map(_named, others)), None
        )
        like = next((self.side(other) for other in others if isinstance(other, Tensor)), None)
        there = asked or like or here
        if name in ("cuda", "cpu"):
            result = value
        else:
            plain = [torch.device(CPU) if _named(arg) else arg for arg in args[1:]]
            result = func(value, *plain, **{k: CPU if _named(v) else v for k, v in kwargs.items()})
        elsewhere = self.side(result) not in (None, there) or _shares(result, value)
        if there not in (None, here) and elsewhere:
            result = result.clone()
        return self.marked(result, there)

    def _check(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse operands of both sides.

        Raises:
            RuntimeError: as torch's.
        """
        if name in ("__getitem__", "__setitem__"):
            self._check_index(name, *args)
            return
        tensors = [t for t in _leaves((args, kwargs)) if isinstance(t, Tensor)]
        sides = [self.side(tensor) for tensor in tensors]
        if CUDA not in sides or CPU not in sides:
            return
        # A number of the CPU goes along, other than as what is written.
        numbers = [t.dim() == 0 and side == CPU for t, side in zip(tensors, sides, strict=True)]
        written = bool(_INPLACE.fullmatch(name)) and sides[0] == CPU
        if (
            written
            or name in _JOINS
            or not all(number or side != CPU for number, side in zip(numbers, sides, strict=True))
        ):
            raise RuntimeError(MIXED.format(f"cuda:0 and cpu! ({name})"))

    def _check_index(self, name: str, value: Tensor, index: Any, put: Any = None) -> None:
        """Indices of the CPU are taken by both sides, and slices take values of either."""
        indices = [t for t in _leaves(index) if isinstance(t, Tensor)]
        here, other = self.side(value), self.side(put)
        if here == CPU and any(self.side(each) == CUDA for each in indices):
            raise RuntimeError(INDICES)
        numbers = not isinstance(put, Tensor) or not put.dim()
        if indices and not numbers and {here, other} == {CPU, CUDA}:
            raise RuntimeError(MIXED.format(f"cuda:0 and cpu! ({name})"))


def _name(func: Callable[..., Any]) -> str:
    """Return the name of a function of torch; of a property with what is done to it."""
    name = getattr(func, "__name__", "")
    if name in ("__get__", "__set__"):
        owner = getattr(func, "__self__", None)
        return f"{getattr(owner, '__name__', '')}.{name}"
    return name or str(resolve_name(func))


def _is_copy_of_data(name: str, first: Any, kwargs: Mapping[str, Any]) -> bool:
    """Tell whether numbers in a list become a tensor, which is on the CPU wherever they lay."""
    data = kwargs.get("data", first)
    return name in _OF_DATA and not isinstance(data, Tensor)


def _device_in(kwargs: Mapping[str, Any]) -> str | None:
    return _named(kwargs.get("device"))


def _named(value: Any) -> str | None:
    """Return the side that a device is, however it is given."""
    if isinstance(value, torch.device):
        value = value.type
    if not isinstance(value, str):
        return None
    kind = value.partition(":")[0]
    return kind if kind in (CPU, CUDA) else None


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list)):
        for member in value:
            yield from _leaves(member)
    elif isinstance(value, dict):
        for member in value.values():
            yield from _leaves(member)
    else:
        yield value


def _storage(value: Any) -> Any:
    """Return the storage of a tensor that has one on the CPU; of those of torch's tracing none."""
    if type(value) not in (Tensor, nn.Parameter) or torch._is_functional_tensor(value):
        return None
    if value.is_sparse or value.device.type != CPU:
        return None
    try:
        return value.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None


def _shares(one: Tensor, other: Tensor) -> bool:
    left, right = _storage(one), _storage(other)
    return left is not None and right is not None and left._cdata == right._cdata


def _answer(there: Any) -> Callable[[Any, bool, Tensor], Any]:
    return lambda func, on_cuda, tensor: there if on_cuda else func(tensor)


_ANSWERS = {
    "device.__get__": _answer(torch.device(CUDA, 0)),
    "is_cuda.__get__": _answer(True),
    "is_cpu.__get__": _answer(False),
    "get_device": _answer(0),
}
