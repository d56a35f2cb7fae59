"""A small one-scale detector in the way of YOLO, with a loss and a decoder of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

SIZE, STRIDE, CLASSES, MOST = 64, 8, 2, 20
SAMPLES = {"train": 512, "test": 128}


class Blocks:
    """Pictures of one to three bright rectangles (class 0) and ellipses (class 1) in noise."""

    def __init__(self, part: str) -> None:
        self.part = part

    def __len__(self) -> int:
        return SAMPLES[self.part]

    def __getitem__(self, at: int) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
        random = np.random.default_rng([at, self.part == "test"])
        rows, columns = np.mgrid[:SIZE, :SIZE]
        image = random.normal(0.2, 0.05, (SIZE, SIZE))
        boxes, labels = [], []
        for quarter in random.permutation(4)[: random.integers(1, 4)]:
            height, width = random.integers(12, 25, 2)
            top = 32 * (quarter // 2) + random.integers(0, 33 - height)
            left = 32 * (quarter % 2) + random.integers(0, 33 - width)
            label = int(random.integers(CLASSES))
            inside = (rows >= top) & (rows < top + height)
            inside &= (columns >= left) & (columns < left + width)
            if label:
                down = (rows - top + 0.5 - height / 2) / (height / 2)
                right = (columns - left + 0.5 - width / 2) / (width / 2)
                inside = down**2 + right**2 <= 1
            image[inside] += 0.6
            boxes.append([left, top, left + width, top + height])
            labels.append(label)
        target = {"boxes": np.array(boxes, np.float32), "labels": np.array(labels, np.int64)}
        return image[None].astype(np.float32), target


def data(part: str) -> Blocks:
    """Return a part of the data: the recipe's ``data.source``."""
    return Blocks(part)


def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Return Conv, BatchNorm, SiLU."""
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.SiLU())


class Detector(nn.Module):
    """``(N, 1, 64, 64)`` to boxes ``(N, 4, 8, 8)`` and class logits ``(N, 2, 8, 8)`` of a grid.

    A cell answers for the object whose centre lies in it; a box is the distances from the cell's
    centre to its left, top, right and bottom sides, in strides, before a softplus.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(
            block(1, width, 2),
            block(width, 2 * width, 2),
            block(2 * width, 2 * width, 1),
            block(2 * width, 4 * width, 2),
            block(4 * width, 4 * width, 1),
        )
        self.box = nn.Sequential(block(4 * width, 2 * width, 1), nn.Conv2d(2 * width, 4, 1))
        self.kind = nn.Sequential(block(4 * width, 2 * width, 1), nn.Conv2d(2 * width, CLASSES, 1))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.body(image)
        return {"boxes": self.box(x), "classes": self.kind(x)}


def corners(sides: Tensor) -> Tensor:
    """Return ``(N, 8, 8, 4)`` boxes, x1 y1 x2 y2 in pixels, of what the head says."""
    centre = (torch.arange(SIZE // STRIDE, device=sides.device) + 0.5) * STRIDE
    down, right = torch.meshgrid(centre, centre, indexing="ij")
    left, top, far, low = (F.softplus(sides) * STRIDE).unbind(1)
    return torch.stack([right - left, down - top, right + far, down + low], -1)


def loss(outputs: dict[str, Tensor], targets: list[dict[str, Tensor]]) -> Tensor:
    """Cross entropy of every cell's classes, and 1 - IoU of the cells that answer."""
    wanted = torch.zeros_like(outputs["classes"])
    boxes = corners(outputs["boxes"])
    found, right = [], []
    for at, target in enumerate(targets):
        centres = (target["boxes"][:, :2] + target["boxes"][:, 2:]) / 2
        columns, rows = (centres // STRIDE).long().unbind(1)
        wanted[at, target["labels"], rows, columns] = 1
        found.append(boxes[at, rows, columns])
        right.append(target["boxes"])
    kinds = F.binary_cross_entropy_with_logits(outputs["classes"], wanted, reduction="sum")
    answers, truth = torch.cat(found), torch.cat(right)
    return kinds / len(truth) + 2 * (1 - overlap(answers, truth)).mean()


def overlap(left: Tensor, right: Tensor) -> Tensor:
    """Return the intersection over union of boxes, pair by pair, ``(K,)``."""
    low = torch.maximum(left[:, :2], right[:, :2])
    high = torch.minimum(left[:, 2:], right[:, 2:])
    both = (high - low).clamp_min(0).prod(1)
    areas = [(box[:, 2:] - box[:, :2]).prod(1) for box in (left, right)]
    return both / (areas[0] + areas[1] - both).clamp_min(1e-6)


def decode(outputs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return the best boxes of each image, after non-maximum suppression of each class."""
    boxes, scores = corners(outputs["boxes"]).flatten(1, 2), outputs["classes"].sigmoid()
    images = []
    for own, each in zip(boxes, scores.flatten(2), strict=True):
        best, labels = each.max(0)
        order = best.argsort(descending=True)[:MOST]
        kept: list[int] = []
        for at in order.tolist():
            rivals = [k for k in kept if labels[k] == labels[at]]
            if (
                not rivals
                or float(overlap(own[rivals], own[at].expand(len(rivals), 4)).max()) < 0.5
            ):
                kept.append(at)
        images.append({"boxes": own[kept], "scores": best[kept], "labels": labels[kept]})
    return images
