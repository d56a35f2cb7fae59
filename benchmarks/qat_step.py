"""Step time of QAT: FP32, torch.ao, ModelOpt stock, ours, and ours with learned scales, as ratios.

    python benchmarks/qat_step.py
    python benchmarks/qat_step.py --architecture resnet50 --rounds 60 --device cuda

A step is forward, backward and SGD on one batch. The models of an architecture take turns in one
process, in an order that rotates from round to round, so that what slows the machine down slows all
of them. A ratio is the median of the ratios of single rounds, with a 95 % bootstrap interval.
ModelOpt stock is ``mtq.quantize`` with ``INT8_DEFAULT_CFG``; FP32 is the model before any of it;
torch.ao is ``prepare_qat_fx`` of torch with the symmetric per-channel qconfig, its observers off
after calibration as the ranges of the others are. Where FX cannot trace an architecture there is no
torch.ao. Peaks of memory are those of three steps, each variant in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import modelopt.torch.quantization as mtq
import numpy as np
import torch
from modelopt.torch.quantization.nn import TensorQuantizer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.ao.quantization import (
    QConfigMapping,
    default_per_channel_symmetric_qnnpack_qat_qconfig,
    disable_observer,
)
from torch.ao.quantization.fake_quantize import FakeQuantizeBase
from torch.ao.quantization.quantize_fx import prepare_qat_fx

from benchmarks.shared.side_by_side import growth, memory
from tests.models import REFERENCE, Reference, outputs_of
from trt_qat.artifact import platform_facts, versions, write_json
from trt_qat.errors import first_line
from trt_qat.qat.quantize import quantize
from trt_qat.recipe.specs import QuantizeSpec

ARCHITECTURES = ("resnet18", "mobilenet_v2", "vit", "hf_bert_eager")
RESULTS = Path("benchmarks/results")
RATIOS = (
    ("modelopt", "fp32"),
    ("ours", "fp32"),
    ("learned", "fp32"),
    ("ours", "modelopt"),
    ("learned", "modelopt"),
    ("torch_ao", "fp32"),
    ("ours", "torch_ao"),
)
LIMIT = 1.05  # of "ours" over "modelopt"
RESAMPLES = 2000
Inputs = tuple[Tensor, ...]


def fp32(model: nn.Module, calibration: list[Inputs]) -> nn.Module:
    """Return the float model."""
    del calibration
    return model


def modelopt(model: nn.Module, calibration: list[Inputs]) -> nn.Module:
    """Return ModelOpt's stock INT8 model."""

    def calibrate(quantized: nn.Module) -> None:
        for batch in calibration:
            quantized(*batch)

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        found: nn.Module = mtq.quantize(model, copy.deepcopy(mtq.INT8_DEFAULT_CFG), calibrate)
    return found


def ours(model: nn.Module, calibration: list[Inputs]) -> nn.Module:
    """Return our model, its scales fixed as ModelOpt's are."""
    return quantize(model, calibration)


def learned(model: nn.Module, calibration: list[Inputs]) -> nn.Module:
    """Return our model with LSQ scales."""
    return quantize(model, calibration, spec=QuantizeSpec(learned_scales=True))


def torch_ao(model: nn.Module, calibration: list[Inputs]) -> nn.Module:
    """Return torch's own fake-quantized model; an error of any kind where FX cannot trace it."""
    mapping = QConfigMapping().set_global(default_per_channel_symmetric_qnnpack_qat_qconfig)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared_model: nn.Module = prepare_qat_fx(model.train(), mapping, calibration[0])
    for batch in calibration:
        prepared_model(*batch)
    return prepared_model.apply(disable_observer)


VARIANTS: dict[str, Callable[[nn.Module, list[Inputs]], nn.Module]] = {
    "fp32": fp32,
    "modelopt": modelopt,
    "ours": ours,
    "learned": learned,
    "torch_ao": torch_ao,
}


@dataclass
class Trained:
    """A model in training: what a step needs."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    batch: Inputs

    def step(self) -> float:
        """Do one step; return its seconds."""
        synchronize(self.batch)
        start = time.perf_counter()
        self.optimizer.zero_grad()
        loss = torch.stack([out.square().mean() for out in outputs_of(self.model(*self.batch))])
        loss.sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        synchronize(self.batch)
        return time.perf_counter() - start


def synchronize(batch: Inputs) -> None:
    """Wait for the GPU, if the batch is on one."""
    if batch[0].is_cuda:
        torch.cuda.synchronize()


def prepared(reference: Reference, size: int, device: torch.device) -> dict[str, Trained]:
    """Return every variant of an architecture, on the same weights, batch and calibration."""
    names = [name for name in VARIANTS if name != "torch_ao" or traced_by_fx(reference)]
    return {name: trained(name, reference, size, device) for name in names}


def trained(name: str, reference: Reference, size: int, device: torch.device) -> Trained:
    """Return one variant of an architecture, ready for its steps."""
    calibration = [moved(reference.example_inputs(16, seed), device) for seed in range(2)]
    batch = moved(reference.example_inputs(size, 2), device)
    model = VARIANTS[name](reference.build().to(device), calibration).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)
    return Trained(model, optimizer, batch)


def traced_by_fx(reference: Reference) -> bool:
    """Tell whether torch.ao can prepare an architecture."""
    try:
        torch_ao(reference.build(), [reference.example_inputs(2)])
    except Exception as error:  # FX raises what the model's own Python makes it raise
        print(f"{reference}: no torch.ao: {first_line(error)}", file=sys.stderr)
        return False
    return True


def peak(name: str, variant: str, size: int) -> dict[str, float]:
    """Return how far three steps of one variant raise the peak of this process."""
    device = torch.device("cpu")

    def prepare() -> Callable[[], object]:
        ready = trained(variant, REFERENCE[name], size, device)
        return lambda: [ready.step() for _ in range(3)]

    return growth(prepare)


def moved(inputs: Inputs, device: torch.device) -> Inputs:
    """Return the tensors of a batch on a device."""
    return tuple(tensor.to(device) for tensor in inputs)


def active_quantizers(model: nn.Module) -> int:
    """Return how many quantizers a step runs."""
    return sum(
        isinstance(m, FakeQuantizeBase) or (isinstance(m, TensorQuantizer) and m.is_enabled)
        for m in model.modules()
    )


def timed(variants: dict[str, Trained], rounds: int, warmup: int) -> dict[str, NDArray[Any]]:
    """Return seconds ``(rounds,) float64`` of each variant's step; the variants take turns."""
    names = list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(warmup + rounds):
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            elapsed = variants[name].step()
            if index >= warmup:
                seconds[name].append(elapsed)
    return {name: np.array(values) for name, values in seconds.items()}


def ratio(a: NDArray[Any], b: NDArray[Any]) -> dict[str, Any]:
    """Return the median of ``a / b`` over the rounds, with its 95 % bootstrap interval."""
    each = a / b
    draws = np.random.default_rng(0).choice(each, (RESAMPLES, len(each)))
    low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
    return {"median": float(np.median(each)), "ci95": [float(low), float(high)]}


def peaks(name: str, variants: list[str], given: argparse.Namespace) -> dict[str, Any]:
    """Return the peak of each variant's steps in a process of its own; none on another device."""
    if given.device != "cpu":
        return {}
    arguments = ("--architecture", name, "--batch", str(given.batch))
    return memory(__file__, variants, *arguments, "--threads", str(given.threads))


def measure(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Time one architecture."""
    variants = prepared(REFERENCE[name], given.batch, torch.device(given.device))
    seconds = timed(variants, given.rounds, given.warmup)
    return {
        "batch": given.batch,
        "quantizers": {key: active_quantizers(v.model) for key, v in variants.items()},
        "median_ms": {key: 1e3 * float(np.median(value)) for key, value in seconds.items()},
        "ratios": {
            f"{a}/{b}": ratio(seconds[a], seconds[b]) for a, b in RATIOS if {a, b} <= set(seconds)
        },
        "memory": peaks(name, list(seconds), given),
    }


def table(rows: dict[str, dict[str, Any]]) -> Table:
    """Return the ratios for people."""
    found = Table(title="QAT step time, median ratio [95 % interval]")
    found.add_column("architecture")
    found.add_column("FP32 step")
    for a, b in RATIOS:
        found.add_column(f"{a} / {b}", justify="right")
    for name, row in rows.items():
        cells = [
            f"{entry['median']:.3f} [{entry['ci95'][0]:.3f}, {entry['ci95'][1]:.3f}]"
            if (entry := row["ratios"].get(f"{a}/{b}"))
            else "none"
            for a, b in RATIOS
        ]
        found.add_row(name, f"{row['median_ms']['fp32']:.1f} ms", *cells)
    return found


def main() -> None:
    """Measure, print the table, write the JSON; exit 1 where ours is over the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--architecture", action="append", choices=list(REFERENCE))
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=3, help="rounds that are not counted")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help=f"default: {RESULTS}/<cpu or gpu>/qat_step.json")
    parser.add_argument("--child", choices=list(VARIANTS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)  # dropout
    if given.child:
        print(json.dumps(peak(given.architecture[0], given.child, given.batch)))
        return
    rows = {}
    for name in given.architecture or ARCHITECTURES:
        rows[name] = measure(name, given)
        print(name, rows[name]["median_ms"], file=sys.stderr, flush=True)
    document = {
        "command": f"python {shlex.join(sys.argv)}",
        "machine": platform_facts(),
        "versions": versions(),
        "threads": given.threads,
        "rounds": given.rounds,
        "architectures": rows,
    }
    if given.device != "cpu":
        document["device"] = torch.cuda.get_device_name(given.device)
    folder = RESULTS / ("cpu" if given.device == "cpu" else "gpu")
    write_json(given.out or folder / "qat_step.json", document)
    Console(width=150).print(table(rows))
    slow = [n for n, row in rows.items() if row["ratios"]["ours/modelopt"]["median"] > LIMIT]
    sys.exit(1 if slow else 0)


if __name__ == "__main__":
    main()
