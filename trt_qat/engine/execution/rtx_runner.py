"""Run an engine of TensorRT for RTX on a GPU: the same runner, its own library and its cache."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from trt_qat.engine import machine
from trt_qat.engine.aot import load
from trt_qat.engine.evidence.trust import check_rtx_home
from trt_qat.engine.execution.runner import TrtRunner
from trt_qat.engine.execution.runtime_cache import NONE, RuntimeCache, default_path
from trt_qat.errors import BackendUnavailable, InputError

_MEANINGS = {
    "VERSION_MISMATCH": "another version of it made the plan; build it again",
    "UNSUPPORTED_CC": "the plan is not for this GPU; build it with its target, or without one",
    "OLD_CUDA_DRIVER": "the driver is too old for it",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old for it",
    "INSUFFICIENT_GPU_MEMORY": "the GPU's memory is too small for it",
    "MALFORMED_ENGINE": "it is no engine, or its bytes are damaged; build it again",
    "CUDA_ERROR": "CUDA fails; look at the driver with nvidia-smi",
}


class RtxRunner(TrtRunner):
    """TensorRT for RTX on the GPU; it compiles kernels in the first run, and keeps them in a cache.

    Args:
        path: the engine.
        trust: load it although no sidecar vouches for it.
        profile: optimization profile to use.
        cache: file of compiled kernels; None: one a plan, GPU and version; ``none``: none is kept.

    Raises:
        InputError: the engine is missing, not trusted, damaged, or of another GPU or version.
        BackendUnavailable: TensorRT for RTX, a GPU or a CUDA binding is missing.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        trust: bool = False,
        profile: int = 0,
        cache: str | Path | None = None,
    ) -> None:
        self._wanted = cache
        self.cache = RuntimeCache(None)
        super().__init__(path, trust=trust, profile=profile)
        self.name = "trt-rtx"

    def _module(self, plan: bytes) -> Any:
        if reason := load.why_not_run():
            raise BackendUnavailable(reason)
        trt = load.import_module()
        gpu = machine.gpus()[0][0]
        check_rtx_home(self.path, gpu.sm)
        digest = hashlib.sha256(plan).hexdigest()
        default = default_path(gpu.slug, gpu.sm, trt.__version__, digest)
        if self._wanted != NONE:
            self.cache = RuntimeCache(Path(self._wanted) if self._wanted else default)
        return trt

    def _load(self, plan: bytes) -> Any:
        if reason := why_invalid(self._trt, self._trt.Runtime(self._log), plan):
            message = (
                f"{self.path}: {load.TITLE} {self._trt.__version__} does not take it: {reason}"
            )
            raise InputError(message)
        return super()._load(plan)

    def _execution_context(self) -> Any:
        config = self._engine.create_runtime_config()
        self.cache.attach(config)
        return self._engine.create_execution_context(config)

    def close(self) -> None:
        """Keep the compiled kernels, and free the context, the engine and their memory."""
        try:
            self.cache.save()
        finally:
            super().close()


def why_invalid(trt: Any, runtime: Any, plan: bytes) -> str | None:
    """Return why a plan does not run on this machine, by its header; None: nothing is known.

    Args:
        trt: the module of TensorRT for RTX.
        runtime: a ``Runtime`` of it.
        plan: the engine's bytes.
    """
    validity, diagnostics = runtime.get_engine_validity(plan)
    if validity != trt.EngineValidity.INVALID:
        return None
    told = [
        meaning
        for name, meaning in _MEANINGS.items()
        if int(diagnostics) & int(getattr(trt.EngineInvalidityDiagnostics, name))
    ]
    return "; ".join(told) or None
