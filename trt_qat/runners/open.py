"""One protocol for whatever can run a model: onnxruntime here, torch and TensorRT in theirs.

A runner is named by a SPEC: ``ort:FILE.onnx``, ``ort-int8:FILE.onnx``,
``ort-cuda:FILE.onnx``, ``torch:module:function``, ``torch-compile:module:function``,
``polygraphy:OUTPUTS.json``.
``ort`` runs Q and DQ as plain float operators, which is what the graph says and the reference for
parity. ``ort-int8`` lets onnxruntime fuse what it can into integer kernels, which is little of a
network quantized for TensorRT: it fuses a Conv whose output goes straight to the Q, and with
symmetric scales the ReLU or Add between them stays. What it fuses may saturate at 16 bits on x86
without VNNI, and so differ although the graph is right. It is no model of TensorRT's speed.
"""

from __future__ import annotations

import importlib
from operator import attrgetter
from typing import Any

from trt_qat.backends import lacks
from trt_qat.errors import InputError, nearest
from trt_qat.runners.bare import spec_of
from trt_qat.runners.protocol import Runner

SPEC_HELP = (
    "a SPEC is FILE.onnx or ort:FILE.onnx, ort-int8:FILE.onnx, ort-cuda:FILE.onnx, "
    "torch:module:function, torch-compile:module:function, FILE.engine or trt:FILE.engine "
    "(trt-graph: as a CUDA graph, trt-trusted: "
    "where no sidecar vouches for it), trt-rtx:FILE.engine of TensorRT for RTX (trt-rtx-trusted "
    "likewise) or polygraphy:OUTPUTS.json, what polygraphy run "
    "--save-outputs wrote"
)
_ORT, _TORCH, _TRT, _RTX = (
    "trt_qat.runners.ort:OrtRunner",
    "trt_qat.qat.runner:TorchRunner.from_import_path",
    "trt_qat.engine.execution.runner:TrtRunner",
    "trt_qat.engine.execution.rtx_runner:RtxRunner",
)
OPENERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ort": (_ORT, {}),
    "ort-int8": (_ORT, {"fused": True}),
    "ort-cuda": (_ORT, {"fused": True, "provider": "CUDAExecutionProvider"}),
    "torch": (_TORCH, {}),
    "torch-compile": (_TORCH, {"compiled": True}),
    "trt": (_TRT, {}),
    "trt-graph": (_TRT, {"graph": True}),
    "trt-trusted": (_TRT, {"trust": True}),
    "trt-rtx": (_RTX, {}),
    "trt-rtx-trusted": (_RTX, {"trust": True}),
    "polygraphy": ("trt_qat.runners.polygraphy:SavedRunner", {}),
}
"""Kind of a SPEC -> what opens it, and how: the one place that names rooms above this one."""


def runner(spec: str) -> Runner:
    """Return the runner that a SPEC names.

    Raises:
        InputError: no such kind of SPEC.
        BackendUnavailable: its backend is not on this machine.
    """
    kind, _, rest = spec_of(spec).partition(":")
    if kind not in OPENERS or not rest:
        close = nearest(kind, tuple(OPENERS))[0]
        message = f"{spec!r} is no SPEC (nearest kind: {close!r}); {SPEC_HELP}"
        raise InputError(message)
    path, options = OPENERS[kind]
    module, _, name = path.partition(":")
    try:
        opener = attrgetter(name)(importlib.import_module(module))
    except ModuleNotFoundError as error:
        if path != _TORCH:
            raise
        what = f"{kind}:{rest}"
        raise lacks(what, error.name, "train") from error
    opened: Runner = opener(rest, **options)
    return opened
