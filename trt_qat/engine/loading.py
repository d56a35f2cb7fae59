"""From a plan's bytes to an engine, or one sentence on why not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from trt_qat.engine import log as logs
from trt_qat.engine.sticky import created
from trt_qat.errors import InputError

# What TensorRT 8.6 to 11 log, and what it means. The first that fits is said.
_REASONS = (
    (
        r"incompatible device|compute capability|generated on .* device|expecting compute",
        "it was built for another GPU; build it again on this one, or with "
        "build.hardware_compatibility = 'ampere_plus'",
    ),
    (
        r"not compatible with this version|Version tag does not match|expecting library version|"
        r"stdVersionRead|serializationVersion",
        "another version of TensorRT built it; build it again with this one, or with "
        "build.version_compatible = true",
    ),
    (
        r"host code|engine_host_code_allowed|lean runtime",
        "it is version-compatible and holds host code, which this TensorRT cannot load",
    ),
    (
        r"[Mm]agic [Tt]ag|magicTag|[Cc]hecksum|corrupt|stdArchiveReader|Serialization assertion",
        "it is no engine, or its bytes are damaged; build it again",
    ),
    (
        r"getPluginCreator|[Cc]annot find plugin|plugin creator|IPluginCreator",
        "it uses a plugin that is not loaded here",
    ),
    (r"[Oo]ut ?[Oo]f ?[Mm]emory|cudaMalloc|insufficient memory", "the GPU's memory is full"),
)


def why_not_loaded(path: Path, lines: list[str], version: str) -> str:
    """Return why TensorRT did not load an engine, from what it logged."""
    said = logs.errors(lines)
    text = "\n".join(said)
    told = said[0] if said else "it said nothing"
    for pattern, meaning in _REASONS:
        if re.search(pattern, text):
            return f"{path}: TensorRT {version} does not load it: {meaning} ({told})"
    return f"{path}: TensorRT {version} does not load it: {told}"


def load_engine(trt: Any, plan: bytes, path: Path, log: Any) -> Any:
    """Return the engine of a plan that was judged by `trust.read_plan`.

    Raises:
        BackendUnavailable: no context of CUDA works in this process.
        InputError: TensorRT does not take it: another GPU or version, or damaged.
    """
    trt.init_libnvinfer_plugins(log, "")
    runtime = created(trt, log, lambda: trt.Runtime(log))
    # The plan is trusted by now, and a version-compatible one loads in no other way.
    runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise InputError(why_not_loaded(path, log.lines, trt.__version__))
    return engine
