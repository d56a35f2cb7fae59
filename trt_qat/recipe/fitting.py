"""Whether a recipe's number formats fit its target and its calibration: told before any work."""

from __future__ import annotations

from trt_qat import targets
from trt_qat.capabilities import FP4_SINCE, FP8_SINCE, INT4_SINCE, Version, dotted
from trt_qat.errors import RecipeError
from trt_qat.recipe.specs import EngineSpec, QuantizeSpec

_SINCE: dict[str, tuple[Version, str]] = {
    "fp8": (FP8_SINCE, "Ada"),
    "int4": (INT4_SINCE, "Ampere"),
    "nvfp4": (FP4_SINCE, "Blackwell"),
}


def refuse_unfit(spec: EngineSpec) -> None:
    """Check formats against the target, and against the algorithm that measures their ranges.

    Raises:
        RecipeError: the target has no such format, or entropy is asked for of FP8 ranges.
    """
    quantize = spec.quantize
    key: dict[str, str] = {quantize.format: "quantize.format"}
    key |= {kind: f"quantize.layers, {name!r}" for name, kind in quantize.layers.items()}
    device = None if spec.target is None else targets.target(spec.target)
    for kind, where in key.items():
        why = None if device is None else unfit(kind, device)
        if why is not None:
            message = f"{where}: {why}"
            raise RecipeError(message)
    refuse_entropy(quantize, spec.calibration.algorithm)


def refuse_entropy(spec: QuantizeSpec, algorithm: str) -> None:
    """Refuse ranges by entropy for FP8, be they to be measured or given.

    Raises:
        RecipeError: they are.
    """
    if spec.format == "fp8" and algorithm == "entropy":
        raise RecipeError(no_entropy("FP8"))


def no_entropy(what: str) -> str:
    """Return why the ranges of a format cannot be by entropy, and what to take."""
    return (
        f"calibration.algorithm: 'entropy' spreads a range over equal levels, and those of {what} "
        "are not; take 'max', 'percentile' or 'mse'"
    )


def unfit(kind: str, device: targets.Target) -> str | None:
    """Return why a device cannot compute in a format, None where it can."""
    since, architecture = _SINCE.get(kind, ((0, 0), ""))
    if device.sm >= since:
        return None
    return (
        f"{device.title} has no {kind}, which begins with {architecture} (compute capability "
        f"{dotted(since)}); take another format, or another target"
    )
