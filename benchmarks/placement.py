"""Q/DQ placement over every reference architecture: this project beside ModelOpt's stock result.

    python benchmarks/placement.py
    python benchmarks/placement.py --only resnet18 --only yolo --keep /tmp/graphs

Both columns are ONNX files that one reader judges for TensorRT (`trt_qat.graph`). ModelOpt stock is
``mtq.quantize`` with ``INT8_DEFAULT_CFG`` and ModelOpt's own exporter, on the same weights and the
same calibration batches. That exporter needs packages that ModelOpt pins together with an older
onnx: ``pip install --no-deps onnxconverter-common onnx-graphsurgeon onnxslim lief``.

The exit status is 1 if one of our graphs has a tensor of two scales or a float island.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import shlex
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import modelopt.torch.quantization as mtq
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from tests.models import REFERENCE, Reference
from trt_qat.artifact import platform_facts, versions, write_json
from trt_qat.graph import flow
from trt_qat.graph.node import Node
from trt_qat.graph.qdq import Graph
from trt_qat.lint.preflight import PreflightReport, preflight
from trt_qat.qat.export import export
from trt_qat.qat.quantize import quantize
from trt_qat.qat.reports import report_of

RESULT = Path("benchmarks/results/cpu/placement.json")
# Rules that find a float layer, Add or pool between INT8 layers which TensorRT would run in INT8.
ISLANDS = ("QDQ101", "QDQ104", "QDQ105")
HEAD = "head"
Exporter = Callable[[Reference, Path], dict[str, str]]


def ours(reference: Reference, path: Path) -> dict[str, str]:
    """Write our QDQ ONNX; return what the report says of every layer that is not all INT8."""
    model = quantize(reference.build(), batches(reference))
    part = model.get_submodule(reference.traced_part)
    export(part, batches(reference)[0], path)
    report, prefix = report_of(model), reference.traced_part
    notes = {note.name: note.why for note in (*report.float_layers, *report.float_outputs)}
    return {name.removeprefix(f"{prefix}."): why for name, why in notes.items() if prefix in name}


def stock(reference: Reference, path: Path) -> dict[str, str]:
    """Write ModelOpt's QDQ ONNX; it reports nothing about single layers."""
    from modelopt.torch._deploy.utils.torch_onnx import OnnxBytes, get_onnx_bytes_and_metadata

    def calibrate(model: nn.Module) -> None:
        for batch in batches(reference):
            model(*batch)

    with quiet():
        config = copy.deepcopy(mtq.INT8_DEFAULT_CFG)
        model = mtq.quantize(reference.build(), config, calibrate)
        part = model.get_submodule(reference.traced_part)
        packed, _ = get_onnx_bytes_and_metadata(part, batches(reference)[0])
    path.write_bytes(OnnxBytes.from_bytes(packed).get_onnx_model_file_bytes())
    return {}


def batches(reference: Reference) -> list[tuple[torch.Tensor, ...]]:
    """Return the calibration batches, the first of which is also the example of the export."""
    return [reference.example_inputs(8, seed) for seed in range(4)]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep ModelOpt's progress and its warnings about torch's older exporter away."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def two_scales(graph: Graph) -> list[str]:
    """Return the tensors that are quantized with different scales.

    Rules QDQ102, QDQ106 and QDQ108 in one: every quantizer that a tensor reaches across operators
    which commute with it must have the same scale, and the tensor's own, if it comes from DQ.
    """
    written = [name for node in graph.nodes for name in node.outputs if name]
    found = []
    for tensor in (*graph.inputs, *written):
        writer = graph.producer(tensor)
        if graph.is_constant(tensor) or (writer is not None and flow.commutes(graph, writer)):
            continue
        own = [writer] if writer is not None and writer.is_dequantize() else []
        marks = [*own, *reached_quantizers(graph, tensor)]
        if marks and flow.one_scaling(graph, marks) is None:
            found.append(tensor)
    return found


def reached_quantizers(graph: Graph, tensor: str) -> Iterator[Node]:
    """Yield the QuantizeLinears behind a tensor, across operators that commute with them."""
    open_, seen = [tensor], {tensor}
    while open_:
        name = open_.pop()
        for reader in graph.consumers(name):
            if reader.is_quantize() and reader.input(0) == name:
                yield reader
            elif flow.commutes(graph, reader) and name in flow.data_inputs(graph, reader):
                fresh = [out for out in reader.outputs if out and out not in seen]
                seen.update(fresh)
                open_ += fresh


def judge(path: Path, heads: int, notes: dict[str, str]) -> dict[str, Any]:
    """Return the counts of one ONNX file.

    Args:
        path: of the QDQ ONNX.
        heads: layers whose output is a network output; they are not counted, in either column.
        notes: layer name -> why it is not INT8 throughout, where the quantizer says.
    """
    report = preflight(path)
    found = Counter(f.rule for f in report.findings if f.severity != "info")
    errors = sorted({f.rule for f in report.findings if f.severity == "error"})
    summary = report.summary
    return {
        "two_scales": len(two_scales(Graph.from_file(path))),
        "float_islands": sum(found[rule] for rule in ISLANDS),
        "layers": summary["layers"] - heads,
        "int8_in_int8_out": summary["int8_in_int8_out"],
        "quantized_streams": found["QDQ109"],
        "errors": {rule: found[rule] for rule in errors},
        "findings": dict(sorted(found.items())),
        "exceptions": exceptions(report, notes),
    }


def exceptions(report: PreflightReport, notes: dict[str, str]) -> dict[str, str]:
    """Return layer -> reason, for layers that are not INT8 in and out; heads are left out."""
    partly = (layer for layer in report.layers if not (layer.input_int8 and layer.output_int8))
    reasons = {layer.name: notes.get(layer.name, "; ".join(layer.why)) for layer in partly}
    return {name: why for name, why in reasons.items() if not why.startswith(HEAD)}


def measure(reference: Reference, folder: Path) -> dict[str, Any]:
    """Export one architecture both ways and judge both files."""
    row: dict[str, Any] = {"family": reference.family, "part": reference.traced_part or None}
    heads = 0
    exporters: dict[str, Exporter] = {"ours": ours, "modelopt": stock}
    for column, exporter in exporters.items():
        path = folder / f"{reference.name}.{column}.onnx"
        try:
            notes = exporter(reference, path)
        except RuntimeError as error:  # what ModelOpt refuses is a result of this comparison
            if column == "ours":
                raise
            row[column] = {"refused": str(error).partition(",")[0]}
            continue
        if column == "ours":
            row["heads"] = heads = sum(why.startswith(HEAD) for why in notes.values())
        row[column] = judge(path, heads, notes)
        if column == "modelopt":  # its exceptions are many, and their reasons are our reader's
            row[column]["exceptions"] = len(row[column]["exceptions"]) - heads
    return row


def table(rows: dict[str, dict[str, Any]]) -> Table:
    """Return the comparison for people."""
    result = Table(title="tensors of two scales / float islands / layers INT8 in and out")
    result.add_column("architecture")
    for column in ("ours", "ModelOpt stock"):
        for name in ("2 scales", "islands", "INT8 -> INT8"):
            result.add_column(f"{column}\n{name}", justify="right")
    result.add_column("ModelOpt stock\nbesides", overflow="fold")
    for name, row in rows.items():
        result.add_row(name, *cells(row["ours"]), *cells(row["modelopt"]), besides(row["modelopt"]))
    result.add_section()
    result.add_row("all", *cells(total(rows, "ours")), *cells(total(rows, "modelopt")), "")
    return result


def cells(entry: dict[str, Any]) -> list[str]:
    """Return the three cells of a column."""
    if "refused" in entry:
        return ["-", "-", "-"]
    part, whole = entry["int8_in_int8_out"], entry["layers"]
    return [
        str(entry["two_scales"]),
        str(entry["float_islands"]),
        f"{part}/{whole} {part / whole:4.0%}",
    ]


def besides(entry: dict[str, Any]) -> str:
    """Return what else is wrong with a stock graph: errors, and quantized residual streams."""
    if "refused" in entry:
        return f"refused: {entry['refused']}"
    said = [f"{count} x {rule} (refused by TensorRT)" for rule, count in entry["errors"].items()]
    if entry["quantized_streams"]:
        said.append(f"{entry['quantized_streams']} residual streams in INT8")
    return ", ".join(said)


def total(rows: dict[str, dict[str, Any]], column: str) -> dict[str, int]:
    """Return the sums over the architectures that both columns could export."""
    both = [row[column] for row in rows.values() if "refused" not in row["modelopt"]]
    keys = ("two_scales", "float_islands", "layers", "int8_in_int8_out")
    return {key: sum(entry[key] for entry in both) for key in keys}


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=list(REFERENCE), help="repeatable")
    parser.add_argument("--keep", type=Path, help="folder for the ONNX files")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order: the same scales on every machine
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        rows = {}
        for name in given.only or REFERENCE:
            rows[name] = measure(REFERENCE[name], folder)
            print(name, file=sys.stderr, flush=True)
    only = [word for name in given.only or () for word in ("--only", name)]
    document = {
        "command": shlex.join(["python", "benchmarks/placement.py", *only]),
        "machine": platform_facts(),
        "versions": {**versions(), "transformers": version("transformers")},
        "total": {column: total(rows, column) for column in ("ours", "modelopt")},
        "architectures": rows,
    }
    write_json(given.out, document)
    Console(width=140).print(table(rows))
    faults = sum(row["ours"]["two_scales"] + row["ours"]["float_islands"] for row in rows.values())
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
