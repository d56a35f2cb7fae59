"""``trt-qat inspect``: what an engine, its layers, its times, its log or its calibration say."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trt_qat.cli.options import AsJson
from trt_qat.cli.screen import print_json, results, say
from trt_qat.errors import InputError
from trt_qat.wording import counted

if TYPE_CHECKING:
    from trt_qat.engine.evidence.timed import Inspected


def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            help="An engine; or what TensorRT 8.0 to 11 or trtexec wrote: a log, layers, "
            "--exportProfile, --exportTimes, layers.json, a calibration cache.",
            metavar="FILE",
        ),
    ],
    diff: Annotated[
        Path | None, typer.Option(help="Another of the kind; print how it differs.", metavar="FILE")
    ] = None,
    profile: Annotated[
        list[Path] | None,
        typer.Option(
            help="Times of the layers (trtexec --exportProfile, or a log of --dumpProfile); "
            "a second one is of --diff's.",
            metavar="FILE",
        ),
    ] = None,
    times: Annotated[
        list[Path] | None,
        typer.Option(
            help="Latencies (trtexec --exportTimes); a second one is of --diff's.", metavar="FILE"
        ),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="List every layer.")] = False,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Load an engine although no sidecar vouches for it."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what TensorRT chose, and what its messages mean and how to mend them."""
    from trt_qat.engine.evidence.timed import inspected

    paths = [file] if diff is None else [file, diff]
    own = [_one_each(option, paths, each) for option, each in
           (("--profile", profile or []), ("--times", times or []))]  # fmt: skip
    found = [inspected(path, *each, trust=trust) for path, *each in zip(paths, *own, strict=True)]
    if len(found) > 1:
        _print_difference(found, [path.name for path in paths], as_json=as_json)
    elif as_json:
        print_json(found[0].document)
    else:
        _print_one(found[0].document, layers=layers)
        _next(file, found[0].document, layers=layers)


def _one_each(option: str, paths: list[Path], given: list[Path]) -> list[Path | None]:
    """Return the file of an option for each engine: the first is of the first, and so on."""
    if len(given) > len(paths):
        message = f"{option} is given {len(given)} times for {counted(len(paths), 'engine')}"
        raise InputError(message)
    return [*given, *[None] * (len(paths) - len(given))]


def _print_one(found: dict[str, Any], *, layers: bool) -> None:
    from trt_qat.cli.tables.engine import census_table, layer_table
    from trt_qat.cli.tables.log import explained_text, unexplained
    from trt_qat.cli.tables.times import cache_table, times_table

    out = results()
    if "queries" in found:
        out.print(times_table(found))
        return
    if "scales" in found:
        out.print(cache_table(found))
        return
    out.print(census_table(found))
    if layers and found["layers"]:
        out.print(layer_table(found))
    if found.get("times"):
        out.print(times_table(found["times"]))
    if found.get("explained"):
        out.print(explained_text(found))
    for warning in unexplained(found):
        say(f"TensorRT: {warning}")


def _next(file: Path, found: dict[str, Any], *, layers: bool) -> None:
    """Say which command leads on: a rule that a message is about, or every layer."""
    rules = [each["rule"] for each in found.get("explained") or () if each.get("rule")]
    if rules:
        say(f"next: trt-qat explain {rules[0]}")
    elif found.get("layers") and not layers:
        say(f"next: trt-qat inspect {shlex.quote(str(file))} --layers")


def _print_difference(found: list[Inspected], names: list[str], *, as_json: bool) -> None:
    from trt_qat.benching.traces import compared
    from trt_qat.cli.tables.engine import difference_table
    from trt_qat.cli.tables.times import comparison_table
    from trt_qat.engine.evidence.differences import differences

    a, b = found
    latency = compared(a.times, b.times) if a.times and b.times else None
    only_times = latency is not None and "queries" in a.document and "queries" in b.document
    told = None if only_times else differences(a.document, b.document)
    if as_json:
        print_json(latency if told is None else told | {"latency": latency})
        return
    if told is not None:
        results().print(difference_table(told, *names))
    if latency is not None:
        results().print(comparison_table(latency, *names))
