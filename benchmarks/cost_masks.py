"""What the search for 2:4 masks costs: ours against ModelOpt's.

    python benchmarks/cost_masks.py

Ours is `trt_qat.sparsify`, which runs the model once to find its first layer, says why a layer
stays dense, and finds the masks by comparisons; ModelOpt's is ``mts.sparsify`` by magnitude on
every layer that it takes. ``topk`` makes the same masks by one ``topk`` over the groups of each
weight.
"""

from __future__ import annotations

import copy
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import modelopt.torch.sparsity as mts
import torch
from torch import nn

from benchmarks.shared.chain import chain, images
from benchmarks.shared.side_by_side import Call, Size, Study, Variant, main, quiet
from trt_qat.qat.sparsify import sparsify


def ours(model: nn.Module, example: torch.Tensor | None) -> Call:
    """Sparsify a fresh copy by trt-qat."""
    return partial(sparsify, copy.deepcopy(model), example)


def modelopt(model: nn.Module) -> Call:
    """Sparsify a fresh copy by ModelOpt alone."""
    fresh = copy.deepcopy(model)

    def call() -> None:
        with quiet():
            mts.sparsify(fresh, "sparse_magnitude")

    return call


def topk(model: nn.Module) -> Call:
    """Compute the masks of all weights of 16 and more input channels, and nothing else."""
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 15]

    def call() -> list[torch.Tensor]:
        masks = []
        for weight in weights:
            groups = weight.detach().permute(0, 2, 3, 1).reshape(-1, 4).abs()
            kept = groups.topk(2, dim=1, sorted=False).indices
            masks.append(torch.zeros_like(groups).scatter_(1, kept, 1))
        return masks

    return call


def variants(size: Size) -> dict[str, Variant]:
    """Return everything to be timed on a chain of ``layers`` and ``channels``."""
    torch.set_num_threads(1)
    model = chain(size["layers"], size["channels"])
    return {
        "ours": partial(ours, model, images(2)),
        "ours-no-example": partial(ours, model, None),
        "modelopt": partial(modelopt, model),
        "topk": partial(topk, model),
    }


STUDY = Study(
    name="cost_masks",
    variants=variants,
    pairs=(("ours", "modelopt"), ("ours-no-example", "modelopt"), ("modelopt", "topk")),
    base={"layers": 16, "channels": 128},
    sweeps={"layers": (4, 8, 16, 32), "channels": (64, 128, 256, 512)},
    curves=("ours", "modelopt"),
)

if __name__ == "__main__":
    main(STUDY, __file__)
