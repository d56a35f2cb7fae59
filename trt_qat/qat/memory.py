"""Batches that do not fit: what tells so, and the halves that are tried in their place."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from trt_qat.errors import InputError
from trt_qat.qat.reports import report_of

_OF_A_CPU = "can't allocate memory"  # torch has no class for it


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory of a GPU or of the machine ran out."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and _OF_A_CPU in str(error)
    )


def refuse_batch(where: str, samples: int) -> InputError:
    """Return the error for a batch that does not fit and is not halved."""
    return InputError(
        f"{where}: memory ran out on a batch of {samples}; lower batch_size, and raise accumulate "
        "by as much to keep what a step sees"
    )


def say_halved(model: nn.Module, where: str, samples: int) -> None:
    """Tell, in the report and as a warning, that batches are halved from here on."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    message = (
        f"{where}: memory ran out on {samples} samples at once, so batches are run in halves from "
        f"here on, of which BatchNorm sees one at a time; batch_size = {max(1, samples // 2)} with "
        "accumulate = 2 is the same from the start"
    )
    report_of(model).warnings.append(message)
    warnings.warn(message, stacklevel=3)
