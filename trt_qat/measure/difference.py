"""Differences of two arrays that come in batches, in memory that does not grow with them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.errors import DataError

Array = NDArray[Any]

CHUNK = 1 << 16
"""Elements that are measured at once: three pieces of float32 fit into a level-2 cache."""


@dataclass
class Difference:
    """How far a candidate's tensor is from the reference's, over all batches so far.

    Powers are sums of squares; BLAS takes them in float32 of `CHUNK` elements at a time, and they
    are added in double precision. ``beyond`` counts elements of the reference whose magnitude is
    above ``limit``. With ``noise_only`` nothing is measured but ``noise`` and ``max_abs``, in half
    the time: the signal of a reference is the same against every candidate.
    """

    noise_only: bool = False
    limit: float | None = None
    elements: int = 0
    max_abs: float = 0.0
    sum_abs: float = 0.0
    noise: float = 0.0
    signal: float = 0.0
    candidate: float = 0.0
    beyond: int = 0

    def update(self, ref: Array, cand: Array, name: str) -> None:
        """Add a batch.

        Args:
            ref: of the reference, ``(batch, ...)``, any number type.
            cand: of the candidate, of the same shape.
            name: of the tensor, for messages.

        Raises:
            DataError: the shapes differ, or one of the two holds NaN or infinity.
        """
        if ref.shape != cand.shape:
            message = (
                f"compare: {name!r} is {ref.shape} in the reference, {cand.shape} here; models "
                "that are not exports of one are compared with --no-layers"
            )
            raise DataError(message)
        left, right = _flat(ref), _flat(cand)
        scratch = np.empty(min(CHUNK, left.size), left.dtype)
        with np.errstate(invalid="ignore", over="ignore"):  # told below, by the tensor's name
            for start in range(0, left.size, CHUNK):
                self._add(left[start : start + CHUNK], right[start : start + CHUNK], scratch, name)
        self.elements += left.size

    def _add(self, left: Array, right: Array, scratch: Array, name: str) -> None:
        """Add a piece that stays in the processor's cache while it is read again and again."""
        apart = np.subtract(left, right, out=scratch[: left.size])
        noise = float(apart @ apart)
        if self.noise_only and math.isfinite(noise):
            self.noise += noise
            self.max_abs = max(self.max_abs, float(apart.max()), -float(apart.min()))
            return
        signal = float(left @ left)
        equal = noise == 0.0 and not apart.any()  # squares of tiny numbers are zero
        candidate = signal if equal else float(right @ right)
        if not math.isfinite(noise + signal + candidate):
            _check_finite(left, right, name)
            # Finite entries whose squares are too large for float32.
            left, right = left.astype(np.float64), right.astype(np.float64)
            apart = left - right
            noise, signal = float(apart @ apart), float(left @ left)
            candidate = float(right @ right)
        self.noise += noise
        self.signal += signal
        self.candidate += candidate
        if not equal:
            np.abs(apart, out=apart)
            self.max_abs = max(self.max_abs, float(apart.max(initial=0.0)))
            self.sum_abs += float(apart @ np.ones_like(apart))  # BLAS again, faster than sum()
        if self.limit is not None and max(left.max(), -left.min()) > self.limit:
            self.beyond += int(np.count_nonzero(np.abs(left) > self.limit))

    @property
    def mean_abs(self) -> float:
        """Mean absolute difference."""
        return self.sum_abs / max(self.elements, 1)

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two as vectors; 1 for two zero arrays, 0 for one."""
        norms = math.sqrt(self.signal * self.candidate)
        if norms == 0.0:
            return 1.0 if self.signal == self.candidate else 0.0
        dot = (self.signal + self.candidate - self.noise) / 2
        return max(-1.0, min(1.0, dot / norms))

    @property
    def sqnr_db(self) -> float | None:
        """Power of the signal over that of the difference, in decibel; None where both are equal.

        A reference of zeros with any difference is the worst there is: -300.
        """
        if self.noise == 0.0:
            return None
        return 10.0 * math.log10(max(self.signal / self.noise, 1e-30))

    @property
    def relative(self) -> float | None:
        """Norm of the difference over the norm of the reference; None over a zero reference."""
        return math.sqrt(self.noise / self.signal) if self.signal else None


def _flat(array: Array) -> Array:
    kind = np.float64 if array.dtype == np.float64 else np.float32
    return np.ascontiguousarray(array, dtype=kind).reshape(-1)


def _check_finite(left: Array, right: Array, name: str) -> None:
    for side, array in (("reference", left), ("candidate", right)):
        if not np.isfinite(array).all():
            message = f"compare: {name!r} holds NaN or infinity in the {side}"
            raise DataError(message)
