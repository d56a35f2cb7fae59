"""A task for every reference architecture that it learns in a few dozen steps.

An untrained net answers by accident: its largest logit is barely the largest, and one code that
fell to the other side of a tie changes the answer. A net that has learned something decides with a
margin, as the nets do that people deploy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models import Reference, outputs_of

BATCH = 32
YOLO_CLASSES = 16
SEGMENT_CLASSES, CELLS, CELL = 4, 4, 8  # a 4x4 grid of cells of 8x8 pixels


@dataclass(frozen=True)
class Batch:
    """Inputs of a model, and the class of each sample ``(N,)``, token or pixel ``(N, ...)``."""

    inputs: tuple[Tensor, ...]
    targets: Tensor


def draw(reference: Reference, count: int, seed: int) -> Batch:
    """Draw samples of the architecture's task."""
    generator = torch.Generator().manual_seed(seed)
    first, *rest = reference.example_inputs(count, seed=seed)
    if reference.task == "language":  # give every token back
        return Batch((first,), first)
    if reference.task == "segmentation":
        cells = torch.randint(SEGMENT_CLASSES, (count, CELLS, CELLS), generator=generator)
        classes = cells.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)
        colours = torch.tensor([[2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0], [-2.0, -2.0, -2.0]])
        return Batch((0.2 * first + colours[classes].permute(0, 3, 1, 2),), classes)
    classes = torch.randint(_classes(reference), (count,), generator=generator)
    if not first.is_floating_point():  # tokens: the first four say which
        first[:, :4] = classes[:, None]
        return Batch((first, *rest), classes)
    (prototypes, *_) = reference.example_inputs(_classes(reference), seed=99)
    return Batch((0.3 * first + prototypes[classes], *rest), classes)


def _classes(reference: Reference) -> int:
    if reference.task == "detection":
        return YOLO_CLASSES
    return 4 if "bert" in reference.name else 10


def scores(reference: Reference, outputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the class scores among a model's outputs, ``(..., classes)``."""
    if reference.task == "segmentation":
        return [outputs[0].movedim(1, -1)]
    if reference.task == "detection":  # every cell of every scale; box channels come first
        return [output[:, -YOLO_CLASSES:].movedim(1, -1) for output in outputs]
    return [outputs[0]]


def loss_of(reference: Reference, model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of every score; other outputs are drawn to 0, so that each gets a gradient."""
    outputs = outputs_of(model(*batch.inputs))
    total = sum((0.01 * output.square().mean() for output in outputs), torch.zeros(()))
    for score in scores(reference, outputs):
        targets = batch.targets
        if reference.task == "detection":
            targets = targets[:, None, None].expand(score.shape[:-1])
        total = total + F.cross_entropy(score.flatten(0, -2), targets.flatten())
    return total


def train(reference: Reference, model: nn.Module, steps: int, lr: float, seed: int = 0) -> float:
    """Take AdamW steps; return the last loss. The model is left in evaluation mode."""
    parameters: Any = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr)
    loss = torch.zeros(())
    model.train()
    for step in range(steps):
        optimizer.zero_grad()
        loss = loss_of(reference, model, draw(reference, BATCH, seed=10_000 * (seed + 1) + step))
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    model.eval()
    return float(loss.detach())
