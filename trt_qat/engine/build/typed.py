"""The ONNX that a strongly typed build reads: what is not INT8, cast to FP16 beforehand.

From TensorRT 10 on a strongly typed network computes in the types that the graph says, so an FP32
export runs in FP32 wherever it is not INT8. TensorRT 8.6 has a flag for this instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trt_qat.engine.log import Say
from trt_qat.mend.fix import Half, fix
from trt_qat.runners.protocol import Feed

RULE = "QDQ201"


def typed_path(engine: Path) -> Path:
    """Return where the cast ONNX of an engine lies."""
    return engine.with_name(engine.stem + ".typed.onnx")


def typed_onnx(
    onnx: Path,
    out: Path,
    keep: Sequence[str],
    feeds: Sequence[Feed] = (),
    say: Say = lambda line: None,
) -> Path:
    """Write the ONNX with its float remainder in FP16; inputs and outputs stay as they are.

    Args:
        onnx: the model.
        out: where the copy goes.
        keep: node names, patterns of them, or operators that stay FP32.
        feeds: real inputs to measure ranges on; none: random ones, with more headroom.
        say: is told that it begins.

    Raises:
        GraphError: FP16 cannot hold the model, or it exceeds 2 GiB.
        InputError: a pattern of ``keep`` matches nothing.
    """
    say("casting the float remainder to FP16")
    out.parent.mkdir(parents=True, exist_ok=True)
    fix(onnx, out, select=(RULE,), half=Half(keep=tuple(keep)), feeds=[dict(f) for f in feeds])
    return out
