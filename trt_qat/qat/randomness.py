"""Random numbers that depend on a seed and a position, never on what was drawn before.

Training that is killed and resumed then draws the numbers that it would have drawn, and a
checkpoint need not hold the state of any generator.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils import set_seed
from torch import Tensor

from trt_qat.errors import DataError

_STEP, _AUGMENT = 1, 2


def mix_seed(seed: int, *numbers: int) -> int:
    """A seed below 2**32 from several numbers; neighbours give unrelated seeds."""
    return int(np.random.SeedSequence([seed % 2**32, *numbers]).generate_state(1)[0])


def seed_step(seed: int, step: int, process: int) -> None:
    """Seed Python, numpy and torch for one training step: dropout and data transforms."""
    set_seed(mix_seed(seed, _STEP, step, process))


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Give the caller back the random state of Python, numpy and torch that was there before."""
    python, legacy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


def augment(images: Tensor, kind: str, seed: int, step: int) -> Tensor:
    """Shift, and flip if asked, every image on its own.

    A shift pads by an eighth of the height with the darkest value of the batch and crops; half of
    the images are mirrored if ``kind`` is ``shift_flip``.

    Args:
        images: ``(N, C, H, W) float32``.
        kind: none, shift or shift_flip.
        seed: of the run.
        step: of the run; the same seed and step draw the same shifts.

    Returns:
        ``(N, C, H, W) float32``.

    Raises:
        DataError: the inputs are not one tensor of images.
    """
    if kind == "none":
        return images
    if not isinstance(images, Tensor) or images.ndim != 4:
        message = (
            f"augment = {kind!r} needs inputs that are one (N, C, H, W) tensor; "
            'set augment = "none" and augment in the data set'
        )
        raise DataError(message)
    generator = torch.Generator().manual_seed(mix_seed(seed, _AUGMENT, step))
    count, _, height, width = images.shape
    reach = max(1, height // 8)
    offsets = torch.randint(0, 2 * reach + 1, (2, count, 1), generator=generator)
    rows = (offsets[0] + torch.arange(height)).to(images.device)
    columns = offsets[1] + torch.arange(width)
    if kind == "shift_flip":
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded = F.pad(images, (reach,) * 4, value=float(images.amin()))
    # Index dimensions come first, so channels go last before and back after.
    numbers = torch.arange(count, device=images.device)[:, None, None]
    last = padded.permute(0, 2, 3, 1)
    picked = last[numbers, rows[:, :, None], columns.to(images.device)[:, None, :]]
    return picked.permute(0, 3, 1, 2)
