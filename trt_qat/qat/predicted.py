"""What preflight says of a model in memory: the fate and the floor of its layers on a target."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from trt_qat.graph.load import load_graph
from trt_qat.lint.fate import LayerFate
from trt_qat.lint.preflight import PreflightReport, preflight
from trt_qat.lint.roofline import Row
from trt_qat.mend.precision import Half
from trt_qat.mend.retype import to_half
from trt_qat.qat import ranks
from trt_qat.qat.export import export
from trt_qat.qat.float_onnx import export_float
from trt_qat.qat.quantize import is_quantized
from trt_qat.recipe.specs import ExportSpec
from trt_qat.targets import Target


@dataclass(frozen=True)
class Predicted:
    """What preflight says of a module's layer, in all of its calls.

    Attributes:
        fates: one a call.
        rows: of the roofline, likewise; none without a target that is rated.
    """

    fates: tuple[LayerFate, ...]
    rows: tuple[Row, ...]


def predict(
    model: nn.Module,
    example: Any,
    target: str | Target | None,
    *,
    batch: int = 1,
    remainder: Literal["fp16", "fp32"] = "fp32",
) -> PreflightReport:
    """Return preflight's report on a model, as it would be exported.

    Args:
        model: quantized, with or without masks, or float. Unchanged afterwards.
        example: one batch of inputs.
        target: a device of `trt_qat.targets`; None: what depends on one is left out.
        batch: samples at once that shapes are of, where the first dimension is dynamic.
        remainder: what is float computes in it and has its bytes. The report of a run is of fp32,
            which is what its ONNX says; an engine has fp16 unless its recipe says otherwise.

    Raises:
        ModelError: torch cannot export it.
        InputError: an unknown target.
    """
    spec = ExportSpec(verify=False)
    with tempfile.TemporaryDirectory() as folder, ranks.alone():
        path = Path(folder) / "model.onnx"
        (export if is_quantized(model) else export_float)(model, example, path, spec=spec)
        shapes, written = _shapes(path, batch), load_graph(path)
    if remainder == "fp16":
        written, _ = to_half(written, Half(half_io=True), (), given=False)
    return preflight(written, target, shapes=shapes)


def _shapes(path: Path, batch: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of inputs whose first dimension alone is dynamic, at a batch."""
    found = {}
    for value in load_graph(path).graph.input:
        first, *rest = value.type.tensor_type.shape.dim or [None]
        if first is not None and not first.dim_value and all(dim.dim_value for dim in rest):
            found[value.name] = (batch, *(dim.dim_value for dim in rest))
    return found


def by_module(report: PreflightReport, paths: Iterable[str]) -> dict[str, Predicted]:
    """Return what a report says of modules; those whose nodes it does not name are left out.

    Args:
        report: of `predict`: nodes have the paths of modules, later calls of one a number behind.
        paths: of the modules.
    """
    rows = {} if report.roofline is None else {row.layer: row for row in report.roofline.rows}
    known, found = set(paths), dict[str, Predicted]()
    for fate in report.layers:
        path = fate.name
        if path not in known and path.rpartition(".")[2].isdigit():
            path = path.rpartition(".")[0]
        if path in known:
            before = found.get(path, Predicted((), ()))
            more = (rows[fate.name],) if fate.name in rows else ()
            found[path] = Predicted((*before.fates, fate), (*before.rows, *more))
    return found
