"""The recorded engines: what TensorRT made of each network, layer by layer, with times."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from onnx import ModelProto

from tests.recorded.mobilenet_v2 import mobilenet_v2
from tests.recorded.resnet18 import resnet18
from tests.recorded.resnet50 import resnet50
from tests.recorded.yolov3 import yolov3
from trt_qat.engine.evidence import evidence, layer_info

DATA = Path(__file__).parents[1] / "recordings" / "engines"


@dataclass(frozen=True)
class Recorded:
    """One engine that others built.

    Attributes:
        name: File below ``tests/recordings/engines``.
        network: Makes an ONNX with the same layers and Q/DQ.
        target: Device of `trt_qat.targets` that it ran on; None: no such one.
    """

    name: str
    network: Callable[[], ModelProto]
    target: str | None

    @property
    def path(self) -> Path:
        """The inspector's layers, with ``Source`` and ``Times`` beside them."""
        return DATA / f"{self.name}.json"

    def document(self) -> dict[str, Any]:
        """Return the file as it is."""
        read: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        return read

    def layers(self) -> dict[str, Any]:
        """Return the engine as ``trt-qat inspect`` reads it.

        TensorRT 8 tells no ONNX node in a layer but names it after what it fused, the parameter of
        the Conv first: that is what our networks name their Conv.
        """
        found = evidence.document(layer_info.parse(self.path.read_text(), self.name), None, {})
        for entry in found["layers"]:
            parts = entry["name"].split(" + ")
            entry["onnx"] = [part.removesuffix(".weight") for part in parts]
        return found

    def times(self) -> dict[str, float]:
        """Return the mean time of each layer in microseconds; empty where none was published."""
        return {name: 1000 * ms for name, ms in self.document()["Times"].items()}


ENGINES = (
    Recorded("resnet18-qat", resnet18, "a100"),
    Recorded("resnet18-qat-residual", partial(resnet18, quantized_shortcut=True), "a100"),
    Recorded(
        "resnet18-qat-residual-qgap",
        partial(resnet18, quantized_shortcut=True, quantized_pool=True),
        "a100",
    ),
    Recorded("resnet50-keras-qat", resnet50, None),
    Recorded("mobilenet-v2-qat", mobilenet_v2, None),
    Recorded("mobilenet-v2-residuals-qat", partial(mobilenet_v2, quantized_shortcut=True), None),
    Recorded("yolov3-resnet18-qat", yolov3, None),
)
