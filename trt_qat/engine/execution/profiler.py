"""How long every layer of an engine takes, as TensorRT itself reports it."""

from __future__ import annotations

from typing import Any


def make_layer_profiler(trt: Any) -> Any:
    """Return a profiler that sums up the milliseconds of every layer in its ``times_ms``.

    TensorRT calls it once a layer; a layer that runs several times is told of several times.
    """

    class _Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times_ms: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times_ms[layer_name] = self.times_ms.get(layer_name, 0.0) + ms

    return _Profiler()
