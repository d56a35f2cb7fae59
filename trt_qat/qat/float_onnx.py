"""The float model as ONNX: what the quantized one is compared and timed against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from trt_qat.data import nest
from trt_qat.errors import ExportMismatch
from trt_qat.qat import onnx_passes
from trt_qat.qat.deploy import masks_applied
from trt_qat.qat.export import traced
from trt_qat.qat.inputs import inputs_of
from trt_qat.qat.io_names import name_io
from trt_qat.qat.placement.calls import evaluated, mode
from trt_qat.qat.state import unwrapped
from trt_qat.qat.tensors import as_arrays
from trt_qat.qat.written import save
from trt_qat.recipe.specs import ExportSpec
from trt_qat.runners.ort import OrtRunner

TOLERANCE = 1e-3
"""Of an output's largest magnitude: other orders of the same float32 sums."""


def export_float(
    model: nn.Module, example_inputs: Any, path: str | Path, *, spec: ExportSpec | None = None
) -> Path:
    """Write a float model as ONNX, after onnxruntime has given the model's outputs on the example.

    Args:
        model: float; masks of 2:4 are applied. Unchanged afterwards.
        example_inputs: one batch, as `trt_qat.qat.export.export` takes it.
        path: of the ONNX file.
        spec: opset, dynamic batch and names.

    Returns:
        ``path``.

    Raises:
        ModelError: torch cannot export it.
        ExportMismatch: the file does not compute what the model does.
    """
    spec, target, model = spec or ExportSpec(), Path(path), unwrapped(model)
    given = inputs_of(model, example_inputs)
    inputs, graph = traced(model, given, spec, lambda: _evaluated_form(model))
    graph = onnx_passes.clean(graph, opset=spec.opset)
    wanted = as_arrays(evaluated(model, inputs))
    name_io(graph, wanted, spec)

    def check(written: Path) -> None:
        if spec.verify:
            _hold_against(written, as_arrays(inputs), wanted, target.name)

    save(graph, target, check)
    return target


@contextmanager
def _evaluated_form(model: nn.Module) -> Iterator[None]:
    """Let a model be in evaluation mode, its masked weights constants of their own."""
    with mode(model, training=False), masks_applied(model):
        yield


def _hold_against(path: Path, inputs: Any, wanted: Any, name: str) -> None:
    with OrtRunner(path) as runner:
        found = runner.infer(nest.feed_of(inputs, list(runner.inputs)))
    pairs = zip(found.items(), (leaf for _, leaf in nest.leaves(wanted)), strict=False)
    for (output, array), right in pairs:
        apart = float(np.abs(array.astype(np.float64) - right).max(initial=0.0))
        allowed = TOLERANCE * max(float(np.abs(right).max(initial=0.0)), 1e-6)
        if not apart <= allowed:
            message = (
                f"export: {name} does not compute what the float model does: output {output!r} is "
                f"off by {apart:.3g}, allowed {allowed:.3g}; export.verify = false writes it "
                "unchecked"
            )
            raise ExportMismatch(message)
