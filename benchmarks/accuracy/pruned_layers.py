"""What 2:4 costs EfficientNet-Lite0 in each of its layers, one alone, by SparseGPT and untrained.

    python benchmarks/accuracy/pruned_layers.py --pictures FOLDER --objects OBJECTS

Inputs are those of `efficientnet.py`: none of its test pictures is looked at. The power of the
error of the logits, in parts of theirs, is on 120 crops that training may see.
"""

from __future__ import annotations

import argparse
import copy
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

import trt_qat as tq
from benchmarks.accuracy import efficientnet, pictures
from trt_qat.artifact import platform_facts, versions, write_json

HELD = 120


def main() -> None:
    """Rank the layers, print them, write them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--objects", type=Path, required=True)
    default = Path("benchmarks/results/cpu/accuracy_pruned_layers.json")
    parser.add_argument("--out", type=Path, default=default)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    train, _ = pictures.split(pictures.files([given.pictures]))
    batches = list(torch.split(pictures.crops(train, 2, seed=0), 16))
    held = pictures.scenes(train, pictures.objects(given.objects), HELD, seed=11)
    model = efficientnet.network()

    def answers(network: torch.nn.Module) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([network(part) for part in torch.split(held, 30)])

    wanted = answers(model)
    pruned = tq.sparsify(
        copy.deepcopy(model), batches[0][:2], {"method": "sparsegpt"}, calibration_batches=batches
    )
    rows = []
    for name in (note.name for note in tq.report_of(pruned).sparse):
        trial = copy.deepcopy(model)
        weight = pruned.get_submodule(name).weight
        trial.get_submodule(name).weight.data.copy_(weight.detach())  # type: ignore[operator]
        noise = (answers(trial) - wanted).square().mean() / wanted.square().mean()
        rows.append({"layer": name, "weights": weight.numel(), "noise": round(float(noise), 5)})  # type: ignore[operator]
        print(rows[-1], flush=True)
    rows.sort(key=lambda row: row["noise"])
    command = "python benchmarks/accuracy/pruned_layers.py --pictures FOLDER --objects OBJECTS"
    found = {"command": command, "machine": platform_facts(), "versions": versions()}
    write_json(given.out, {**found, "crops": HELD, "rows": rows})


if __name__ == "__main__":
    main()
