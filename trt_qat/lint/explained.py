"""What a rule of preflight means: its section of ``docs/rules.md``, which the wheel carries."""

from __future__ import annotations

import re
from pathlib import Path

from trt_qat.errors import InputError

PAGE = "docs/rules.md"


def sections() -> dict[str, str]:
    """Return the section of every rule by its id, heading and all, as Markdown.

    Raises:
        InputError: the page is not there.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "templates", package.parent):
        if (folder / PAGE).is_file():
            text = (folder / PAGE).read_text(encoding="utf-8")
            parts = re.split(r"^## (?=[A-Z]+\d+:)", text, flags=re.M)[1:]
            return {part.partition(":")[0]: part.strip() for part in parts}
    message = f"{package}: {PAGE} is missing; install trt-qat again"
    raise InputError(message)
