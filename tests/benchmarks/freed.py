"""What a fresh process prepares and calls, without the imports of the tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def prepared() -> Callable[[], object]:
    """Use 64 MiB and free them; what is returned uses 32."""
    np.ones(8 << 20)
    return lambda: np.ones(4 << 20).sum()
