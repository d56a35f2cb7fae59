"""The command ``trt-qat bench``: parse, call, print."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from trt_qat.cli.options import INTERRUPTED, AsJson
from trt_qat.cli.screen import print_json, results, say

Specs = Annotated[
    list[str] | None,
    typer.Argument(
        help="What to time, such as ort:model.onnx; the others are compared with the first. A run "
        "folder stands for its FP32, FP16 and INT8 model.",
        metavar="SPEC...",
        show_default=False,
    ),
]
Batches = Annotated[
    str, typer.Option(help="Samples an inference, or several: 1,8,32.", metavar="N,N,...")
]
Data = Annotated[
    Path | None, typer.Option(help="An .npz with one array per input; absent: random inputs.")
]
RooflineTarget = Annotated[
    str | None, typer.Option(help="Also print latency over the roofline's floor on a device.")
]
RooflineModel = Annotated[
    Path | None, typer.Option(help="With --target: the ONNX of SPECs that name none.")
]
Precision = Annotated[float, typer.Option(help="Relative half-width of the intervals to reach.")]
Seconds = Annotated[float, typer.Option(help="For each model and batch, at most.")]
Sessions = Annotated[
    int, typer.Option(help="Times that every model is opened afresh, at least; 1 or from 6 on.")
]
Seed = Annotated[int, typer.Option(help="Of the random orders.")]
Rebuilds = Annotated[
    int,
    typer.Option(help="Build every engine as often (trt:FILE.onnx), and show the spread."),
]
Streams = Annotated[
    str,
    typer.Option(help="Also throughput of so many inferences at a time.", metavar="N,N,..."),
]
Layers = Annotated[
    bool, typer.Option("--layers", help="Also time every layer by the backend's profiler.")
]
LayerFile = Annotated[
    Path | None,
    typer.Option(
        help="What trtexec --exportProfile wrote of the first SPEC, to be shown as its layers.",
    ),
]
Accuracy = Annotated[
    str,
    typer.Option(
        help="Of each SPEC in order, as known, for the plot of accuracy against latency.",
        metavar="X,X,...",
    ),
]
Saved = Annotated[
    Path | None, typer.Option("--from", help="Show a saved result instead of measuring.")
]
JsonOut = Annotated[Path | None, typer.Option(help="Also write the JSON there.")]
Plots = Annotated[Path | None, typer.Option(help="Write plots into this folder, as SVG and PNG.")]


def bench(
    specs: Specs = None,
    batch: Batches = "",
    data: Data = None,
    target: RooflineTarget = None,
    model: RooflineModel = None,
    precision: Precision = 0.01,
    seconds: Seconds = 10.0,
    sessions: Sessions = 8,
    seed: Seed = 0,
    rebuilds: Rebuilds = 0,
    streams: Streams = "",
    layers: Layers = False,
    layer_file: LayerFile = None,
    accuracy: Accuracy = "",
    saved: Saved = None,
    out: JsonOut = None,
    plot: Plots = None,
    as_json: AsJson = False,
) -> None:
    """Time models side by side: latency with its uncertainty, throughput, ratios."""
    from trt_qat.artifact import write_json
    from trt_qat.benching import plots
    from trt_qat.benching.settings import Settings

    _check(specs, saved, out, plot)
    given = list(specs or [])
    if saved is not None:
        document = plots.read(saved)
    else:
        specs, sentence, builds = _of_runs(specs or [])
        settings = Settings(
            precision=precision,
            seconds=seconds,
            sessions=sessions,
            seed=seed,
            rebuilds=rebuilds or builds,
            streams=_numbers("--streams", streams),
            layers=layers,
            layer_file=str(layer_file or ""),
        )
        document = _measured(
            specs,
            batches=_numbers("--batch", batch),
            data=data,
            target=target,
            model=model,
            settings=settings,
            accuracy=_fractions(accuracy, len(specs)),
        )
        document["warnings"] += [sentence] if sentence else []
    if out is not None:
        with plots.writable(out):
            write_json(out, document)
    _show(document, as_json=as_json)
    if plot is not None:
        for path in plots.draw(document, plot):
            say(f"wrote {path}")
    elif not as_json:
        _next(given, saved or out, layers=layers)


def _next(specs: list[str], kept: Path | None, *, layers: bool) -> None:
    """Say which command leads on: plots of what was written, or the times of layers."""
    if kept is not None:
        say(f"next: trt-qat bench --from {shlex.quote(str(kept))} --plot plots")
    elif not layers:
        say(f"next: trt-qat bench {shlex.join(specs)} --layers")


def _check(
    specs: list[str] | None, saved: Path | None, out: Path | None, plot: Path | None
) -> None:
    """Say now and not after minutes of measuring what cannot be."""
    from trt_qat.benching import plots
    from trt_qat.errors import InputError

    if bool(specs) == (saved is not None):
        message = "bench: give SPECs to time, or --from bench.json to show, one of the two"
        raise InputError(message)
    for path in (out, plot and plot / "ratio.svg"):
        if path is not None:
            plots.check_writable(path)


def _of_runs(specs: Sequence[str]) -> tuple[list[str], str | None, int]:
    """Put the models of a run folder in its place.

    Returns:
        SPECs, the sentence that is due to them, and how often engines are built that are none yet.
    """
    from trt_qat.pipeline.precisions import specs_of

    found: list[str] = []
    sentence, builds = None, 0
    for spec in specs:
        if Path(spec).is_dir():
            inner, said = specs_of(Path(spec))
            found += inner
            sentence = sentence or said
            builds = 0 if said else 2
        else:
            found.append(spec)
    return found, sentence, builds


def _measured(specs: Sequence[str], **asked: Any) -> dict[str, Any]:
    """Return the document of a benchmark; ``asked`` is what `trt_qat.benching.bench` takes."""
    from trt_qat.benching.bench import bench as measure

    try:
        return measure(specs, say=say, **asked).to_dict()
    except KeyboardInterrupt:
        say("interrupted: nothing was written")
        raise typer.Exit(INTERRUPTED) from None


def _show(document: dict[str, Any], *, as_json: bool) -> None:
    from trt_qat.cli.tables.bench import layer_tables, tables

    if as_json:
        print_json(document)
    else:
        screen = results()
        screen.print(tables(document))
        for table in layer_tables(document):
            screen.print(table)
    for warning in document["warnings"]:
        say(f"warning: {warning}")


def _numbers(option: str, text: str) -> tuple[int, ...]:
    from trt_qat.errors import InputError

    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdigit() for part in parts):
        message = f"{option} {text}: allowed: numbers with commas between them, such as 1,8,32"
        raise InputError(message)
    return tuple(int(part) for part in parts)


def _fractions(text: str, count: int) -> tuple[float, ...]:
    from trt_qat.errors import InputError

    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        found = tuple(float(part) for part in parts)
    except ValueError:
        found = (float("nan"),)
    if found and (len(found) != count or not all(0 <= each <= 1 for each in found)):
        message = f"--accuracy {text}: allowed: {count} numbers from 0 to 1, one for each SPEC"
        raise InputError(message)
    return found
