"""Fashion-MNIST for four styles of network: garments to tell apart, and canvases to take apart.

A canvas is 32x32 pixels of noise with three garments of half their size on it; the label of a pixel
is the kind of garment that it belongs to. All parts are disjoint, as `trt_qat.load_data` divides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

import trt_qat as tq
from tests.models import unet, vit
from trt_qat.data.arrays import ArraySplit
from trt_qat.qat.models import mobilenet_cnn, residual_cnn
from trt_qat.recipe.specs import DataSpec
from trt_qat.tasks.classes import miou, top1
from trt_qat.tasks.score import Measure

SIDE = 32
KIND = np.array([1, 2, 1, 1, 1, 3, 1, 3, 4, 3])
"""Of the ten classes: 1 tops and dresses, 2 trousers, 3 shoes, 4 bags; 0 is the ground."""

BATCH = 64  # of calibration, and of every test


@dataclass(frozen=True)
class Style:
    """A network, how its float form is trained, and how long its quantized forms are.

    Attributes:
        build: the network with new weights.
        train: keys of `TrainSpec`.
        finetune: keys of `FinetuneSpec` that all quantized rows share.
        rates: of dense and of 2:4 rows, from which validation chooses.
        samples: to train on.
        canvases: whether pixels are labelled, and not pictures.
        linear: whether its linear layers are wide enough for formats of weights alone.
    """

    build: Callable[[], nn.Module]
    train: dict[str, Any]
    finetune: dict[str, Any]
    rates: dict[str, tuple[float, ...]]
    samples: int
    canvases: bool = False
    linear: bool = False

    @property
    def measure(self) -> Measure:
        """Return what a network of this style is scored by."""
        return miou() if self.canvases else top1()


_SGD: dict[str, Any] = {"optimizer": "sgd", "weight_decay": 5e-4, "clip_norm": 10.0}
_PIXELS: dict[str, Any] = {"batch_size": 32, "label_smoothing": 0.0}
_SMALL: dict[str, Any] = {"in_channels": 1, "num_classes": 10, "stem_stride": 2}

STYLES: dict[str, Style] = {
    "ResNet": Style(
        partial(residual_cnn, **_SMALL, widths=[32, 64, 128], blocks=1),
        {"epochs": 4.0, "lr": 0.1, **_SGD},
        {"epochs": 1.0, **_SGD},
        {"dense": (5e-3, 2e-2), "2:4": (2e-2, 5e-2)},
        24_000,
    ),
    "MobileNet": Style(
        partial(mobilenet_cnn, **_SMALL, widths=[16, 32, 64], blocks=1),
        {"epochs": 5.0, "lr": 4e-3},
        {"epochs": 1.0},
        {"dense": (2e-4, 1e-3), "2:4": (1e-3, 4e-3)},
        24_000,
    ),
    "ViT": Style(
        partial(vit, in_channels=1, num_classes=10, image=28, patch=7, dim=128, depth=4),
        {"epochs": 6.0, "lr": 1e-3},
        {"epochs": 1.0},
        {"dense": (1e-4, 4e-4), "2:4": (4e-4, 1e-3)},
        24_000,
        linear=True,
    ),
    "U-Net": Style(
        partial(unet, in_channels=1, num_classes=5, width=16, levels=2),
        {"epochs": 6.0, "lr": 4e-3, **_PIXELS},
        {"epochs": 1.5, **_PIXELS},
        {"dense": (2e-4, 1e-3), "2:4": (1e-3, 4e-3)},
        3_000,
        canvases=True,
    ),
}


@dataclass
class Parts:
    """The parts of the data that a style is trained, calibrated, validated and tested on."""

    train: ArraySplit
    validation: ArraySplit
    calibration: ArraySplit
    test: ArraySplit
    batches: list[torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        """Put the calibration samples in batches."""
        self.batches = list(torch.split(torch.from_numpy(self.calibration.images), BATCH))

    @property
    def sizes(self) -> dict[str, int]:
        """Return how many samples each holds."""
        parts = (self.train, self.validation, self.calibration, self.test)
        return {part.name: len(part) for part in parts}


def parts(style: Style, samples: int | None = None) -> Parts:
    """Return the data of a style, or little of it: as many samples of each part."""
    spec = DataSpec(source="fashion-mnist", validation=0.05)
    whole = tq.load_data(spec, tq.CalibrationSpec(samples=512))
    kept: list[ArraySplit] = []
    for part in (whole.train, whole.validation, whole.calibration, whole.test):
        assert isinstance(part, ArraySplit)
        count = style.samples if part.name == "train" else len(part)
        if style.canvases:
            # 1,000 to test on: fewer pictures, but each has 1,024 labels
            count = {"train": count, "validation": 300, "calibration": 128, "test": 1000}[part.name]
            kept.append(scattered(part, min(count, samples or count)))
        else:
            kept.append(part.take(np.arange(min(count, samples or count)), part.name))
    return Parts(*kept)


def scattered(garments: ArraySplit, count: int) -> ArraySplit:
    """Return canvases of three garments each; a later one covers an earlier one."""
    draw = np.random.default_rng(len(garments))
    images = draw.random((count, 1, SIDE, SIDE), dtype=np.float32) * np.float32(0.3)
    labels = np.zeros((count, SIDE, SIDE), np.int64)
    small = garments.images.reshape(-1, 14, 2, 14, 2).mean((2, 4))
    for canvas, wanted in zip(images[:, 0], labels, strict=True):
        for at in draw.integers(0, len(garments), 3):
            row, column = draw.integers(0, SIDE - 14, 2, endpoint=True)
            place = slice(row, row + 14), slice(column, column + 14)
            shape = small[at] > 0.1
            canvas[place][shape] = small[at][shape]
            wanted[place][shape] = KIND[garments.labels[at]]
    return ArraySplit(images, labels, garments.name, np.arange(count))
