"""Ask a loaded engine what it consists of."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from trt_qat.engine import compat, machine
from trt_qat.engine.evidence import evidence, layer_info
from trt_qat.engine.evidence.build_log import BuildLog
from trt_qat.engine.loading import load_engine
from trt_qat.engine.log import make_log
from trt_qat.errors import InputError


def inspect_plan(plan: bytes, path: Path, build_log: BuildLog | None = None) -> dict[str, Any]:
    """Return the content of ``layers.json`` for a trusted plan.

    Args:
        plan: its bytes.
        path: where it lies or will lie, for the record and for errors.
        build_log: of its build, if that has just ended.

    Raises:
        BackendUnavailable: TensorRT or a GPU is missing.
        InputError: TensorRT does not load it.
    """
    trt = compat.load()
    engine = load_engine(trt, plan, path, make_log(trt))
    unread = None
    try:
        info = layer_info.parse(inspector_text(trt, engine), f"{path} (inspector)")
    except InputError as error:
        if build_log is None:
            raise
        # What took minutes to build is not thrown away because its description cannot be read.
        info, unread = layer_info.LayerInfo("unknown", detailed=False), str(error)
    gpu = machine.gpus()[0][0]
    source = {
        "file": path.name,
        "sha256": hashlib.sha256(plan).hexdigest(),
        "bytes": len(plan),
        "tensorrt": trt.__version__,
        "gpu": gpu.name,
        "sm": list(gpu.sm),
        "context_bytes": compat.device_memory_bytes(engine),
    }
    document = evidence.document(info, build_log, source)
    return document if unread is None else document | {"warnings": [unread, *document["warnings"]]}


def inspector_text(trt: Any, engine: Any) -> str:
    """Return what the inspector of a loaded engine says, as JSON."""
    inspector = engine.create_engine_inspector()
    context = _context_at_opt(trt, engine)
    if context is not None:
        inspector.execution_context = context
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _context_at_opt(trt: Any, engine: Any) -> Any | None:
    """Return a context with the shapes that kernels were timed at.

    Without one the inspector hides the formats of dynamic tensors; that of 8.6.0 hides them with
    one too, and `evidence.census` says how many layers do not tell. A stripped plan has none.
    """
    context = engine.create_execution_context()
    if context is None:
        return None
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        if is_input and any(size < 0 for size in engine.get_tensor_shape(name)):
            _, opt, _ = engine.get_tensor_profile_shape(name, 0)
            context.set_input_shape(name, opt)
    return context
