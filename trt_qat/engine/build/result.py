"""What a build leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class EngineArtifact:
    """An engine that was built.

    Attributes:
        path: of the plan.
        network: the ONNX that TensorRT read: the one given, or its copy with FP16 casts.
        layers: content of its ``layers.json``.
        seconds: that the build took.
        log: what TensorRT said meanwhile, as ``[W] text``.
    """

    path: Path
    network: Path
    layers: dict[str, Any]
    seconds: float
    log: tuple[str, ...] = field(default=(), repr=False)
