"""``trt-qat compare``: two runners side by side, on the command line."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trt_qat.cli.options import AsJson
from trt_qat.cli.screen import print_json, results, say

if TYPE_CHECKING:
    from trt_qat.comparison.compare import Comparison


Reference = Annotated[str, typer.Option(help="The reference, such as ort:model.onnx.")]
Candidate = Annotated[str, typer.Option(help="The candidate, such as ort-int8:model.onnx.")]
Feeds = Annotated[
    Path | None,
    typer.Option(
        help="An .npz with one array per input, and labels; a recipe or a run folder, for its test "
        "images; a data-loader script or saved inputs of Polygraphy's, FILE.py[:function] or "
        "FILE.json; absent: random inputs."
    ),
]
Agreement = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Least part of equal answers for a pass, of outputs that have classes.",
        show_default="0.999, and 0.99 for maps",
    ),
]
Decibel = Annotated[
    float, typer.Option(help="Least SQNR in dB for a pass, of outputs that have no classes.")
]
Axis = Annotated[
    list[str] | None,
    typer.Option(
        help="Class axis of every output that has one, or OUTPUT=AXIS; none: no classes, judge by "
        "distance; repeatable. Absent: by the recipe's task, or rank, type and name.",
        metavar="AXIS",
    ),
]
Layers = Annotated[
    bool | None,
    typer.Option("--layers/--no-layers", help="Inner tensors too; absent: where it can be."),
]
Bisect = Annotated[
    bool | None,
    typer.Option(
        "--bisect/--no-bisect",
        help="Find the first fused layer that differs by building the candidate again with "
        "more outputs; absent: where an engine differs from its ONNX.",
    ),
]
SavedOutputs = Annotated[
    Path | None,
    typer.Option(help="Write the outputs of both there, for polygraphy run --load-outputs."),
]
RANDOM = (
    "they are not what ranges are measured on, so they fail no calibrated network, and a pass on "
    "them proves little; give --data FILE.npz, a recipe or a run folder"
)
Worst = Annotated[int, typer.Option(min=0, help="Layers to print, the worst first.")]


def compare(
    ref: Reference,
    cand: Candidate,
    data: Feeds = None,
    agreement: Agreement = None,
    sqnr: Decibel = 20.0,
    axis: Axis = None,
    layers: Layers = None,
    bisect: Bisect = None,
    save_outputs: SavedOutputs = None,
    worst: Worst = 10,
    as_json: AsJson = False,
) -> None:
    """Compare outputs of two runners, then layer by layer: which one differs first."""
    from trt_qat.comparison.compare import compare as compare_runners
    from trt_qat.measure.outputs import parse_axes
    from trt_qat.runners.feeds import inputs_for

    parse_axes(axis)
    given = inputs_for((ref, cand), data)
    if given.words.startswith("random"):
        say("RANDOM INPUTS, no data: " + RANDOM)
    found = compare_runners(
        ref,
        cand,
        given.feeds,
        labels=given.labels,
        min_agreement=agreement,
        min_sqnr_db=sqnr,
        axes=parse_axes(axis, given.task),
        inputs=given.words,
        layers=layers,
        bisect=bisect,
        save_outputs=save_outputs,
    )
    _show(found, worst, as_json=as_json)
    if not as_json and (command := _next(found, ref, cand, data)):
        say(f"next: {command}")
    _check(found)


def _next(found: Comparison, ref: str, cand: str, data: Path | None) -> str:
    """Return the command that leads on: inputs that prove something, the cause, or the build."""
    pair = f"trt-qat compare --ref {shlex.quote(ref)} --cand {shlex.quote(cand)}"
    fed = "" if data is None else f" --data {shlex.quote(str(data))}"
    onnx = Path(cand.rpartition(":")[2])
    if found.verdict == "undecided":
        return f"{pair} --data RUN"
    if found.verdict == "failed":
        if found.bisection is None and cand.startswith(("ort-int8:", "trt:")):
            return f"{pair}{fed} --bisect"
        return f"trt-qat preflight {shlex.quote(str(onnx))}" if onnx.suffix == ".onnx" else ""
    if onnx.suffix == ".onnx":
        model, engine = (shlex.quote(str(path)) for path in (onnx, onnx.with_suffix(".engine")))
        return f"trt-qat build {model} --out {engine}"
    return ""


def _show(found: Comparison, worst: int, *, as_json: bool) -> None:
    from trt_qat.cli.tables.compare import compare_table

    if as_json:
        print_json(found.to_dict())
    else:
        results().print(compare_table(found, worst))


def _check(found: Comparison) -> None:
    """Fail if the candidate differs by more than is allowed.

    Raises:
        CheckFailed: it does.
        NotProven: it does on random inputs, which decide nothing against a calibrated network.
    """
    from trt_qat.errors import CheckFailed, NotProven

    if found.verdict == "undecided":
        message = (
            f"{found.cand} differs from {found.ref} on random inputs, which decides nothing of a "
            "calibrated network: give --data"
        )
        raise NotProven(message)
    if found.verdict == "failed":
        names = ", ".join(output.name for output in found.outputs if not output.passed)
        message = f"{found.cand} differs from {found.ref} by more than is allowed: {names}"
        raise CheckFailed(message)
