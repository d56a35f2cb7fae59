"""Nests of tensors and of arrays, and the way from one to the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trt_qat.data.nest import mapped


def as_tensors(value: Any) -> Any:
    """``value`` with every numpy array in it, at any depth, as a tensor."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, Mapping):
        return {key: as_tensors(member) for key, member in value.items()}
    if isinstance(value, (tuple, list)):
        members = [as_tensors(member) for member in value]
        if hasattr(value, "_fields"):  # a named tuple takes its members one by one
            return type(value)(*members)
        return members if isinstance(value, list) else tuple(members)
    return value


def as_arrays(value: Any) -> Any:
    """``value`` with every tensor in it as a numpy array of the CPU, floats as float32."""
    return mapped(value, _array)


def _array(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).numpy()


def samples_in(batch: Any) -> int:
    """Number of samples in a batch: the first size of its first tensor."""
    return next((len(tensor) for tensor in tensors_in(batch) if tensor.ndim), 1)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in a nest of tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (Mapping, tuple, list)):
        for member in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(member)
