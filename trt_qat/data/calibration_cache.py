"""TensorRT's calibration cache: one scale a tensor, as calibrators wrote them up to TensorRT 10.

The first line names release and calibrator, ``TRT-8601-EntropyCalibration2`` (``TRT-100300-...``
from 10 on); every other one a tensor and its scale as the eight hexadecimal digits of a big-endian
float32, leading zeros left out: ``input: 3caa54fc`` is 0.0207925. The range is 127 scales, and a
scale of 0 means that the tensor has none. DLA and DeepStream read the same file.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trt_qat.artifact import write_text
from trt_qat.data.ranges import Ranges
from trt_qat.errors import DataError, InputError
from trt_qat.files import reason
from trt_qat.limits import read_whole

SCHEMA = "trt-qat calibration cache 1"
CODE_MAX = 127
CALIBRATORS: Mapping[str, str] = {
    "EntropyCalibration2": "entropy",
    "EntropyCalibration": "entropy",
    "MinMaxCalibration": "max",
    "LegacyCalibration": "percentile",
}
"""What a calibrator is called in a cache, and the algorithm of ours that it resembles."""

_HEADER = re.compile(r"^TRT-(?P<packed>\d+)-(?P<calibrator>\w+)\s*$")
_SEVEN_DIGITS = 2.5e-29
"""Scales below it have less than eight digits; at a file's very end that is a cut."""
_BARE = re.compile(r"^\S.*: [0-9a-fA-F]{7,8}$")
_ENTRY = re.compile(r"^\s*(?P<name>\S|\S.*\S)\s*:\s*(?P<hex>(?:0[xX])?[0-9a-fA-F]*)\s*$")


@dataclass(frozen=True)
class CalibrationCache:
    """What a cache holds.

    Attributes:
        release: TensorRT that wrote it, such as 8.6.1; None: the header does not tell.
        calibrator: as the header names it.
        scales: by tensor, all above 0.
        without: tensors whose scale is 0: they have no range.
    """

    release: str | None
    calibrator: str
    scales: dict[str, float]
    without: tuple[str, ...] = field(default=())

    @property
    def amax(self) -> dict[str, float]:
        """The largest magnitude of each tensor."""
        return {name: scale * CODE_MAX for name, scale in self.scales.items()}

    def ranges(self) -> Ranges:
        """Return its ranges by tensor, in the form of a recipe's ``calibration.ranges``."""
        return Ranges(CALIBRATORS.get(self.calibrator, "unknown"), self.amax)

    def document(self, source: dict[str, Any]) -> dict[str, Any]:
        """Return the document of ``trt-qat inspect --json``."""
        return {
            "schema": SCHEMA,
            "source": source,
            "tensorrt": self.release,
            "calibrator": self.calibrator,
            "scales": self.scales,
            "without_range": list(self.without),
        }

    def text(self) -> str:
        """Return the file's content."""
        version = packed(self.release or "8.6.1")
        lines = [f"TRT-{version}-{self.calibrator}"]
        lines += [f"{name}: {hexadecimal(scale)}" for name, scale in self.scales.items()]
        lines += [f"{name}: 0" for name in self.without]
        return "\n".join(lines) + "\n"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file, whole or not at all, and return its path."""
        return write_text(Path(path), self.text())


def is_cache(text: str) -> bool:
    """Tell whether a text is a cache, whole or without its first line."""
    first, *others = text.lstrip().splitlines()[:4] or [""]
    headless = [line for line in (first, *others) if _BARE.match(line.rstrip())]
    begins = first.startswith("TRT-") and "alibration" in first
    return begins or 2 <= len(headless) >= len(others)


def load(path: str | os.PathLike[str]) -> CalibrationCache:
    """Read a cache.

    Raises:
        DataError: it is missing, no cache, or holds a line that is none of one.
    """
    path = Path(path)
    try:
        raw = read_whole(path)
    except OSError as error:
        message = f"calibration cache {path}: {reason(error)}"
        raise DataError(message) from error
    wide = raw.startswith((b"\xff\xfe", b"\xfe\xff"))  # PowerShell's
    text = raw.decode("utf-16" if wide else "utf-8-sig", errors="replace")
    return parse(text, str(path))


def parse(text: str, source: str = "calibration cache") -> CalibrationCache:
    """Read the content of a cache.

    Raises:
        DataError: the first line is no header, or another line no tensor with a scale.
    """
    lines = [line.rstrip() for line in text.splitlines()]
    lines = [line for line in lines if line.strip()]
    header = _HEADER.match(lines[0].strip()) if lines else None
    if header is None:
        first = lines[0][:60] if lines else ""
        message = (
            f"{source}: begins {first!r}, and a calibration cache begins with its release and "
            "calibrator, such as TRT-8601-EntropyCalibration2"
        )
        raise DataError(message)
    scales: dict[str, float] = {}
    without: list[str] = []
    for number, line in enumerate(lines[1:], start=2):
        name, scale = _entry(line, number, source)
        ends = number == len(lines) and not text.endswith(("\n", "\r"))
        if ends and 0 < scale < _SEVEN_DIGITS:
            message = (
                f"{source}, line {number}: {name!r} has a scale of {scale:.3g}, which no tensor "
                "has: the line is cut off"
            )
            raise DataError(message)
        if name in scales or name in without:
            message = f"{source}, line {number}: {name!r} stands there twice"
            raise DataError(message)
        if scale == 0:
            without.append(name)
        else:
            scales[name] = scale
    if not scales and not without:
        message = f"{source}: holds no tensor behind its first line; calibrate again"
        raise DataError(message)
    return CalibrationCache(
        unpacked(header["packed"]), header["calibrator"], scales, tuple(without)
    )


def _entry(line: str, number: int, source: str) -> tuple[str, float]:
    match = _ENTRY.match(line)
    if match is None or not match["hex"]:
        message = (
            f"{source}, line {number}: {line[:80]!r} is no tensor with a scale in hexadecimal, "
            "such as 'input: 3caa54fc'; the file is cut off or damaged"
        )
        raise DataError(message)
    digits = match["hex"].lower().removeprefix("0x")
    if len(digits) > 8 or not digits:
        message = (
            f"{source}, line {number}: {match['hex']!r} of {match['name']!r} has "
            f"{len(digits)} hexadecimal digits; a float32 has up to 8"
        )
        raise DataError(message)
    (scale,) = struct.unpack(">f", bytes.fromhex(digits.zfill(8)))
    if not math.isfinite(scale) or scale < 0:
        message = (
            f"{source}, line {number}: {match['hex']} of {match['name']!r} is a scale of "
            f"{scale:g}, and a scale is finite and not negative; calibrate again"
        )
        raise DataError(message)
    return match["name"], scale


def hexadecimal(scale: float) -> str:
    """Return a scale as a cache writes it.

    Raises:
        InputError: it is not above 0, or beyond float32.
    """
    try:
        digits = struct.pack(">f", scale).hex()
    except OverflowError:
        digits = "7f800000"
    if not scale > 0 or digits == "7f800000":
        message = f"a scale of {scale:g} cannot stand in a calibration cache: float32 above 0"
        raise InputError(message)
    return digits.lstrip("0") or "0"


def unpacked(number: str) -> str | None:
    """Return the version that a header packs: 8601 is 8.6.1, 100300 is 10.3.0."""
    value = int(number)
    if not 1000 <= value <= 999999:
        return None
    # Four digits up to 9, whose minor has one; six from 10 on.
    major, minor = divmod(value // 100, 10 if value < 10000 else 100)
    return f"{major}.{minor}.{value % 100}"


def packed(release: str) -> int:
    """Return a version as a header packs it.

    Raises:
        InputError: it is no version, or one without calibrators.
    """
    match = re.fullmatch(r"(\d+)\.(\d+)(?:\.(\d+))?(?:\.\d+)*", release)
    if match is None:
        message = f"--tensorrt {release}: not a version, such as 8.6.1"
        raise InputError(message)
    major, minor, patch = int(match[1]), int(match[2]), int(match[3] or 0)
    if major >= 11:
        message = f"TensorRT {release} has no calibrators, so it reads no cache: 10.x is the last"
        raise InputError(message)
    return major * 1000 + minor * 100 + patch if major < 10 else major * 10000 + minor * 100 + patch
