"""The network of the cost curves: as many equal convolutions as asked, as wide as asked."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.shared.side_by_side import quiet

SIDE = 16


def chain(layers: int, channels: int) -> nn.Module:
    """Return 3 x 3 convolutions with BatchNorm and ReLU in a row, in eval mode, always the same.

    The first reads 3 channels, so it is the one that 2:4 leaves dense.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blocks: list[nn.Module] = []
        for i in range(layers):
            conv = nn.Conv2d(channels if i else 3, channels, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(conv.weight)  # magnitudes stay what they are through the chain
            blocks += [conv, nn.BatchNorm2d(channels), nn.ReLU()]
        return nn.Sequential(*blocks).eval()


def images(samples: int, seed: int = 0) -> Tensor:
    """Return ``(samples, 3, 16, 16) float32`` of a normal distribution."""
    return torch.randn(samples, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def float_onnx(model: nn.Module, example: Tensor, path: Path) -> None:
    """Write a model as float ONNX, its input called ``x`` and its batch dynamic."""
    shapes = ({0: torch.export.Dim("batch")},)
    with quiet(), torch.no_grad():
        torch.onnx.export(
            model, (example,), path, dynamo=True, input_names=["x"], dynamic_shapes=shapes,
            external_data=False, verbose=False,
        )  # fmt: skip
