"""How many kernels a builder left out for want of memory, and what the largest wanted.

Four wordings, of MB (2^20 bytes) or of bytes:

* ``Skipping tactic 3 due to insuficient memory on requested size of 538 detected for tactic 4.``
  (8.0 to 8.4, spelt so)
* ``... due to insufficient memory on requested size of 1583 detected for tactic 0x...74.``: 8.5, MB
  behind a request of as many, else bytes; behind ``UNSUPPORTED_STATE`` (8.6 on) always bytes
* ``Tactic Device request: 538MB Available: 166MB. Device memory is insufficient to use tactic.``,
  before one of the above about the same kernel, or (10) alone; in any unit
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_SKIPPED = re.compile(
    r"Skipping tactic .*? insuff?icient memory on requested size of (\d+)|"
    r"Skipping tactic .*? insuff?icient (?:workspace|memory)(?! on)"
)
_REQUEST = re.compile(r"Tactic Device request: ([\d.]+) ?([KMG]?i?B)\b")
_UNITS = {"B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_GO_ON = re.compile(r"^Try decreasing the workspace size")
MIB = 1 << 20


@dataclass
class Skipped:
    """Kernels that were not tried.

    Attributes:
        count: how many.
        largest_bytes: what the largest of them wanted.
    """

    count: int = 0
    largest_bytes: int = 0


def is_about(text: str) -> bool:
    """Tell whether a message is one of those that are counted here."""
    return bool(_SKIPPED.search(text) or _REQUEST.search(text) or _GO_ON.match(text))


def skipped(texts: Iterable[str]) -> Skipped:
    """Count the kernels that a log's messages say were skipped."""
    found, asked = Skipped(), 0  # asked: bytes of a request that no second line has spoken of yet
    for text in texts:
        if "actic" not in text:
            continue
        if match := _REQUEST.search(text):
            found.count += asked > 0
            asked = round(float(match[1].rstrip(".")) * _UNITS[match[2][0]])
            found.largest_bytes = max(found.largest_bytes, asked)
        elif match := _SKIPPED.search(text):
            found.count += 1
            told = _bytes(int(match[1] or 0), asked, in_bytes="UNSUPPORTED_STATE" in text)
            found.largest_bytes = max(found.largest_bytes, told)
            asked = 0
    found.count += asked > 0
    return found


def _bytes(size: int, asked: int, *, in_bytes: bool) -> int:
    """Return what a size stands for: MB if the request before it says the same number of MB.

    Without a request, a number below 2^20 is taken for MB: a kernel that wants less than 1 MiB is
    not left out for want of memory. Newer releases leave such out too, and speak of bytes.
    """
    if in_bytes:
        return size
    return size * MIB if size < MIB or size * MIB == asked else size
