"""The calibration cache: what range each tensor was measured to have, on which data.

One readable JSON file. Reusing it makes a later run independent of the calibration samples; the
digest says which samples they were.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from trt_qat.errors import DataError, nearest
from trt_qat.files import read_json

FORMAT = "trt-qat ranges 1"


@dataclass(frozen=True)
class Ranges:
    """Measured ranges: ``amax`` maps a quantizer's name to the largest magnitude it represents."""

    algorithm: str
    amax: dict[str, float] = field(default_factory=dict)
    data_digest: str = ""
    samples: int = 0

    def save(self, path: str | Path) -> Path:
        """Write the cache atomically and return its path."""
        path = Path(path)
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Ranges:
        """Read a cache.

        Raises:
            DataError: the file is missing, is no cache, or holds a range that is not positive.
        """
        path = Path(path)
        content = read_json(path, "it must be a calibration cache, ranges.json", DataError)
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            message = f"calibration cache {path}: its format is not {FORMAT!r}; calibrate again"
            raise DataError(message)
        try:
            ranges = cls(**content)
            bad = [n for n, a in ranges.amax.items() if not (math.isfinite(a) and a > 0)]
        except (TypeError, AttributeError) as error:
            message = f"calibration cache {path}: {error}"
            raise DataError(message) from error
        if bad:
            message = f"calibration cache {path}: amax of {bad[0]!r} must be above 0 and finite"
            raise DataError(message)
        return ranges

    def of(self, names: list[str]) -> dict[str, float]:
        """Return the ranges of exactly ``names``.

        Raises:
            DataError: the cache lacks one of them, as it does for another model or placement.
        """
        for name in names:
            if name not in self.amax:
                close = ", ".join(nearest(name, self.amax, 3)) or "none"
                message = (
                    f"calibration cache: no range for {name!r} (nearest: {close}); it was measured "
                    "on another model or placement: calibrate again"
                )
                raise DataError(message)
        return {name: self.amax[name] for name in names}
