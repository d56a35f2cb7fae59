"""``trt-qat ranges``: calibration caches, ranges of recipes and Q/DQ, each into the others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trt_qat.cli.options import AsJson
from trt_qat.cli.screen import print_json, say
from trt_qat.wording import counted

_NAMED = 10


def ranges(
    source: Annotated[
        Path,
        typer.Argument(help="A calibration cache, ranges.json or a QDQ ONNX.", metavar="FILE"),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            help="QDQ.onnx, ranges.json, or another name for a calibration cache.",
            metavar="OUT",
        ),
    ],
    onnx: Annotated[
        Path | None,
        typer.Option(
            "--onnx",
            help="The float network to quantize; for JSON and caches a QDQ ONNX of a run, which "
            "names the tensor of each quantizer.",
            metavar="MODEL.onnx",
        ),
    ] = None,
    float_out: Annotated[
        Path | None,
        typer.Option(
            "--float",
            help="Also write a QDQ source without Q/DQ: the network that a cache is for.",
            metavar="FLOAT.onnx",
        ),
    ] = None,
    tensorrt: Annotated[
        str, typer.Option(help="The version that a cache is for, up to 10.")
    ] = "8.6.1",
    calibrator: Annotated[
        str, typer.Option(help="The calibrator that a cache names.")
    ] = "EntropyCalibration2",
    as_json: AsJson = False,
) -> None:
    """Take over TensorRT's calibration caches, and write them (DLA, DeepStream, 8.x)."""
    from trt_qat.mend.ranges_file import convert

    made = convert(
        source, out, onnx=onnx, float_out=float_out, release=tensorrt, calibrator=calibrator
    )
    if as_json:
        print_json(made.to_dict())
        return
    layers = "" if made.layers is None else f", {counted(made.layers, 'layer')} in INT8"
    say(f"{made.out}: {counted(made.tensors, 'tensor')} with a range{layers}")
    if made.float_onnx:
        say(f"{made.float_onnx}: the network without Q/DQ, whose tensors the cache names")
    _list("without a range", made.without)
    _list("not in the network", made.unused)
    _list("left float", [f"{name}: {why}" for name, why in made.left_float])


def _list(title: str, names: list[str] | tuple[str, ...]) -> None:
    for name in names[:_NAMED]:
        say(f"{title}: {name}")
    if len(names) > _NAMED:
        say(f"{title}: and {len(names) - _NAMED} more (--json names all)")
