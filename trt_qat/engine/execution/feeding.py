"""Whether a feed fits an engine: names, types, and shapes within a profile. No GPU needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trt_qat.errors import DataError
from trt_qat.runners.protocol import Feed, TensorSpec

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Slot:
    """One input of an engine.

    Attributes:
        spec: name, shape and type; dynamic dimensions have names.
        low: smallest shape of the profile; None where the shape is fixed.
        high: largest shape of the profile.
    """

    spec: TensorSpec
    low: Shape | None = None
    high: Shape | None = None


def narrowed(where: str, slots: Mapping[str, Slot], feed: Feed) -> Feed:
    """Return a batch with INT64 as INT32 wherever that is what the engine made of the network's.

    Raises:
        DataError: a value does not fit into 32 bits.
    """
    made = dict(feed)
    for name, array in feed.items():
        if name in slots and slots[name].spec.dtype == "int32" and array.dtype == np.int64:
            made[name] = array.astype(np.int32)
            if not np.array_equal(made[name], array):
                message = f"{where}: input {name!r} holds values that do not fit into 32 bits"
                raise DataError(message)
    return made


def check_feed(where: str, slots: Mapping[str, Slot], feed: Feed) -> None:
    """Check that a batch may be fed to an engine.

    Raises:
        DataError: an input is missing, unknown, of another type, or outside the profile.
    """
    if set(feed) != set(slots):
        message = f"{where}: fed {sorted(feed)}; its inputs are {sorted(slots)}"
        raise DataError(message)
    for name, slot in slots.items():
        slot.spec.check(feed[name])
        shape = feed[name].shape
        if slot.low is None or slot.high is None:
            continue
        ranges = zip(slot.low, shape, slot.high, strict=True)
        if any(not low <= size <= high for low, size, high in ranges):
            message = (
                f"{where}: input {name!r} is {shape}; the engine's profile allows {slot.low} to "
                f"{slot.high}; build it with a wider build.batch or build.profiles"
            )
            raise DataError(message)
