"""Fashion-MNIST, four styles of network: what each method keeps of one well-trained float network.

    python benchmarks/accuracy/fashion.py                      # goes on where it stopped
    python benchmarks/accuracy/fashion.py --styles ViT --only "INT4*"   # makes these rows again

Needs Debian's dataset-fashion-mnist. Three seeds, of the first weights and of the order of batches;
every row starts from the float network of its seed and style. Scores are of the test split: top-1
of 10,000 pictures, of the U-Net mean IoU of 1,000 canvases. The rate of rows that train is the one
of two that the first seed validates best with, once for dense and once for 2:4 networks.

Networks are measured as torch computes them with fake quantization, but for onnxruntime's.
"""

from __future__ import annotations

import argparse
import copy
import fnmatch
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import nn

import trt_qat as tq
from benchmarks.accuracy import stock
from benchmarks.accuracy.fashion_table import Row, summary
from benchmarks.accuracy.garments import BATCH, STYLES, Parts, Style, parts
from trt_qat.artifact import platform_facts, versions, write_json
from trt_qat.qat.evaluate import evaluate
from trt_qat.tasks.score import Meter

BEST = {"rounding": "learned", "bias_correction": True}
MAX = {"algorithm": "max"}
Make = Callable[[], Any]

PTQ: dict[str, dict[str, Any]] = {
    "PTQ, max": {"calibration": MAX},
    "PTQ, percentile 99.99": {"calibration": {"algorithm": "percentile"}},
    "PTQ, entropy": {"calibration": {"algorithm": "entropy"}},
    "PTQ, mse (default)": {},
    "PTQ, moving average": {"calibration": {"algorithm": "moving_average"}},
    "PTQ, mse, rounding and bias": {"ptq": BEST},
    "PTQ, mse, zero points folded, padding too": {"spec": {"zero_point": "padded"}},
    "FP8, max": {"spec": {"format": "fp8"}, "calibration": MAX},
}
LINEAR: dict[str, dict[str, Any]] = {
    "PTQ, max, SmoothQuant searched": {"ptq": {"smooth": "search"}, "calibration": MAX},
    **{
        f"INT4 weights, {method}": {"spec": {"format": "int4", "int4_method": method}}
        for method in ("round-to-nearest", "awq", "gptq")
    },
    "NVFP4 weights": {"spec": {"format": "nvfp4"}},
    **{
        f"NVFP4 weights, {method}": {"spec": {"format": "nvfp4", "nvfp4_method": method}}
        for method in ("awq", "gptq")
    },
}
METHODS = ("magnitude", "wanda", "sparsegpt")
DISTILL = {"match": "logits", "feature_weight": 0.3}
ORT = ("stock (MinMax, per tensor)", "MinMax, per channel, symmetric")


@dataclass
class Lab:
    """A float network, and what is made of it.

    Attributes:
        style: of the network.
        data: of the style.
        seed: of training.
        network: the trained float network, which nothing changes.
        rates: of training dense and 2:4 networks.
    """

    style: Style
    data: Parts
    seed: int
    network: nn.Module
    rates: dict[str, float]

    def quantized(self, **options: Any) -> nn.Module:
        """Quantize a copy."""
        return tq.quantize(copy.deepcopy(self.network), self.data.batches, **options)

    def pruned(self, method: str) -> nn.Module:
        """Prune a copy to 2:4 and quantize it by the defaults."""
        batches = self.data.batches
        spec = {"method": method}
        network = copy.deepcopy(self.network)
        sparse = tq.sparsify(network, batches[0][:2], spec, calibration_batches=batches)
        return tq.quantize(sparse, batches)

    def trained(self, make: Make, rate: float, distil: bool = False, **keys: Any) -> nn.Module:
        """Make a network and train it."""
        spec = {**self.style.finetune, "lr": rate, "seed": self.seed, **keys}
        taught = {"teacher": copy.deepcopy(self.network), "distill": DISTILL} if distil else {}
        return tq.finetune(
            make(),
            self.data.train,
            spec=spec,
            validation_batches=self.data.validation,
            measure=None if distil else self.style.measure,
            progress=False,
            **taught,  # type: ignore[arg-type]
        )

    def rows(self) -> dict[str, tuple[Make, int]]:
        """Return what makes each row's network, and on how many samples.

        Samples count as often as training sees them.
        """
        calibrated = len(self.data.calibration)
        seen = calibrated + round(self.style.finetune["epochs"] * len(self.data.train))
        once = round(self.style.train["epochs"] * len(self.data.train))
        batches = self.data.batches
        dense, sparse = self.rates["dense"], self.rates["2:4"]
        found: dict[str, tuple[Make, int]] = {"FP32": (lambda: self.network, once)}
        longer = partial(self.trained, lambda: copy.deepcopy(self.network))
        found["FP32, trained as long as QAT"] = (partial(longer, dense), seen - calibrated)
        for name, options in (PTQ | LINEAR if self.style.linear else PTQ).items():
            found[name] = (partial(self.quantized, **options), calibrated)
        found["ModelOpt, stock"] = (partial(stock.modelopt, self.network, batches), calibrated)
        for name in ORT:
            make = partial(stock.onnxruntime, self.network, batches, stock.ORT[name])
            found[f"onnxruntime, {name}"] = (make, calibrated)
        learned = partial(self.quantized, spec={"learned_scales": True})
        found["QAT"] = (partial(self.trained, self.quantized, dense), seen)
        found["QAT, learned scales"] = (partial(self.trained, learned, dense), seen)
        taught = partial(self.trained, self.quantized, dense, distil=True)
        found["QAT, distilled, no labels"] = (taught, seen)
        for method in METHODS:
            start = partial(self.pruned, method)
            found[f"2:4 by {method}, PTQ"] = (start, calibrated)
            found[f"2:4 by {method}, QAT"] = (partial(self.trained, start, sparse), seen)
        start = partial(self.pruned, "magnitude")
        moving = partial(self.trained, start, sparse, recompute_masks=0.5)
        found["2:4 by magnitude, QAT with moving masks"] = (moving, seen)
        again = partial(self.trained, start, sparse, epochs=self.style.train["epochs"])
        found["2:4 by magnitude, QAT as long as FP32"] = (again, calibrated + once)
        return found

    def validated(self, make: Make, rate: float) -> float:
        """Return the score on the validation part of what training with a rate leaves."""
        return self.score(self.trained(make, rate), self.data.validation)

    def score(self, network: Any, split: Any) -> float:
        """Return the score of a network, or of a function from inputs to outputs."""
        if isinstance(network, nn.Module):
            return evaluate(network, split.batches(BATCH), measure=self.style.measure).accuracy
        meter = Meter(self.style.measure)
        for images, labels in split.batches(BATCH):
            meter.update(network(torch.from_numpy(images)).numpy(), labels)
        return meter.score().value


def float_network(name: str, data: Parts, seed: int, keep: Path) -> tuple[nn.Module, float]:
    """Return the float network of a style and a seed, and the seconds of its training."""
    style, path = STYLES[name], keep / f"{name}-{seed}.pt"
    torch.manual_seed(seed)
    network = style.build()
    if path.is_file():
        kept = torch.load(path, weights_only=True)
        network.load_state_dict(kept["weights"])
        return network.eval(), kept["seconds"]
    start = time.perf_counter()
    spec = tq.TrainSpec(**style.train, seed=seed)
    tq.finetune(
        network,
        data.train,
        spec=spec,
        validation_batches=data.validation,
        measure=style.measure,
        progress=False,
    )
    seconds = time.perf_counter() - start
    keep.mkdir(parents=True, exist_ok=True)
    torch.save({"weights": network.state_dict(), "seconds": seconds}, path)
    return network, seconds


class Table:
    """The result file: read before each row is added, so that two processes may fill one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: dict[str, Any] = {"rows": [], "styles": {}}
        self.read()

    def read(self) -> None:
        """Take what the file holds."""
        if self.path.is_file():
            self.told = json.loads(self.path.read_text(encoding="utf-8"))

    def write(self) -> None:
        """Write it, with a summary of the rows."""
        rows, styles = self.told["rows"], self.told["styles"]
        rows.sort(key=lambda row: (row["style"], row["seed"]))
        write_json(
            self.path,
            {
                "command": "python benchmarks/accuracy/fashion.py",
                "machine": platform_facts(),
                "versions": versions(),
                "interval": "95 %, of Student, over seeds; differences are of the same seed",
                "computed_by": "torch with fake quantization; rows of onnxruntime by it",
                "styles": styles,
                "summary": summary(rows),
                "rows": rows,
            },
        )

    def has(self, **key: Any) -> bool:
        """Tell whether there is a row of a style, a seed and a name."""
        return any(key.items() <= row.items() for row in self.told["rows"])

    def add(self, row: Row) -> None:
        """Put a row in, in the place of the one before."""
        self.read()
        key = {name: row[name] for name in ("style", "seed", "name")}
        rows = self.told["rows"]
        there = [at for at, old in enumerate(rows) if key.items() <= old.items()]
        at = there[0] if there else len(rows)
        rows[at : at + 1] = [row]
        self.write()
        print(row, flush=True)


def choose(lab: Lab) -> dict[str, Any]:
    """Return the rates with which the validation part is answered best, dense and 2:4."""
    starts: dict[str, Make] = {"dense": lab.quantized, "2:4": partial(lab.pruned, "magnitude")}
    found: dict[str, Any] = {"validation": {}}
    for name, make in starts.items():
        tried = {rate: lab.validated(make, rate) for rate in lab.style.rates[name]}
        found["validation"][name] = {str(rate): round(value, 4) for rate, value in tried.items()}
        found[name] = max(tried, key=lambda rate: tried[rate])
    return found


def named(row: str, patterns: list[str]) -> bool:
    """Tell whether a row is meant by a pattern."""
    return any(fnmatch.fnmatchcase(row, pattern) for pattern in patterns)


def measure(name: str, seed: int, table: Table, given: argparse.Namespace) -> None:
    """Make the rows of one style and one seed that are wanted and not there."""
    style = STYLES[name]
    data = parts(style, given.samples)
    network, seconds = float_network(name, data, seed, given.keep)
    lab = Lab(style, data, seed, network, {"dense": 0.0, "2:4": 0.0})
    if "rates" not in table.told["styles"].get(name, {}):
        rates = choose(lab)
        facts = {"train": style.train, "finetune": style.finetune, "samples": data.sizes}
        table.read()
        table.told["styles"][name] = {"metric": style.measure.metric, **facts, "rates": rates}
        table.write()
    lab.rates = table.told["styles"][name]["rates"]
    for row, (make, samples) in lab.rows().items():
        asked = named(row, given.only or ["*"]) and not named(row, given.without)
        if not asked or (given.only is None and table.has(style=name, seed=seed, name=row)):
            continue
        start = time.perf_counter()
        made = make()
        spent = seconds if row == "FP32" else time.perf_counter() - start
        found = {"style": name, "seed": seed, "name": row}
        found["score"] = round(lab.score(made, data.test), 5)
        table.add({**found, "seconds": round(spent, 1), "samples": samples})


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--styles", nargs="+", choices=list(STYLES), default=list(STYLES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="patterns of rows, which are made again")
    parser.add_argument("--without", nargs="+", default=[], help="patterns of rows to leave out")
    parser.add_argument("--samples", type=int, help="of each part at most, to try the script")
    parser.add_argument("--keep", type=Path, default=Path("runs/fashion"), help="float networks")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/cpu/accuracy_fashion.json")
    )
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    table = Table(given.out)
    for seed in given.seeds:
        for name in given.styles:
            measure(name, seed, table, given)


if __name__ == "__main__":
    main()
