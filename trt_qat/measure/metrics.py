"""How far two arrays are apart, and how good a classification is: small pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

Z_95 = 1.959963984540054
"""Standard normal quantile of a two-sided 95 % interval."""

SCORES = ("fp32", "ptq", "sparse", "sparse_ptq", "qat", "onnx", "onnx_fused", "engine")
"""Entries of ``metrics.json`` in the order in which people read them."""


def score_titles(scores: Mapping[str, Any]) -> dict[str, str]:
    """Return what the entries of ``metrics.json`` are called, in order; those that are there.

    Args:
        scores: its content; a run is called 2:4 only if it has a pruned model.
    """
    sparse = is_sparse(scores)
    titles = {
        "fp32": "FP32",
        "ptq": "INT8 PTQ, dense",
        "sparse": "FP32, one-shot 2:4",
        "sparse_ptq": "2:4 + INT8 PTQ" if sparse else "INT8 PTQ, dense, ranges as given",
        "qat": "2:4 + INT8 QAT" if sparse else "INT8 QAT, dense",
        "onnx": "ONNX (onnxruntime)",
        "onnx_fused": "ONNX, fused session",
        "engine": "TensorRT engine",
    }
    return {key: titles[key] for key in SCORES if scores.get(key)}


def is_sparse(scores: Mapping[str, Any]) -> bool:
    """Tell whether a layer was pruned: only then was a pruned model scored."""
    return bool(scores.get("sparse"))


def accuracy_kept(scores: Mapping[str, Any], allowed: float) -> str:
    """Say what QAT lost against FP32 and what it may lose.

    Args:
        scores: the content of ``metrics.json``; where one of the two is absent, no loss is told.
        allowed: the most that may be lost, 0 to 1.
    """
    if not {"fp32", "qat"} <= scores.keys():
        return f"QAT is at most {100 * allowed:.2f} points below FP32"
    fp32, qat = (scores[key]["accuracy"] for key in ("fp32", "qat"))
    return (
        f"QAT reaches {100 * qat:.2f} % and FP32 {100 * fp32:.2f} %: {100 * (qat - fp32):+.2f} "
        f"points (at least {-100 * allowed:.2f})"
    )


def max_abs(ref: Array, cand: Array) -> float:
    """Largest absolute difference."""
    return float(np.max(np.abs(_f64(ref) - _f64(cand)), initial=0.0))


def mean_abs(ref: Array, cand: Array) -> float:
    """Mean absolute difference."""
    return float(np.mean(np.abs(_f64(ref) - _f64(cand))))


def cosine(ref: Array, cand: Array) -> float:
    """Cosine of the angle between the two as vectors; 1 for two zero arrays, 0 for one."""
    a, b = _f64(ref).ravel(), _f64(cand).ravel()
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    if norms == 0.0:
        return 1.0 if not a.any() and not b.any() else 0.0
    return float(np.clip(np.dot(a, b) / norms, -1.0, 1.0))


def sqnr_db(ref: Array, cand: Array) -> float | None:
    """Signal power over power of the difference, in decibel; None where both are equal."""
    noise = float(np.sum((_f64(ref) - _f64(cand)) ** 2))
    if noise == 0.0:
        return None
    signal = float(np.sum(_f64(ref) ** 2))
    # A signal of zero with noise is the worst there is; JSON has no -inf.
    return 10.0 * math.log10(max(signal / noise, 1e-30))


def argmax_agreement(ref: Array, cand: Array) -> float | None:
    """Part of the samples whose largest entry along the last axis is the same.

    None for arrays without classes: fewer than two dimensions, or fewer than two entries.
    """
    if ref.ndim < 2 or ref.shape[-1] < 2:
        return None
    return float(np.mean(ref.argmax(axis=-1) == cand.argmax(axis=-1)))


def correct(logits: Array, labels: NDArray[np.int64]) -> int:
    """Number of samples whose largest logit is the label's; logits are ``(N, classes)``."""
    return int(np.sum(logits.argmax(axis=-1) == labels))


def accuracy(logits: Array, labels: NDArray[np.int64]) -> float:
    """Part of the samples whose largest logit is the label's."""
    return correct(logits, labels) / len(labels)


def top_k_correct(logits: Array, labels: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """``(N,) bool``: is the label among the ``k`` largest of ``(N, classes)`` logits.

    Of equal logits the first class counts as the larger, as it does for argmax: INT8 models tie.
    """
    own = logits[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    ahead = (logits > own) | ((logits == own) & earlier)
    return np.asarray(ahead.sum(axis=1) < k)


def wilson(successes: int, samples: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson's score interval).

    Unlike the normal approximation it stays in [0, 1] and is honest near 100 %.
    """
    if samples == 0:
        return 0.0, 1.0
    p = successes / samples
    z2 = Z_95**2
    centre = p + z2 / (2 * samples)
    half = Z_95 * math.sqrt(p * (1 - p) / samples + z2 / (4 * samples**2))
    scale = 1 + z2 / samples
    # Rounding may leave 1e-17 where the interval ends at exactly 0 or 1.
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == samples else (centre + half) / scale
    return low, high


def scored(logits: Array, labels: NDArray[np.int64], seconds: float) -> dict[str, Any]:
    """Return an entry of ``metrics.json``: accuracy with its interval, samples, seconds."""
    hits = correct(logits, labels)
    return {
        "accuracy": hits / len(labels),
        "correct": hits,
        "samples": len(labels),
        "interval95": list(wilson(hits, len(labels))),
        "seconds": round(seconds, 3),
    }


def _f64(array: Array) -> NDArray[np.float64]:
    return np.asarray(array, dtype=np.float64)
