"""Pictures of a benchmark, drawn from its JSON: into a folder, or for a page."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trt_qat.atomic import staged
from trt_qat.benching import figures, figures_layers
from trt_qat.errors import InputError
from trt_qat.files import read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Document = Mapping[str, Any]

KEYS = frozenset({"device", "versions", "runs", "ratios", "warnings"})
FORMATS = ("svg", "png")
STYLE: Any = {
    "svg.hashsalt": "trt-qat",
    "svg.fonttype": "none",
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), figures.INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), figures.QUIET),
}
TRANSPARENT: Any = {"axes.facecolor": "none", "figure.facecolor": "none"}
VARIABLES = {
    figures.INK: "--ink",
    figures.QUIET: "--quiet",
    figures.NEITHER: "--quiet",
    **{color: f"--bench-{i}" for i, color in enumerate(figures.COLORS, 1)},
}


def read(path: Path) -> dict[str, Any]:
    """Return the JSON that ``trt-qat bench`` wrote.

    Raises:
        InputError: the file is missing, not JSON, or no result of a benchmark.
    """
    document = read_json(path, "give what trt-qat bench --out wrote")
    if not isinstance(document, dict) or set(document) < KEYS or not document.get("runs"):
        message = f"{path}: is no result of trt-qat bench; it lacks runs, or one of {sorted(KEYS)}"
        raise InputError(message)
    return document


def draw(document: Document, folder: Path) -> list[Path]:
    """Write every plot that a result has data for, as SVG and PNG; return the files.

    ``latency-b<batch>`` is the distribution, ``ratio`` the ratios with their intervals, ``sweep``
    latency and throughput over batch where there is more than one, ``streams-b<batch>`` throughput
    over streams, ``layers-b<batch>`` time by layer, ``roofline-b<batch>`` layers under the roof of
    the target, ``pareto-b<batch>`` accuracy against latency.

    Raises:
        InputError: the folder cannot be written.
    """
    import matplotlib

    written = []
    with matplotlib.rc_context(STYLE), writable(folder), staged(folder) as stage:
        for name, make in _figures(document):
            figure = make()
            for kind in FORMATS:
                # Without the date, so that the same result makes the same file.
                metadata = {"Date": None} if kind == "svg" else None
                figure.savefig(stage / f"{name}.{kind}", format=kind, dpi=150, metadata=metadata)
                written.append(folder / f"{name}.{kind}")
    return written


def check_writable(path: Path) -> None:
    """Check that a file can be made, before the work whose result it shall hold.

    Raises:
        InputError: its folder cannot be made or written, or a folder has its name.
    """
    if path.is_dir():
        message = f"{path}: cannot be written: is a folder"
        raise InputError(message)
    if path.exists() and not path.is_file():  # a device is written into, not made
        return
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error  # the error names the temporary file


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Say which file cannot be written, instead of a traceback.

    Raises:
        InputError: the block raised an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise _unwritable(error.filename or path, error) from error


def _unwritable(path: Path | str, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written: {error.strerror or error}")


def inline(document: Document) -> Iterator[tuple[str, str]]:
    """Yield name and SVG of every plot, to be put into a page, in colours that the page sets.

    A colour is ``var(--NAME, FALLBACK)``: ``ink``, ``quiet`` and ``line`` for text and axes,
    ``bench-1`` to ``bench-6`` for models. The background is the page's.
    """
    import matplotlib

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "trt-qat page", **TRANSPARENT}):
        for name, make in _figures(document):
            buffer = io.StringIO()
            make().savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
            text = buffer.getvalue()
            for color, variable in VARIABLES.items():
                text = text.replace(color, f"var({variable}, {color})")
            text = text[text.index("<svg") :]
            yield name, re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)


def _figures(document: Document) -> Iterator[tuple[str, Callable[[], Figure]]]:
    runs = document["runs"]
    batches = sorted({run["batch"] for run in runs})
    if document["ratios"]:
        yield "ratio", partial(figures.ratios, document)
    for batch in batches:
        yield f"latency-b{batch}", partial(figures.distribution, document, batch)
    if len(batches) > 1:
        yield "sweep", partial(figures.sweep, document, batches)
    for batch in batches:
        own = [run for run in runs if run["batch"] == batch]
        if all(run.get("streams") for run in own):
            yield f"streams-b{batch}", partial(figures.streams, document, batch)
        if any(run.get("layers") for run in own):
            yield f"layers-b{batch}", partial(figures_layers.layers, document, batch)
        if any(_on_roofline(run) for run in own):
            yield f"roofline-b{batch}", partial(figures_layers.roofline, document, batch)
        if all("accuracy" in run for run in own):
            yield f"pareto-b{batch}", partial(figures_layers.pareto, document, batch)


def _on_roofline(run: Document) -> bool:
    return bool(((run.get("layers") or {}).get("roofline") or {}).get("layers"))
