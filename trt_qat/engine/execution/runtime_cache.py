"""The runtime cache of TensorRT for RTX: kernels that it compiled when a plan was first run.

NVIDIA, "Working with Runtime Cache": it checks the cache against GPU, driver and version itself and
takes none that does not fit. Nothing depends on it but the time of the first run, so a cache that
cannot be read or written is done without.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from trt_qat.artifact import atomic_path

NONE = "none"
"""For `RtxRunner`'s ``cache``: keep none."""


def default_path(gpu: str, sm: tuple[int, int], rtx: str, digest: str) -> Path:
    """Return where the cache of a plan lies, for a GPU and a version of TensorRT for RTX.

    Args:
        gpu: slug of its name.
        sm: compute capability.
        rtx: version.
        digest: SHA-256 of the plan.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "trt-qat" / "runtime"
    return folder / f"{gpu}-sm{sm[0]}{sm[1]}-rtx{rtx}-{digest[:16]}.cache"


class RuntimeCache:
    """A cache in a file, or in memory alone.

    Args:
        path: of the file; None: what is compiled is forgotten with the runner.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.taken = False
        self._read = b""
        self._cache: Any = None

    def attach(self, config: Any) -> None:
        """Give an ``IRuntimeConfig`` the cache, filled from the file where that fits.

        Args:
            config: of the engine; a CUDA context must be current.
        """
        if self.path is None:
            return
        self._cache = config.create_runtime_cache()
        with contextlib.suppress(OSError):
            self._read = self.path.read_bytes()
        self.taken = bool(self._read) and bool(self._cache.deserialize(self._read))
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write what was compiled, if it is more than what was read; once."""
        cache, self._cache = self._cache, None
        if cache is None or self.path is None:
            return
        content = bytes(cache.serialize())
        if not content or content == self._read:
            return
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.path) as temporary:
                temporary.write_bytes(content)
