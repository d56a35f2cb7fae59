"""``trt-qat compare``: two runners side by side, on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trt_qat.cli.options import AsJson
from trt_qat.cli.screen import print_json, results

if TYPE_CHECKING:
    from trt_qat.comparison.compare import Comparison


Reference = Annotated[str, typer.Option(help="The reference, such as ort:model.onnx.")]
Candidate = Annotated[str, typer.Option(help="The candidate, such as ort-int8:model.onnx.")]
Feeds = Annotated[
    Path | None,
    typer.Option(
        help="An .npz with one array per input, and labels; a data-loader script or saved "
        "inputs of Polygraphy's, FILE.py[:function] or FILE.json; absent: random inputs."
    ),
]
Agreement = Annotated[
    float, typer.Option(min=0, max=1, help="Least part of equal argmax for a pass.")
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
Worst = Annotated[int, typer.Option(min=0, help="Layers to print, the worst first.")]


def compare(
    ref: Reference,
    cand: Candidate,
    data: Feeds = None,
    agreement: Agreement = 0.999,
    layers: Layers = None,
    bisect: Bisect = None,
    save_outputs: SavedOutputs = None,
    worst: Worst = 10,
    as_json: AsJson = False,
) -> None:
    """Compare outputs of two runners, then layer by layer: which one differs first."""
    from trt_qat.comparison.compare import compare as compare_runners
    from trt_qat.runners.feeds import feeds_for

    feeds, labels = feeds_for((ref, cand), data)
    found = compare_runners(
        ref,
        cand,
        feeds,
        labels=labels,
        min_agreement=agreement,
        layers=layers,
        bisect=bisect,
        save_outputs=save_outputs,
    )
    _show(found, worst, as_json=as_json)
    _check(found)


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
    """
    from trt_qat.errors import CheckFailed

    if not found.passed:
        message = f"{found.cand} differs from {found.ref} by more than is allowed"
        raise CheckFailed(message)
