"""Whether TensorRT for RTX is here: what needs it is skipped with its own sentence elsewhere."""

from __future__ import annotations

import pytest

from trt_qat.engine.aot import load

needs_rtx = pytest.mark.skipif(load.why_not() is not None, reason=load.why_not() or "")
