"""onnxscript's own functions, parsed once a process: it parses 500 of them for every export."""

from __future__ import annotations

import functools
from typing import Any


def parse_once() -> None:
    """Keep what onnxscript reads of its functions; a quarter of a small network's export."""
    from onnxscript.values import TracedOnnxFunction

    read: Any = vars(TracedOnnxFunction)["function_ir"]
    if not isinstance(read, property) or read.fget is None:  # of an earlier session
        return
    kept: Any = functools.cached_property(read.fget)
    kept.__set_name__(TracedOnnxFunction, "function_ir")
    TracedOnnxFunction.function_ir = kept  # type: ignore[method-assign]
