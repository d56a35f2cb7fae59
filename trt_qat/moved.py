"""Modules that lay elsewhere before: scripts of users that import them go on working."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "trt_qat.specs": "trt_qat.recipe.specs",
    "trt_qat.calibration": "trt_qat.data.calibration",
    "trt_qat.ranges": "trt_qat.data.ranges",
    "trt_qat.metrics": "trt_qat.measure.metrics",
    "trt_qat.graph.preflight": "trt_qat.lint.preflight",
    "trt_qat.graph.fix": "trt_qat.mend.fix",
    "trt_qat.engine.layer_info": "trt_qat.engine.evidence.layer_info",
    "trt_qat.engine.oneline": "trt_qat.engine.evidence.oneline",
    "trt_qat.engine.implicit": "trt_qat.engine.build.implicit",
}
"""Old name -> the module that bears it now; nothing in the package uses an old one."""


class Moved:
    """An importer that answers an old name with the module itself, not with a copy."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for an old name, None for any other."""
        return ModuleSpec(name, self) if name in MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module under its new name."""
        module = importlib.import_module(MOVED[spec.name])
        self._own = module.__spec__  # importing writes the old name's there
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module as it is."""
        module.__spec__ = self._own


def install() -> None:
    """Let old names be imported, once."""
    if not any(isinstance(finder, Moved) for finder in sys.meta_path):
        sys.meta_path.append(Moved())
