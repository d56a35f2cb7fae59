"""What each process of a job does in `test_ranks`: its share of the data, all stages, one file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.qat.training import SPEC, small_model, stripes
from trt_qat.qat import ranks
from trt_qat.qat.export import export
from trt_qat.qat.finetune import finetune
from trt_qat.qat.quantize import quantize, ranges_of
from trt_qat.qat.reports import report_of
from trt_qat.qat.sparsify import sparsify

ALGORITHMS = ("max", "percentile", "entropy", "mse")
STEPS = SPEC.model_copy(update={"epochs": 1.0, "batch_size": 22, "accumulate": 2, "lr": 1e-3})
"""44 samples a step, and 80 samples: of 3 or 4 processes no part is as long as the others."""


def images() -> Tensor:
    return torch.from_numpy(stripes(80).images)


def shares(rank: int, world: int) -> list[Tensor]:
    """Batches of 7 to 16 samples; the last processes have fewer, one may have none."""
    batches = list(torch.split(images(), [16, 16, 16, 16, 9, 7]))
    return batches[rank::world]


def model_of(seed: int) -> nn.Module:
    model = small_model(seed)
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return model


def measured(rank: int, world: int) -> dict[str, dict[str, float]]:
    """Ranges of a float model, by every algorithm."""
    found = {}
    for algorithm in ALGORITHMS:
        model = quantize(model_of(0), shares(rank, world), calibration={"algorithm": algorithm})
        found[algorithm] = ranges_of(model).amax
    return found


def trained(rank: int, world: int, folder: Path) -> dict[str, Any]:
    """Masks, ranges, learned scales, statistics and history of a whole QAT, and its ONNX."""
    # Each has other weights: the first one's count, as when a model is wrapped in DDP.
    model = sparsify(model_of(rank), images()[:2])
    spec = {"learned_scales": True}
    model = quantize(model, shares(rank, world), spec=spec, calibration={"algorithm": "max"})
    # Copies, for the training moves what they view.
    before = {name: value.clone() for name, value in model.state_dict().items()}
    held_out = stripes(41, seed=1)
    finetune(model, stripes(80), spec=STEPS, validation_batches=held_out, progress=False)
    path = folder / f"{rank}.onnx"
    with ranks.alone():
        export(model, images()[:2], path)
    return {
        "before": before,
        "after": dict(model.state_dict()),
        "history": report_of(model).history,
        "onnx": path.read_bytes(),
    }


def moving(rank: int) -> dict[str, Tensor]:
    """State after a training whose masks move at every step, and those masks before it."""
    model = sparsify(model_of(rank), images()[:2])
    masks = {f"{n} before": m.clone() for n, m in model.state_dict().items() if "mask" in n}
    spec: dict[str, Any] = {"epochs": 2.0, "batch_size": 22, "lr": 1e-2, "recompute_masks": 1.0}
    spec["recompute_every"] = 1
    finetune(model, stripes(80), spec=spec, progress=False)
    return masks | model.state_dict()


def main() -> None:
    folder = Path(sys.argv[1])
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    result = {"ranges": measured(rank, world), **trained(rank, world, folder)}
    result["moving"] = moving(rank)
    torch.save(result, folder / f"{rank}.pt")


if __name__ == "__main__":
    main()
