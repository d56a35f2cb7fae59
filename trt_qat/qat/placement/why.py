"""Why a part of a model could not be traced, with the line of the user's code."""

from __future__ import annotations

import traceback
from pathlib import Path

from trt_qat.qat.placement.callsite import user_frame


def first_reason(error: BaseException) -> str:
    """Return the first line of an error's message, and where in the user's code it arose."""
    first = next(iter(str(error).splitlines()), "") or type(error).__name__
    where = None
    for frame, number in traceback.walk_tb(error.__traceback__):
        if user_frame(frame) is frame:
            where = f"{Path(frame.f_code.co_filename).name}:{number}"
    name = type(error).__name__
    text = first if name == "TraceError" else f"{name}: {first}"
    return f"{text} ({where})" if where else text
