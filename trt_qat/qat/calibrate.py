"""Measuring activation ranges with ModelOpt's calibrators."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from modelopt.torch.quantization.nn import TensorQuantizer
from torch import nn

from trt_qat.errors import DataError
from trt_qat.qat.placement.calls import evaluated
from trt_qat.qat.quantizers.fake_quant import activation_config
from trt_qat.qat.quantizers.int8 import CODE_MAX
from trt_qat.qat.reports import report_of
from trt_qat.recipe.specs import CalibrationSpec
from trt_qat.wording import counted

# A histogram has 2,048 bins; trying every fourth as the end of the range moves amax by less than
# 0.2 % and makes the search, a Python loop, four times as fast.
SEARCH_STRIDE = 4


def calibrate(
    model: nn.Module,
    quantizers: dict[str, TensorQuantizer],
    batches: Iterable[Any],
    spec: CalibrationSpec,
) -> dict[str, float]:
    """Run ``batches`` through the float model and return quantizer name -> amax.

    Args:
        model: placed, in any mode; its mode is kept.
        quantizers: the activation quantizers to measure, which get their amax.
        batches: tensors, tuples or dicts of inputs; at least one.
        spec: algorithm: ``max``, ``percentile``, ``entropy`` (KL) or ``mse``.

    Raises:
        DataError: no batch, a NaN or infinite activation, or a quantizer that no batch reached.
    """
    for quantizer in quantizers.values():
        calibrator = "max" if spec.algorithm == "max" else "histogram"
        quantizer.set_from_attribute_config(activation_config() | {"calibrator": calibrator})
        quantizer.disable_quant()
        quantizer.enable_calib()
    enabled = [m for m in model.modules() if isinstance(m, TensorQuantizer) and m.is_enabled]
    weights = [q for q in enabled if q not in set(quantizers.values())]
    for quantizer in weights:  # ranges are the float network's
        quantizer.disable_quant()
    # ModelOpt's histogram drops NaN without a word, its maximum fails on an assertion.
    hooks = [q.register_forward_pre_hook(_refuse_non_finite) for q in quantizers.values()]
    reached: set[nn.Module] = set()
    filled: set[nn.Module] = set()
    note = _noting_values(reached, filled)
    hooks += [q.register_forward_pre_hook(note) for q in quantizers.values()]
    count = 0
    try:
        for batch in batches:
            count += 1
            evaluated(model, batch)
    except _NonFiniteError as error:
        message = f"calibration batch {count}: an activation is NaN or infinite; check the inputs"
        raise DataError(message) from error
    finally:
        for hook in hooks:
            hook.remove()
        for quantizer in quantizers.values():
            quantizer.enable_quant()
            quantizer.disable_calib()
        for quantizer in weights:
            quantizer.enable_quant()
    if not count:
        message = "calibration: no batch was given; give at least one"
        raise DataError(message)
    empty = [name for name, q in quantizers.items() if q in reached and q not in filled]
    _warn_of_zeros(model, empty)
    return {
        name: set_amax(q, 0.0) if name in empty else _load(name, q, spec)
        for name, q in quantizers.items()
    }


def _noting_values(
    reached: set[nn.Module], filled: set[nn.Module]
) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """Return a hook that notes which quantizers are given values, and which more than zeros."""

    def note(quantizer: nn.Module, inputs: tuple[Any, ...]) -> None:
        reached.add(quantizer)
        if quantizer not in filled and bool(inputs[0].any()):
            filled.add(quantizer)

    return note


def _warn_of_zeros(model: nn.Module, names: list[str]) -> None:
    """Tell, in the report and as a warning, which tensors were all zeros in every batch."""
    if not names:
        return
    first = ", ".join(map(repr, names[:3])) + (" and others" if names[3:] else "")
    message = (
        f"calibration: {counted(len(names), 'tensor')} ({first}) held zeros alone in every batch, "
        "so the range is 1 whatever the network does; calibrate on data that reaches it"
    )
    report_of(model).warnings.append(message)
    warnings.warn(message, stacklevel=3)


class _NonFiniteError(Exception):
    """An activation to be measured is NaN or infinite."""


def _refuse_non_finite(quantizer: nn.Module, inputs: tuple[Any, ...]) -> None:
    if not bool(torch.isfinite(inputs[0]).all()):
        raise _NonFiniteError


def _load(name: str, quantizer: TensorQuantizer, spec: CalibrationSpec) -> float:
    """Compute amax from what the calibrator saw, give it to the quantizer, return it."""
    options: dict[str, Any] = {}
    if hasattr(quantizer, "_amax"):
        delattr(quantizer, "_amax")
    histogram = _histogram(quantizer)
    if histogram is not None:
        counts, edges = histogram
        if spec.algorithm == "mse":
            return set_amax(quantizer, _mse_amax(counts, edges))
        if spec.algorithm == "entropy" and int((counts > 0).sum()) <= CODE_MAX + 1:
            # No more magnitudes than codes, as in images of 17 grey levels: the divergence is 0
            # wherever the range ends, and ModelOpt's search then takes its shortest one.
            return set_amax(quantizer, float(edges[-1]))
    if spec.algorithm != "max":
        options["method"] = spec.algorithm
        if spec.algorithm == "percentile":
            options["percentile"] = spec.percentile
        else:
            options["stride"] = SEARCH_STRIDE
    try:
        quantizer.load_calib_amax(**options)
    except RuntimeError as error:
        message = (
            f"calibration: no batch reached {name!r}; give batches that use every part of the "
            "model, or put its layers into quantize.exclude"
        )
        raise DataError(message) from error
    value = float(quantizer.amax)
    if not math.isfinite(value):
        message = f"calibration: range of {name!r} is {value}; check the inputs"
        raise DataError(message)
    return set_amax(quantizer, value)


def _histogram(quantizer: TensorQuantizer) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the counts and the edges of the bins that a quantizer has collected, if any.

    ModelOpt 0.47 has no public accessor for them. Where a later batch widened the range, its list
    of edges may be one too long (``torch.arange`` over floats); ``histc`` spread the bins evenly.
    """
    calibrator: Any = quantizer._calibrator
    counts = getattr(calibrator, "_calib_hist", None)
    if counts is None:
        return None
    end = float(calibrator._calib_bin_edges[-1])
    return counts.double().cpu(), torch.linspace(0.0, end, len(counts) + 1, dtype=torch.float64)


def _mse_amax(counts: torch.Tensor, edges: torch.Tensor) -> float:
    """Return the end of range with the least squared error over a histogram.

    The search of ModelOpt 0.47 passes the number of bits as the bias of ``fake_tensor_quant`` and
    always returns its first candidate (``calib/histogram.py``), so it is done here.
    """
    centers = (edges[1:] + edges[:-1]) / 2
    best, best_error = float(edges[-1]), math.inf
    for end in edges[CODE_MAX + 1 :: SEARCH_STRIDE].tolist():
        scale = end / CODE_MAX
        codes = torch.round(centers / scale).clamp(max=CODE_MAX)
        error = float(((codes * scale - centers).square() * counts).sum())
        if error <= best_error:
            best, best_error = end, error
    return best


def set_amax(quantizer: TensorQuantizer, value: float) -> float:
    """Give an activation quantizer its range; a tensor that is always 0 gets 1.

    TensorRT asks for a scale above 0 (E2); zeros are represented exactly on any grid.
    """
    value = value if value > 0 else 1.0
    if hasattr(quantizer, "_amax"):
        delattr(quantizer, "_amax")
    quantizer.amax = torch.tensor(value)
    return value


def set_weight_amax(quantizer: TensorQuantizer, weight: torch.Tensor, axis: int | None) -> None:
    """Give a weight quantizer the largest magnitude of each channel; a zero channel gets 1."""
    magnitude = weight.detach().abs().float()
    if axis is None:
        amax = magnitude.amax()
    else:
        others = tuple(i for i in range(weight.dim()) if i != axis)
        amax = magnitude.amax(dim=others, keepdim=True)
    if hasattr(quantizer, "_amax"):
        delattr(quantizer, "_amax")
    quantizer.amax = torch.where(amax > 0, amax, torch.ones_like(amax))
