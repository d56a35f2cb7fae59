"""What the tests of training share; it imports no more than training itself does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trt_qat.qat.finetune import finetune
from trt_qat.qat.models import residual_cnn
from trt_qat.recipe.specs import TrainSpec

SPEC = TrainSpec(epochs=3, batch_size=16, lr=5e-3, label_smoothing=0.0)


@dataclass
class Arrays:
    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def stripes(count: int = 80, seed: int = 0) -> Arrays:
    """Images with a bright row; the row's number is the class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, count)
    images = random.normal(0.0, 0.3, (count, 1, 8, 8)).astype(np.float32)
    images[np.arange(count), 0, 2 * labels] += 1.0
    return Arrays(images, labels.astype(np.int64))


def small_model(seed: int = 0) -> nn.Module:
    """A residual network with dropout, so that a resumed run must get its random numbers right."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = residual_cnn(num_classes=4, widths=(16, 16))
    model.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Dropout(0.2))
    return model


def fragile_model(data: Any, layer: str) -> nn.Module:
    """A trained `small_model` with one layer whose INT8 range one huge, idle weight eats up."""
    model = train(small_model(), data).eval()
    worst: Any = model.get_submodule(layer)
    with torch.no_grad():
        # One weight a filter is 400 times the rest; its input channel is always 0.
        channel = 3
        feeding: Any = model.get_submodule("stages.0.conv2")
        norm: Any = model.get_submodule("stages.0.bn2")
        feeding.weight[channel] = 0
        norm.weight[channel] = 0
        norm.bias[channel] = -100
        worst.weight[:, channel, 1, 1] = 400 * worst.weight.abs().max()
    return model


def train(model: nn.Module, data: Any, **arguments: Any) -> nn.Module:
    arguments.setdefault("spec", SPEC)
    return finetune(model, data, progress=False, **arguments)


def same_weights(left: nn.Module, right: nn.Module) -> bool:
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
