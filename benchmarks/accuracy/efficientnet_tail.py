"""The last blocks of EfficientNet-Lite0 as a network of their own, pruned and trained alone.

What stands before them is float and stays: it is run once over each crop, and the blocks learn from
their float selves on what it wrote, at a tenth of the time of a step of the whole network.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

import trt_qat as tq
from benchmarks.accuracy import pictures

BATCH = 32


class Front(nn.Module):
    """What stands before block ``first``."""

    def __init__(self, model: Any, first: int) -> None:
        super().__init__()
        self._conv_stem, self._bn0, self._swish = model._conv_stem, model._bn0, model._swish
        self._blocks = nn.ModuleList(list(model._blocks)[:first])

    def forward(self, crops: Tensor) -> Tensor:
        """Return what block ``first`` reads."""
        found = self._swish(self._bn0(self._conv_stem(crops)))
        for block in self._blocks:
            found = block(found)
        return cast("Tensor", found)


class Tail(nn.Module):
    """Block ``first`` and what stands behind it; paths are those of the whole network."""

    def __init__(self, model: Any, first: int) -> None:
        super().__init__()
        blocks = enumerate(list(model._blocks)[first:], first)
        self._blocks = nn.ModuleDict({str(at): block for at, block in blocks})
        self._conv_head, self._bn1, self._swish = model._conv_head, model._bn1, model._swish
        self._avg_pooling, self._fc = model._avg_pooling, model._fc

    def forward(self, found: Tensor) -> Tensor:
        """Return logits, without dropout."""
        for block in self._blocks.values():
            found = block(found)
        found = self._avg_pooling(self._swish(self._bn1(self._conv_head(found))))
        return cast("Tensor", self._fc(found.flatten(1)))


def scenes(photographs: list[Path], things: list[Path], rounds: int) -> Iterator[Tensor]:
    """Yield crops round by round: one of each photograph, and as many with a thing before them."""
    for at in range(rounds):
        yield pictures.crops(photographs, 1, seed=100 + at)
        yield pictures.scenes(photographs, things, len(photographs), seed=200 + at)


def with_pruned_tail(
    model: nn.Module,
    first: int,
    sparse: Sequence[str],
    crops: Iterator[Tensor],
    training: dict[str, Any],
) -> nn.Module:
    """Return a copy of a float network, pruned by SparseGPT behind ``first`` and trained there.

    Args:
        model: the network.
        first: number of the first block that is trained.
        sparse: patterns of layers that get 2:4 masks.
        crops: what it learns from, ``(N, 3, 224, 224)`` each.
        training: of `trt_qat.finetune`.
    """
    model = copy.deepcopy(model).eval()
    front, tail = Front(model, first).eval(), Tail(model, first).eval()
    with torch.no_grad():
        features = torch.cat([front(part) for each in crops for part in torch.split(each, BATCH)])
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    batches = [features[part] for part in torch.split(order, BATCH) if len(part) == BATCH]
    student = tq.sparsify(
        copy.deepcopy(tail),
        batches[0][:2],
        {"method": "sparsegpt", "include": sparse, "skip_first": False},
        calibration_batches=batches,
    )
    knobs = {key: value for key, value in training.items() if key != "steps"}
    tq.finetune(
        student,
        batches,
        spec={"epochs": training["steps"] / len(batches), **knobs},
        teacher=copy.deepcopy(tail),
        distill={"match": "outputs", "feature_weight": 0.3},
    )
    with torch.no_grad():
        for name, parameter in tail.named_parameters():  # they are those of the whole network
            owner, _, key = name.rpartition(".")
            parameter.copy_(getattr(student.get_submodule(owner), key))
    # What is 0 in every group of four stays so: the same masks again, on the whole network.
    return tq.sparsify(model, torch.zeros(2, 3, 224, 224), {"include": sparse})
