"""torch's composite functions, run through instead of recorded as one operation.

``F.multi_head_attention_forward`` hands itself whole to whatever overrides torch's functions, so
its projections would be no layers of a traced graph and no operation of a watched run.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch.nn.functional as F
from torch import nn

from trt_qat.qat.placement.proxy import replaced

COMPOSITES = (
    nn.MultiheadAttention,
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoder,
    nn.TransformerDecoderLayer,
)
"""Modules of torch that are made of layers, and run through them where nothing is fused."""


def _dtype(given: Any) -> Any:
    return None if given is None else given.dtype


@contextlib.contextmanager
def masks_by_proxy() -> Iterator[None]:
    """Let torch's transformer layers take a mask that is a proxy.

    They ask its type by a private function, which takes nothing else than a tensor for one and has
    no public name; where a version of torch lacks it there is nothing to replace.
    """
    names = {"_none_or_dtype": _dtype} if hasattr(F, "_none_or_dtype") else {}
    with replaced(F, names):
        yield


def _run_through(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return torch's own code of a function without the question whether something overrides it."""
    assert isinstance(function, types.FunctionType)
    names = function.__globals__ | {
        "has_torch_function": lambda given: False,
        "_none_or_dtype": _dtype,
    }
    copy = types.FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


_CODE = {F.multi_head_attention_forward: _run_through(F.multi_head_attention_forward)}


def code_of(function: Any) -> Callable[..., Any] | None:
    """Return what to call in place of a composite function, None for any other."""
    return _CODE.get(function) if isinstance(function, types.FunctionType) else None
