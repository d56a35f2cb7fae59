"""Tracing without what its graph is not asked for."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

from torch import fx
from torch.fx.experimental import proxy_tensor  # nothing public leaves the older metadata out


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Leave garbage in cycles where it is meanwhile.

    A trace makes hundreds of objects a node, of which nearly all stay: the collector looks through
    them again and again, for a sixth of an export, and finds nothing.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextlib.contextmanager
def no_metadata() -> Iterator[None]:
    """Keep no stack and no strides with each node: the exporter reads ``val`` alone.

    A torch that knows them by other names keeps them.
    """
    wanted: list[tuple[Any, str, Any]] = [
        (getattr(fx, "config", None), "do_not_emit_stack_traces", True),
        (proxy_tensor, "_extract_tensor_metadata", lambda tensor: None),
    ]
    changed = [(owner, name, value) for owner, name, value in wanted if hasattr(owner, name)]
    before = [getattr(owner, name) for owner, name, _ in changed]
    for owner, name, value in changed:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for (owner, name, _), value in zip(changed, before, strict=True):
            setattr(owner, name, value)
