"""Tables of the documents, made from ``benchmarks/results``: each number there was measured.

    python benchmarks/tables.py          # write them into the documents
    python benchmarks/tables.py --check  # exit 1 if a document differs from the results

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import layers, rtx_tables
from benchmarks.accuracy import efficientnet_rows, fashion_table
from trt_qat.artifact import write_text

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    ROOT / "docs" / "accuracy.md",
    ROOT / "docs" / "measured.md",
    ROOT / "docs" / "costs.md",
    ROOT / "docs" / "bench.md",
    ROOT / "docs" / "evidence.md",
    ROOT / "docs" / "rtx.md",
    ROOT / "docs" / "scale.md",
)
RESULTS = ROOT / "benchmarks" / "results" / "cpu"
BLOCK = re.compile(r"<!-- table: (?P<name>[\w-]+) -->\n.*?<!-- end -->", re.DOTALL)

FIELDS = ("int8", "input_int8", "output_int8")
ENGINES = {"digits-int8-24": "digits", "fashion-int8-24": "Fashion-MNIST"}


def read(name: str) -> dict[str, Any]:
    """Return a results file of the CPU."""
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return document


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are numbers."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def accuracy() -> str:
    """Mean accuracy of every stage over the seeds, one engine a row."""
    rows = []
    for name, label in ENGINES.items():
        found = read(name)
        runs, mean = found["runs"], found["mean"]
        loss = 100 * (mean["onnx"] - mean["fp32"])
        agreement = min(run["argmax_agreement"] for run in runs)
        proven = sum(run["sparse_layers_proven"] for run in runs)
        sparse = sum(run["sparse_layers"] for run in runs)
        rows.append(
            [
                f"{label}, {runs[0]['test_images']:,} images, {_seeds(len(runs))}",
                *(f"{mean[key]:.2%}" for key in ("fp32", "ptq", "sparse_ptq", "qat", "onnx")),
                f"{loss:+.2f}",
                f"{agreement:.2%}",
                f"{proven} of {sparse}",
                f"{max(run['seconds'] for run in runs):.0f} s",
            ]
        )
    header = ["test split", "FP32", "INT8 PTQ", "2:4 + PTQ", "2:4 + QAT", "ONNX"]
    return markdown(
        [*header, "ONNX - FP32", "argmax agreement", "layers proven 2:4", "longest run"], rows
    )


def _seeds(count: int) -> str:
    return f"{count} seeds" if count > 1 else "1 seed"


def calibration() -> str:
    """Accuracy and SQNR on validation by calibration algorithm, one algorithm a row."""
    engines = read("calibration")["engines"]
    rows = []
    for position, first in enumerate(next(iter(engines.values()))["algorithms"]):
        label = first["algorithm"]
        if "percentile" in first:
            label += f" {first['percentile']}"
        row = [label]
        for found in engines.values():
            entry = found["algorithms"][position]
            row += [f"{entry['validation_accuracy']:.2%}", f"{entry['validation_sqnr_db']:.1f} dB"]
        rows.append(row)
    header = ["algorithm"]
    for name in engines:
        header += [ENGINES.get(name, name), "SQNR"]
    return markdown(header, rows)


def placement() -> str:
    """What placement leaves over all reference architectures, ours beside ModelOpt's stock."""
    total = read("placement")["total"]
    rows = [
        [
            label,
            f"{found['two_scales']}",
            f"{found['float_islands']}",
            f"{found['int8_in_int8_out']} of {found['layers']}",
        ]
        for key, label in (("ours", "trt-qat"), ("modelopt", "ModelOpt stock"))
        for found in (total[key],)
    ]
    header = ["placement", "tensors of two scales", "float islands", "layers INT8 in and out"]
    return markdown(header, rows)


def qat_step() -> str:
    """Time of a training step as ratios, one architecture a row."""
    columns = {
        "ours/fp32": "ours / FP32",
        "modelopt/fp32": "ModelOpt / FP32",
        "torch_ao/fp32": "torch.ao / FP32",
        "ours/modelopt": "ours / ModelOpt",
        "ours/torch_ao": "ours / torch.ao",
        "learned/modelopt": "learned / ModelOpt",
    }
    rows = []
    for name, found in read("qat_step")["architectures"].items():
        ratios = found["ratios"]
        cells = []
        for key in columns:
            cells.append(with_interval(ratios[key], "median") if key in ratios else "")
        rows.append([name, *cells])
    return markdown(["QAT step", *columns.values()], rows)


def with_interval(found: dict[str, Any], key: str = "ratio") -> str:
    """Return a ratio with its interval."""
    low, high = found["ci95"]
    return f"{found[key]:.2f} ({low:.2f} to {high:.2f})"


def cost_ratios(name: str) -> str:
    """Return the ratios of a study of costs, a pair a row, with both medians."""
    found = read(name)
    title, labels = COSTS[name]
    rows = []
    for key, label in labels.items():
        a, b = key.split("/")
        seconds = found["median_s"]
        row = [label, with_interval(found["ratios"][key])]
        rows.append([*row, duration(seconds[a]), duration(seconds[b])])
    return markdown([title, "ratio", "first", "second"], rows)


def duration(seconds: float) -> str:
    """Return seconds with three digits."""
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


COSTS: dict[str, tuple[str, dict[str, str]]] = {
    "cost_calibration": (
        "calibration",
        {
            "ours-max/forward": "max / plain forward",
            "ours-mse/forward": "mse / plain forward",
            "ours-max/modelopt-max": "max / ModelOpt max",
            "ours-max/ort-max": "max / onnxruntime MinMax",
            "ours-percentile/ort-percentile": "percentile / onnxruntime Percentile",
            "ours-entropy/ort-entropy": "entropy / onnxruntime Entropy",
        },
    ),
    "cost_masks": (
        "2:4 masks",
        {
            "ours/modelopt": "ours / ModelOpt",
            "ours-no-example/modelopt": "ours, no example inputs / ModelOpt",
            "modelopt/topk": "ModelOpt / one topk a weight",
        },
    ),
    "cost_export": (
        "export",
        {
            "ours/float": "ours / the same exporter, float model",
            "ours/modelopt": "ours / TorchScript exporter, ModelOpt's model",
        },
    ),
    "cost_preflight": (
        "preflight",
        {
            "ours/load": "preflight / onnx.load",
            "ours/shapes": "preflight / onnx shape inference",
        },
    ),
}
"""Studies of costs: what is looked at, and the pairs of the study with what they are called."""


def cost_startup() -> str:
    """What processes take to start and end, and the peak of their memory."""
    labels = {
        "python": "python -c pass",
        "typer": "python -c 'import typer'",
        "help": "trt-qat --help",
        "version": "trt-qat --version",
        "bench-help": "trt-qat bench --help",
        "import": "python -c 'import trt_qat'",
        "onnxruntime": "python -c 'import onnxruntime'",
        "torch": "python -c 'import torch'",
    }
    found = read("cost_startup")
    base = found["median_s"]["python"]
    rows = [
        [
            f"`{label}`",
            duration(found["median_s"][key]),
            f"{found['median_s'][key] / base:.1f}",
            f"{found['memory'][key]['peak_mib']:.0f} MiB",
        ]
        for key, label in labels.items()
    ]
    return markdown(["process", "median", "over python", "peak memory"], rows)


def cost_memory() -> str:
    """How far each call raises the peak of a fresh process."""
    rows = [
        [f"{label}: {name}", f"{entry['growth_mib']:.0f} MiB", f"{entry['before_mib']:.0f} MiB"]
        for study, (label, _) in COSTS.items()
        for name, entry in read(study)["memory"].items()
    ]
    return markdown(["call", "peak above what was there", "there before"], rows)


def cost_curves() -> str:
    """Exponents of the time over what grows."""
    rows = []
    for study, (label, _) in COSTS.items():
        for dimension, curves in read(study)["curves"].items():
            for name, found in curves.items():
                ends = f"{found['sizes'][0]} to {found['sizes'][-1]}"
                exponent = f"{found['exponent']:.2f} ± {found['standard_error']:.2f}"
                last = f"{found['last_exponent']:.2f}"
                times = f"{duration(found['seconds'][0])} to {duration(found['seconds'][-1])}"
                rows.append([f"{label}: {name}", f"{dimension} {ends}", times, exponent, last])
    return markdown(["what", "grows", "time", "exponent", "at the end"], rows)


def depthwise() -> str:
    """Accuracy of a depthwise network at every stage."""
    labels = {
        "fp32": "FP32",
        "ptq": "INT8 PTQ",
        "ptq_per_tensor_weights": "INT8 PTQ, per-tensor weights",
        "qat": "INT8 QAT",
        "qat_learned_scales": "INT8 QAT, learned scales",
    }
    found = read("depthwise")["rows"]
    fp32 = found["fp32"]["accuracy"]
    rows = [
        [label, f"{found[key]['accuracy']:.2%}", f"{100 * (found[key]['accuracy'] - fp32):+.2f}"]
        for key, label in labels.items()
    ]
    return markdown(["MobileNet style, Fashion-MNIST", "accuracy", "points against FP32"], rows)


def recorded() -> str:
    """Preflight against engines that others published, an engine a row."""
    path = RESULTS.parent / "recorded" / "engines.json"
    rows = []
    for name, found in json.loads(path.read_text(encoding="utf-8"))["engines"].items():
        source, agree = found["source"], found["agreement"]
        rows.append(
            [
                f"{name}, {source['gpu']}, batch {source['batch']}",
                f"{found['layers']}",
                *(f"{agree[field].get('agrees', 0)}" for field in FIELDS),
                f"{source['median_ms']:.3f} ms" if "median_ms" in source else "",
                f"{found['total_us'] / 1000:.3f} ms",
                f"{found['conversions_us'] / found['total_us']:.0%}",
                f"{found['floor_us'] / 1000:.3f} ms" if found["floor_us"] else "",
            ]
        )
    header = ["network", "layers", "INT8 as predicted", "INT8 in", "INT8 out"]
    return markdown(
        [*header, "engine", "sum of layers", "of it Q, DQ, reformats", "roofline"], rows
    )


def claims() -> str:
    """Every claim that was measured on the CPU, with the widest of its repetitions."""
    rows = []
    for path in sorted((ROOT / "benchmarks" / "claims").glob("*.toml")):
        found = read(f"claim-{path.stem}")
        groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
        for run in found["runs"]:
            for entry in run["judged"]:
                key = (entry["engine"], entry["baseline"], entry["batch"])
                groups.setdefault(key, []).append(entry)
        for (engine, baseline, batch), entries in groups.items():
            low = min(entry["ci95"][0] for entry in entries)
            high = max(entry["ci95"][1] for entry in entries)
            middle = sorted(entry["p50_ratio"] for entry in entries)[len(entries) // 2]
            holds = sum(entry["holds"] for entry in entries)
            rows.append(
                [
                    found["claim"]["title"],
                    f"{engine} / {baseline}",
                    f"{batch}",
                    f"{middle:.3f} ({low:.3f} to {high:.3f})",
                    f"{holds} of {len(entries)}",
                ]
            )
    return markdown(["claim", "latency of", "batch", "ratio", "holds"], rows)


def schedule() -> str:
    """Where the time of a simulated training goes, a number of devices a row."""
    header = ["devices", "step, s", "computing", "talking", "saving", "lost to failures"]
    parts = ("computing", "talking", "saving", "lost")
    rows = [
        [f"{row['devices']:,}", f"{row['step_seconds']:.3f}", *(f"{row[p]:.1%}" for p in parts)]
        for row in read("schedule")["rows"]
    ]
    return markdown(header, rows)


TABLES: dict[str, Callable[[], str]] = {
    "accuracy": accuracy,
    "depthwise": depthwise,
    "accuracy-efficientnet": lambda: markdown(
        *efficientnet_rows.table(read("accuracy_efficientnet"))
    ),
    "accuracy-fashion": lambda: markdown(*fashion_table.table(read("accuracy_fashion"))),
    "placement": placement,
    "qat-step": qat_step,
    "calibration": calibration,
    "claims": claims,
    "recorded": recorded,
    "rtx": lambda: markdown(*rtx_tables.moved(read("rtx"))),
    "rtx-accuracy": lambda: markdown(*rtx_tables.accuracy(read("rtx"))),
    **{name.replace("_", "-"): partial(cost_ratios, name) for name in COSTS},
    "schedule": schedule,
    "layers": lambda: markdown(*layers.grown(read("layers"))),
    "cost-startup": cost_startup,
    "cost-memory": cost_memory,
    "cost-curves": cost_curves,
}


def filled(text: str) -> str:
    """Return ``text`` with every table made again from the results."""

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        return f"<!-- table: {name} -->\n{TABLES[name]()}\n<!-- end -->"

    return BLOCK.sub(table, text)


def main() -> None:
    """Write the tables, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    texts = {path: path.read_text(encoding="utf-8") for path in DOCUMENTS}
    if given.check:
        stale = [path for path, text in texts.items() if filled(text) != text]
        for path in stale:
            print(f"{path.name} differs from the results: python benchmarks/tables.py")
        sys.exit(int(bool(stale)))
    for path, text in texts.items():
        write_text(path, filled(text))


if __name__ == "__main__":
    main()
