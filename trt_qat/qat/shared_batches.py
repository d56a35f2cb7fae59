"""Calibration batches of one process or of several, and the one batch that all of them trace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from accelerate.utils import send_to_device
from torch import nn

from trt_qat.errors import DataError
from trt_qat.qat import ranks
from trt_qat.qat.inputs import input_batches
from trt_qat.qat.tensors import tensors_in


def shared_batches(model: nn.Module, given: Any) -> tuple[Iterator[Any], Any, Any]:
    """Return this process's batches, its first one if any, and the one that all trace."""
    ranks.join()
    batches = input_batches(model, given)
    with ranks.failing_together():
        own = next(batches, None)
    first = _first_of_all(own)
    ranks.share_state(model)
    return batches, own, first


def _first_of_all(own: Any) -> Any:
    """Return the batch to trace: this process's, or of several the one that the first has.

    Raises:
        DataError: none has one.
    """
    have = ranks.gathered(own is not None)
    if not any(have):
        message = "quantize: calibration_batches is empty; give at least one batch"
        raise DataError(message)
    if len(have) == 1:
        return own
    source = have.index(True)
    device = next((tensor.device for tensor in tensors_in(own)), None)
    shared = ranks.from_first(
        send_to_device(own, "cpu") if ranks.rank() == source else None, source
    )
    return own if ranks.rank() == source else send_to_device(shared, device or "cpu")
