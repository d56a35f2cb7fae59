"""Every reference architecture through NVIDIA's own compiler, on a machine without a GPU.

    python benchmarks/rtx.py [--only NAME] [--target rtx-4090] [--out FILE]

Each architecture is exported in four forms: the float network and ours, both with what is not INT8
in FP16, ours with one scale a weight, and ModelOpt's stock placement (which needs its [onnx]
extra). TensorRT for RTX builds each for the target at a batch of 8; its listing tells kernels and
the bytes of activations that they read and write, which are the same in every run. Nothing is
timed, and nothing here says what TensorRT 10 or 11 build: docs/rtx.md.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from rich.console import Console
from rich.table import Table

from benchmarks.placement import batches, ours, quiet, stock
from tests.models import REFERENCE, Reference
from trt_qat.artifact import platform_facts, versions, write_json
from trt_qat.engine.aot import load
from trt_qat.engine.build.build import build
from trt_qat.errors import TrtQatError
from trt_qat.graph.qdq import Graph
from trt_qat.recipe.specs import BuildSpec

RESULT = Path(__file__).parent / "results" / "cpu" / "rtx.json"
BATCH = 8


def floating(reference: Reference, path: Path) -> None:
    """Write the float network; the build casts it to FP16."""
    part = reference.build().get_submodule(reference.traced_part)
    example = tuple(batches(reference)[0])
    with quiet():
        torch.onnx.export(part, example, path, dynamo=True, opset_version=18, external_data=False)


def per_tensor(reference: Reference, path: Path) -> None:
    """Write our QDQ ONNX with one scale for each weight: its values rounded once more.

    `quantize.weights = "per_tensor"` does not reach the file where a BatchNormalization is folded
    into the weight: each channel's factor then makes a scale of its own.
    """
    ours(reference, path)
    model = onnx.load(path)
    graph = Graph(model)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in [node for node in graph.nodes if node.is_dequantize()]:
        scaling, codes = graph.scaling(node), graph.constant(node.input(0))
        if codes is None or scaling.scale is None or scaling.scale.size == 1:
            continue
        shape = [1] * codes.ndim
        shape[scaling.axis] = scaling.scale.size
        values = codes * scaling.scale.reshape(shape)
        scale = np.float32(np.abs(values).max() / 127)
        again = np.round(values / scale).astype(np.int8)
        stored[node.input(0)].CopyFrom(numpy_helper.from_array(again, node.input(0)))
        names = [f"{node.name}/one_scale", f"{node.name}/one_zero"]
        for name, value in zip(names, (scale, np.int8(0)), strict=True):
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        del node.proto.input[1:]
        node.proto.input.extend(names)
    onnx.save(model, path)


FORMS: dict[str, Callable[[Reference, Path], object]] = {
    "fp16": floating,
    "int8": ours,
    "int8_per_tensor": per_tensor,
    "modelopt": stock,
}


def measure(reference: Reference, folder: Path, target: str) -> dict[str, Any]:
    """Return what the compiler lists of each form of an architecture."""
    return {form: _form(reference, form, folder, target) for form in FORMS}


def _form(reference: Reference, form: str, folder: Path, target: str) -> dict[str, Any]:
    path = folder / f"{reference.name}.{form}.onnx"
    try:
        FORMS[form](reference, path)
        made = build(
            path, path.with_suffix(".engine"), target=target, backend="rtx", preflight=False,
            spec=BuildSpec(batch=(BATCH, BATCH, BATCH)),
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


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=list(REFERENCE), help="repeatable")
    parser.add_argument("--target", default="rtx-4090")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    load.require()
    torch.set_num_threads(1)  # sums in one order: the same scales on every machine
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in given.only or [name for name in REFERENCE if REFERENCE[name].traceable]:
            rows[name] = measure(REFERENCE[name], Path(scratch), given.target)
            print(name, file=sys.stderr, flush=True)
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
            "architectures": rows,
        },
    )
    Console(width=120).print(table(rows))
    refused = [name for name, row in rows.items() if not all(e["built"] for e in row.values())]
    sys.exit(f"not built: {', '.join(refused)}" if refused else 0)


if __name__ == "__main__":
    main()
