"""What an engine was built from and for, as the sidecar of a build or of a run tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trt_qat.artifact import read_sidecar
from trt_qat.errors import InputError
from trt_qat.recipe.specs import BuildSpec

RTX = "rtx"
"""Among the metrics of a sidecar: TensorRT for RTX compiled the engine, in this version."""
IMPLICIT = "implicit_int8"
"""Among the metrics of a sidecar: TensorRT calibrated the float network itself."""


@dataclass(frozen=True)
class Origin:
    """Where an engine comes from.

    Attributes:
        parents: digest by name, of the ONNX that was given and of the one that TensorRT read.
        spec: options of the build.
        tensorrt: version that built it; None: not told.
        sm: compute capability of the GPU that it was built on; None: not told.
        implicit: INT8 by TensorRT's own calibration, on batches that are not kept.
        rtx: version of TensorRT for RTX that compiled it; None: TensorRT built it.
        capabilities: members of its ``ComputeCapability`` that it was compiled for; none: every GPU
            from 8.0 on.
    """

    parents: Mapping[str, str]
    spec: BuildSpec
    tensorrt: str | None
    sm: tuple[int, ...] | None
    implicit: bool = False
    rtx: str | None = None
    capabilities: tuple[str, ...] = ()

    def check_rebuildable(self, engine: Path) -> None:
        """Check that its spec and its ONNX make this engine again.

        Raises:
            InputError: they would make another: without its calibration it is no INT8 engine.
        """
        if self.implicit:
            message = (
                f"{engine}: cannot be built again: TensorRT calibrated it itself (implicit INT8), "
                "on batches that are not kept; its ONNX alone makes an engine without INT8"
            )
            raise InputError(message)


def origin_of(engine: Path) -> Origin | None:
    """Return where an engine comes from; None without a sidecar.

    Raises:
        InputError: the sidecar is of something else than an engine.
    """
    sidecar = read_sidecar(engine)
    if sidecar is None:
        return None
    # A run describes the stage: its tables, and its metrics under the stage's name.
    options: Any = sidecar.spec.get("build", sidecar.spec)
    source: Any = sidecar.metrics.get("engine", {}).get("source", sidecar.metrics)
    try:
        spec = BuildSpec.model_validate(options)
    except ValidationError as error:
        message = (
            f"{engine}: its sidecar holds no options of a build ({error.error_count()} of them are "
            "not known); it is of another version of trt-qat or of another file. Build it again"
        )
        raise InputError(message) from error
    sm = source.get("sm")
    return Origin(
        parents=sidecar.parents,
        spec=spec,
        tensorrt=source.get("tensorrt"),
        sm=None if sm is None else tuple(sm),
        implicit=bool(source.get(IMPLICIT)),
        rtx=source.get(RTX),
        capabilities=tuple(source.get("compute_capabilities") or ()),
    )
