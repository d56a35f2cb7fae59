"""Mean and std of a recipe, taken from images and divided by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trt_qat.errors import DataError
from trt_qat.recipe.specs import DataSpec
from trt_qat.wording import counted

Pixels = NDArray[np.float32]


def normalised(images: Pixels, spec: DataSpec) -> Pixels:
    """Return ``(..., C, H, W) float32`` less the mean and over the std of a recipe.

    Raises:
        DataError: neither one value nor one a channel, or a std of 0.
    """
    channels = images.shape[-3]
    for key, values in (("mean", spec.mean), ("std", spec.std)):
        if not values:
            continue
        if len(values) not in (1, channels):
            message = (
                f"data.{key} has {counted(len(values), 'value')} for images of "
                f"{counted(channels, 'channel')}"
            )
            raise DataError(message)
        if key == "std" and min(values) <= 0:
            message = f"data.std = {list(values)}; every value must be above 0"
            raise DataError(message)
        column = np.asarray(values, dtype=np.float32).reshape(-1, 1, 1)
        images = images - column if key == "mean" else images / column
    return images
