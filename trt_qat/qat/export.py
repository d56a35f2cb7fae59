"""QDQ ONNX by torch's dynamo exporter, shaped the way TensorRT reads it best."""

from __future__ import annotations

import contextlib
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import nn
from torch.utils import _pytree as pytree

from trt_qat import artifact
from trt_qat.errors import ModelError, RecipeError
from trt_qat.qat import foreign, onnx_passes
from trt_qat.qat.deploy import deployed
from trt_qat.qat.dynamic_batch import by_bytecode, fixed_inputs, plain_names
from trt_qat.qat.finite import not_finite
from trt_qat.qat.foreign_run import refuse_operators
from trt_qat.qat.inputs import inputs_of
from trt_qat.qat.io_names import name_io
from trt_qat.qat.placement.calls import evaluated, tensors_of
from trt_qat.qat.quantize import formats_in, is_quantized, quantized
from trt_qat.qat.quantizers.formats import FP8, INT4, NVFP4
from trt_qat.qat.quick_decompositions import decomposed_where_needed
from trt_qat.qat.quick_rewriting import asked_where_it_matters, signatures_once
from trt_qat.qat.quick_tracing import no_collection, no_metadata
from trt_qat.qat.reports import report_of
from trt_qat.qat.state import unwrapped
from trt_qat.qat.tensors import as_arrays
from trt_qat.qat.translations import TRANSLATIONS
from trt_qat.qat.verify import resized, verify
from trt_qat.qat.written import save
from trt_qat.recipe.given import spec_of, with_keys
from trt_qat.recipe.specs import ExportSpec

EXPORTER_OPSET = 18  # the oldest that the dynamo exporter writes; older ones are converted to
LAST_OPSET = 21
"""From 23 on the exporter writes Attention, which TensorRT has dedicated kernels for or none."""
TRACED_SAMPLES = 2
READ_SINCE = {FP8: "9", INT4: "10", NVFP4: "10.8"}
"""The first TensorRT that takes a format."""
_TALKERS = ("torch.onnx", "torch.fx.experimental.symbolic_shapes")


def export(
    model: nn.Module,
    example_inputs: Any,
    path: str | Path,
    *,
    spec: ExportSpec | Mapping[str, Any] | None = None,
    **keys: Any,
) -> Path:
    """Write ``model`` as QDQ ONNX.

    Activations carry QuantizeLinear/DequantizeLinear pairs with zero point 0, weights are codes
    behind a DequantizeLinear (per channel but for ConvTranspose), BatchNorm is folded (its factor
    goes into the weight scale, so codes stay what they were trained to be; behind an INT8
    ConvTranspose it stays), and nodes are named by module paths. The batch dimension is dynamic.

    Before the file takes its name it is compared with the model at every quantization point, on the
    example and on another batch size (`trt_qat.qat.verify`). Beside it lies ``<path>.json``, which
    says what was compared.

    Args:
        model: from `quantize`, fine-tuned or not; unchanged afterwards.
        example_inputs: one batch: a tensor or array, a tuple, a dict by argument name, or
            ``(inputs, targets)``.
        path: of the ONNX file; written to a temporary name and renamed.
        spec: opset, form of the weights (rounded to INT8 in either), dynamic batch, comparison,
            names; a spec or a dict of its keys.
        keys: of the spec, such as ``output_names=["mask"]``; they go before it.

    Returns:
        ``path``.

    Raises:
        RecipeError: the form of the weights is none that their format has.
        ModelError: the model is not quantized, a weight or scale is no number, or torch cannot
            export it; the message says why.
        ExportMismatch: the file breaks a promise made above, or does not compute what the model
            does; the message names the first tensor. A file that was there before is untouched.
    """
    start = time.perf_counter()
    spec = with_keys(spec_of(ExportSpec, spec, "export"), keys, "export")
    model, target = _exportable(model, example_inputs), Path(path)
    spec = _raised(model, spec)
    example_inputs = inputs_of(model, example_inputs)
    inputs, exported = traced(model, example_inputs, spec, lambda: deployed(model, spec.weights))
    graph = onnx_passes.clean(exported, opset=spec.opset)
    name_io(graph, as_arrays(evaluated(model, inputs)), spec)
    onnx_passes.check(graph, weights=spec.weights, formats=formats_in(model))
    found: dict[str, Any] = {"checked": False, "why": "export.verify is false"}

    def check(written: Path) -> None:
        if spec.verify:
            dynamic = spec.dynamic_batch
            verified = verify(model, written, inputs, name=target.name, dynamic=dynamic)
            found.update(verified.to_dict())
            del found["why"]

    save(graph, target, check)
    _seal(target, spec, found, time.perf_counter() - start)
    return target


def _seal(target: Path, spec: ExportSpec, found: dict[str, Any], seconds: float) -> None:
    document = spec.model_dump(mode="json")
    artifact.write_sidecar(
        target,
        fingerprint=artifact.fingerprint(export=document, versions=artifact.versions()),
        parents={},
        spec={"export": document},
        metrics={"bytes": target.stat().st_size, "verification": found},
        seconds=seconds,
    )


def _raised(model: nn.Module, spec: ExportSpec) -> ExportSpec:
    """Return the spec with the opset that the model's formats need, and say so in the report."""
    formats = formats_in(model)
    if spec.weights == "fp32" and any(kind.blocked for kind in formats):
        message = (
            "export.weights: 'fp32' has no form for weights that are quantized alone, which ONNX "
            "stores as codes; leave the key out"
        )
        raise RecipeError(message)
    highest = max(formats, key=lambda kind: kind.opset)
    if highest.opset <= spec.opset:
        return spec
    line = (
        f"export: opset {highest.opset} in the place of {spec.opset}: ONNX has no "
        f"{highest.title} before, and TensorRT reads both from {READ_SINCE[highest]} on"
    )
    report = report_of(model)
    if line not in report.warnings:
        report.warnings.append(line)
    return spec.model_copy(update={"opset": highest.opset})


def _exportable(model: nn.Module, example: Any) -> nn.Module:
    """Return the model without wrappers: quantized by us, and of numbers."""
    model = unwrapped(model)
    if not is_quantized(model):
        foreign.refuse(model, (), "export")
        refuse_operators(lambda: evaluated(model, inputs_of(model, example)), "export")
    quantized(model)
    if (wrong := not_finite(model)) is not None:
        message = f"export: {wrong}; a step of training that diverged leaves such, train again"
        raise ModelError(message)
    return model


def traced(
    model: nn.Module,
    example_inputs: Any,
    spec: ExportSpec,
    form: Callable[[], contextlib.AbstractContextManager[Any]],
) -> tuple[Any, ir.Model]:
    """Return the inputs that the model was traced with, and its graph; ``form`` it has meanwhile.

    Two samples do for a dynamic batch, and are compared faster. A model that takes multiples of a
    number only is traced with all.
    """
    batches = [example_inputs]
    sizes = {len(tensor) for tensor in tensors_of(example_inputs) if tensor.dim()}
    if spec.dynamic_batch and len(sizes) == 1 and sizes != {TRACED_SAMPLES}:
        # torch.export takes a batch of 1 for a constant.
        batches = [resized(example_inputs, TRACED_SAMPLES)]
        batches += [example_inputs] if max(sizes) > TRACED_SAMPLES else []
    for last, inputs in zip((*[False] * (len(batches) - 1), True), batches, strict=True):
        try:
            with form(), torch.no_grad():
                return inputs, _run_exporter(model, inputs, spec)
        except ModelError:
            if last:
                raise
    raise AssertionError


def _run_exporter(model: nn.Module, example_inputs: Any, spec: ExportSpec) -> ir.Model:
    args, kwargs = _as_arguments(example_inputs)
    batch = torch.export.Dim("batch", min=1)
    shapes: Any = None
    if spec.dynamic_batch:
        shapes = {k: _batch_shape(v, batch) for k, v in kwargs.items()} if kwargs else tuple(
            _batch_shape(a, batch) for a in args
        )  # fmt: skip
    graph = _to_onnx(model, args, kwargs, shapes, spec)
    fixed = fixed_inputs(graph) if spec.dynamic_batch else {}
    if fixed:
        with _quiet():
            program = by_bytecode(model, args, kwargs, shapes, next(iter(fixed.values())))
        graph = _to_onnx(program, args, kwargs, shapes, spec)
    plain_names(graph)  # torch.onnx takes to the strict mode by itself, too
    return graph


def _to_onnx(
    model: nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    shapes: Any,
    spec: ExportSpec,
) -> ir.Model:
    try:
        with _quiet(), _quickly():
            program = torch.onnx.export(
                model,
                args,
                kwargs=kwargs or None,
                dynamo=True,
                opset_version=min(max(spec.opset, EXPORTER_OPSET), LAST_OPSET),
                dynamic_shapes=shapes,
                custom_translation_table=TRANSLATIONS,
                verbose=False,
            )
    except Exception as error:
        detail = _last_cause(error)
        message = (
            f"export: torch.onnx cannot export {type(model).__name__}: {detail}; "
            "export the traceable part, or write the control flow with torch.where or torch.cond"
        )
        raise ModelError(message) from error
    assert program is not None
    return program.model


@contextlib.contextmanager
def _quickly() -> Iterator[None]:
    """Let torch's exporter skip what changes nothing in the file."""
    with contextlib.ExitStack() as stack:
        for quick in (
            no_collection,
            no_metadata,
            asked_where_it_matters,
            signatures_once,
            decomposed_where_needed,
        ):
            stack.enter_context(quick())
        yield


def _last_cause(error: BaseException) -> str:
    """Return the first line of the innermost cause, which names the operation at fault."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _as_arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example_inputs, dict):
        return (), dict(example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


def _batch_shape(value: Any, batch: Any) -> Any:
    """Return the dynamic shapes of one argument, in its structure."""
    return pytree.tree_map(
        lambda leaf: {0: batch} if isinstance(leaf, torch.Tensor) and leaf.dim() else None, value
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep progress lines, whole graphs and warnings of the exporter away: errors say enough."""
    loggers = [logging.getLogger(name) for name in _TALKERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), open(os.devnull, "w") as sink:  # noqa: PTH123
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            try:
                yield
            finally:
                for logger, level in zip(loggers, levels, strict=True):
                    logger.setLevel(level)
