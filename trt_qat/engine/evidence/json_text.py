r"""JSON as trtexec and inspectors write it, which is not always JSON.

They escape nothing, so a string may hold control characters and the backslashes of a Windows path,
and a division by zero is printed as ``nan``, ``-nan`` or ``inf`` (``sampleReporting.cpp``).
"""

from __future__ import annotations

import json
import re
from typing import Any

_NO_NUMBER = re.compile(r"(?<=[:\[,])(\s*)-?(?:nan|inf)(?:\(\w*\))?(?=\s*[,}\]])")


def loads(text: str) -> Any:
    """Return what a text holds; numbers that are none as ``nan``.

    Raises:
        json.JSONDecodeError: it is no such JSON, or one that nests too deeply.
    """
    try:
        return _parsed(text)
    except json.JSONDecodeError as error:
        plain = _NO_NUMBER.sub(r"\1NaN", text)
        for attempt in {plain, plain.replace("\\", "\\\\")} - {text}:
            try:
                return _parsed(attempt)
            except json.JSONDecodeError:
                continue
        raise error from None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except json.JSONDecodeError:
        raise
    except (RecursionError, ValueError) as error:  # too deep; a number of thousands of digits
        message = "nested too deeply" if isinstance(error, RecursionError) else "a number too long"
        raise json.JSONDecodeError(message, text, 0) from error
