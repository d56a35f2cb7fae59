"""What an order of channels keeps of the magnitude that 2:4 loses, on EfficientNet-Lite0.

    python benchmarks/accuracy/permutation.py

Free is the half of each row with the largest magnitudes, wherever it stands; what 2:4 loses is held
against it, because half of the weights go either way.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import nn

import trt_qat as tq
from benchmarks.accuracy.efficientnet import network
from trt_qat.artifact import platform_facts, versions, write_json
from trt_qat.qat.masks import as_rows, mask_of
from trt_qat.qat.permute import best_order, permute_channels


def magnitudes(model: nn.Module, names: list[str]) -> tuple[float, float, float]:
    """Return the magnitude that 2:4 keeps, that half of each row keeps, and all of it."""
    plain = free = whole = 0.0
    for name in names:
        weight = model.get_submodule(name)._parameters["weight"]
        assert weight is not None
        rows = as_rows(weight.detach()).abs().reshape(-1, weight.shape[1])
        plain += float((rows * mask_of(rows)).sum())
        free += float(rows.topk(rows.shape[1] // 2, 1).values.sum())
        whole += float(rows.sum())
    return plain, free, whole


def alone(model: nn.Module, names: list[str], rounds: int) -> float:
    """Return the magnitude that 2:4 keeps where each layer has the order that suits it best."""
    kept = 0.0
    for name in names:
        weight = model.get_submodule(name)._parameters["weight"]
        assert weight is not None
        rows = as_rows(weight.detach()).abs().reshape(-1, weight.shape[1])
        ordered = rows[:, best_order(rows, rounds, worth=0.0)]
        kept += float((ordered * mask_of(ordered)).sum())
    return kept


def main() -> None:
    """Permute, and compare magnitudes and outputs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=512)
    given_rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    model, given = network(), torch.randn(4, 3, 224, 224)
    pruned = tq.sparsify(copy.deepcopy(model), given)
    names = [note.name for note in tq.report_of(pruned).sparse]
    start = time.perf_counter()
    other = copy.deepcopy(model)
    moved = permute_channels(other, given, names).readers
    seconds = time.perf_counter() - start
    with torch.no_grad():
        wanted, got = model(given), other(given)
    plain, free, whole = magnitudes(model, names)
    permuted, _, _ = magnitudes(other, names)
    best = alone(model, names, given_rounds)
    document = {
        "command": "python benchmarks/accuracy/permutation.py " + " ".join(sys.argv[1:]),
        "machine": platform_facts(),
        "versions": versions(),
        "layers": len(names),
        "permuted": len(moved),
        "seconds": round(seconds, 1),
        "kept_plain": round(plain / whole, 4),
        "kept_permuted": round(permuted / whole, 4),
        "kept_free": round(free / whole, 4),
        "part_of_loss_against_free": round((permuted - plain) / (free - plain), 4),
        "alone_of_loss_against_free": round((best - plain) / (free - plain), 4),
        "free_of_all_that_2:4_loses": round((free - plain) / (whole - plain), 4),
        "outputs_apart": float((got - wanted).abs().max() / wanted.abs().max()),
    }
    write_json(Path("benchmarks/results/cpu/accuracy_permutation.json"), document)
    print(document)


if __name__ == "__main__":
    main()
