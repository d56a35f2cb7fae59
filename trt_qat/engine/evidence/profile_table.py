"""The times of layers that ``trtexec --dumpProfile`` prints into its log.

Up to 8.5 the name stands first and the figures behind it (8.0 to 8.2 without a median), from 8.6
on the figures stand first (``sampleReporting.cpp``)::

    === Profile (1874 iterations ) ===
              Layer   Time (ms)   Avg. Time (ms)   Median Time (ms)   Time %
      conv1 + relu1       10.20           0.0054             0.0051      0.3

    === Profile (2094 iterations ) ===
       Time(ms)     Avg.(ms)   Median(ms)   Time(%)   Layer
          16.15       0.0077       0.0075       0.5   conv1 + relu1
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from trt_qat.engine.evidence.layer_info import without_profile
from trt_qat.engine.evidence.profile import Profile, Row

_BEGIN = re.compile(r"^=== Profile \((?P<runs>\d+) iterations? ?\) ===")
_NUMBER = r"-?(?:\d[\d.]*(?:e[+-]?\d+)?|nan|inf)"
_SOURCE = "the profile in the log"


def profile_of(texts: Iterable[str]) -> Profile | None:
    """Return the last profile that a log's messages print; None: they print none, or no layer."""
    runs, row, found = 0, None, None
    rows: list[Row] = []
    for text in texts:
        if begin := _BEGIN.match(text.strip()):
            runs, row, rows = int(begin["runs"]), None, []
        elif runs and row is None:
            row = _columns(text)
            runs = runs if row else 0
        elif row is not None and (match := row.match(text.strip())):
            if match["name"] != "Total":
                rows.append(_row(match))
                continue
            found, runs, row = Profile(_SOURCE, runs, tuple(rows)), 0, None
    if row is not None and rows:  # the log breaks off before the total
        found = Profile(_SOURCE, runs, tuple(rows))
    return found if found is not None and found.rows else None


def _columns(text: str) -> re.Pattern[str] | None:
    """Return the pattern of a row by the heading of the table; None: it is no such heading."""
    words = text.split()
    if "Layer" not in words or "Time" not in text:
        return None
    figures = ["time", "mean", *(["median"] if "Median" in text else []), "share"]
    cells = r"\s+".join(f"(?P<{name}>{_NUMBER})" for name in figures)
    first = words[0] == "Layer"
    return re.compile(rf"^(?P<name>\S.*?)\s+{cells}$" if first else rf"^{cells}\s+(?P<name>\S.*)$")


def _row(match: re.Match[str]) -> Row:
    told = match.groupdict()
    median = float(told["median"]) if "median" in told else None
    return Row(without_profile(told["name"])[0], float(told["mean"]), median)
