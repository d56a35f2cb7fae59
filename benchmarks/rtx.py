"""Every reference architecture through NVIDIA's own compiler, on a machine without a GPU.

    python benchmarks/rtx.py [--only NAME] [--target rtx-4090] [--out FILE]

Each architecture is exported in four forms: the float network and ours, both with what is not INT8
in FP16, ours with one scale a weight, and ModelOpt's stock placement (which needs its [onnx]
extra). TensorRT for RTX builds each for the target at a batch of 8; its listing tells kernels and
the bytes of activations that they read and write, which are the same in every run. Nothing is
timed, and nothing here says what TensorRT 10 or 11 build: docs/rtx.md. Beside it stands what one
scale a weight costs in accuracy, on the digits of engines/digits-int8-24.toml.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.placement import batches, quiet, stock
from tests.models import REFERENCE, Reference
from trt_qat.artifact import platform_facts, versions, write_json
from trt_qat.engine.aot import load
from trt_qat.engine.build.build import build
from trt_qat.errors import ModelError, TrtQatError, first_line
from trt_qat.pipeline.run import run
from trt_qat.qat.export import export
from trt_qat.qat.quantize import quantize
from trt_qat.recipe.specs import BuildSpec, ExportSpec, QuantizeSpec

RESULT = Path(__file__).parent / "results" / "cpu" / "rtx.json"
ENGINE = Path("engines/digits-int8-24.toml")
BATCH = 8


def floating(reference: Reference, path: Path) -> None:
    """Write the float network; the build casts it to FP16."""
    part = reference.build().get_submodule(reference.traced_part)
    example = tuple(batches(reference)[0])
    with quiet():
        torch.onnx.export(part, example, path, dynamo=True, opset_version=18, external_data=False)


def ours(reference: Reference, path: Path, weights: str = "per_channel") -> None:
    """Write our QDQ ONNX; that exports compute what their models do is held elsewhere."""
    spec = QuantizeSpec.model_validate({"weights": weights})
    model = quantize(reference.build(), batches(reference), spec=spec)
    part = model.get_submodule(reference.traced_part)
    export(part, batches(reference)[0], path, spec=ExportSpec(verify=False))


def theirs(reference: Reference, path: Path) -> None:
    """Write ModelOpt's own QDQ ONNX.

    Raises:
        ModelError: it cannot export the architecture.
    """
    try:
        stock(reference, path)
    except ImportError:
        raise
    except Exception as error:  # of its exporter, or of torch's
        message = f"ModelOpt does not export it: {first_line(error)}"
        raise ModelError(message) from error


FORMS: dict[str, Callable[[Reference, Path], object]] = {
    "fp16": floating,
    "int8": ours,
    "int8_per_tensor": partial(ours, weights="per_tensor"),
    "modelopt": theirs,
}


def measure(reference: Reference, folder: Path, target: str) -> dict[str, Any]:
    """Return what the compiler lists of each form of an architecture."""
    return {form: measure_form(reference, form, folder, target) for form in FORMS}


def measure_form(reference: Reference, form: str, folder: Path, target: str) -> dict[str, Any]:
    """Return what the compiler lists of one form of an architecture."""
    path = folder / f"{reference.name}.{form}.onnx"
    try:
        FORMS[form](reference, path)
        made = build(
            path, path.with_suffix(".engine"), target=target, backend="rtx", preflight=False,
            spec=BuildSpec(batch=(BATCH, BATCH, BATCH), compare_fp16=False),
        )  # fmt: skip
    except TrtQatError as error:
        return {"built": False, "why": str(error).replace(f"{folder}/", "")}
    traffic, agreed = made.layers["traffic"], made.layers["agreement"]
    return {
        "built": True,
        "bytes": made.layers["source"]["bytes"],
        "kernels": traffic["kernels"],
        "moved": traffic["bytes_read"] + traffic["bytes_written"],
        "agreement": {key: agreed[key] for key in ("layers", "found", "precision", "input")},
        "differ": [
            {key: entry[key] for key in ("name", "op", "predicted", "listed", "why")}
            for entry in agreed["differ"]
        ],
    }


def accuracies(folder: Path) -> dict[str, Any]:
    """Return what one scale a weight costs the digits network, from one float network.

    Args:
        folder: scratch.
    """
    found: dict[str, Any] = {}
    for weights in ("per_channel", "per_tensor"):
        out = folder / weights
        if found and not out.exists():
            shutil.copytree(folder / "per_channel", out)
        overrides = [f"quantize.weights={weights}"]
        told = run(ENGINE, out=out, until="finetune", overrides=overrides).metrics
        found.setdefault("fp32", told["fp32"])
        found[weights] = {stage: told[stage] for stage in ("ptq", "qat")}
    return found


def total(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return agreement over all networks, and each form's kernels and bytes against FP16's."""
    found: dict[str, Any] = {}
    for form in FORMS:
        built = [row for row in rows.values() if row[form]["built"] and row["fp16"]["built"]]
        whole = [row[form]["agreement"] for row in rows.values() if row[form]["built"]]
        found[form] = {
            "built": sum(row[form]["built"] for row in rows.values()),
            "of": len(rows),
            **{key: sum(one[key] for one in whole) for key in ("layers", "found", "precision")},
            **{
                f"{key}_to_fp16": round(_geometric(_ratios(built, form, key)), 3)
                for key in ("kernels", "moved")
                if built
            },
        }
    return found


def _ratios(rows: list[dict[str, Any]], form: str, key: str) -> Iterator[float]:
    return (row[form][key] / row["fp16"][key] for row in rows)


def _geometric(ratios: Iterator[float]) -> float:
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logs) / len(logs))


def table(rows: dict[str, dict[str, Any]]) -> Table:
    """Return kernels and MB of activations moved, a row an architecture."""
    result = Table("kernels / MB moved", *FORMS)
    for name, row in rows.items():
        result.add_row(name, *(_cell(row[form]) for form in FORMS))
    return result


def _cell(entry: dict[str, Any]) -> str:
    if not entry["built"]:
        return "not built"
    return f"{entry['kernels']} / {entry['moved'] / 1e6:.2f}"


def _kept(path: Path, name: str, target: str) -> dict[str, Any]:
    """Return a row, measured unless it lies in the folder of an earlier run."""
    if not path.is_file():
        with tempfile.TemporaryDirectory() as scratch:
            write_json(path, measure(REFERENCE[name], Path(scratch), target))
    row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return row


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=list(REFERENCE), help="repeatable")
    parser.add_argument("--target", default="rtx-4090")
    parser.add_argument("--keep", type=Path, help="folder of rows; finished ones are reused")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    load.require()
    torch.set_num_threads(1)  # sums in one order: the same scales on every machine
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in given.only or [name for name in REFERENCE if REFERENCE[name].traceable]:
            rows[name] = _kept(folder / f"{name}.json", name, given.target)
            print(name, file=sys.stderr, flush=True)
        accuracy = None if given.only else accuracies(folder)
    only = [word for name in given.only or () for word in ("--only", name)]
    write_json(
        given.out,
        {
            "command": shlex.join(["python", "benchmarks/rtx.py", *only]),
            "machine": platform_facts(),
            "versions": {**versions(), "tensorrt-rtx": load.version()},
            "target": given.target,
            "batch": BATCH,
            "total": total(rows),
            "accuracy": accuracy,
            "architectures": rows,
        },
    )
    Console(width=120).print(table(rows))
    ours_alone = {form for form in FORMS if form != "modelopt"}
    refused = [n for n, row in rows.items() if not all(row[f]["built"] for f in ours_alone)]
    sys.exit(f"not built: {', '.join(refused)}" if refused else 0)


if __name__ == "__main__":
    main()
