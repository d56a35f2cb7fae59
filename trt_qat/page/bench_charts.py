"""The benchmark of a run on its report: plots in the page's colours, and the numbers as a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trt_qat.page.markup import Markup, join, note, section, table, tag

FILE = "bench.json"

CAPTIONS = {
    "ratio": "Latency against the first model",
    "latency": "Distribution of latency",
    "sweep": "Latency and throughput by batch",
    "streams": "Throughput of several inferences at a time",
    "layers": "Time by layer",
    "roofline": "Layers under the roof of the device",
    "pareto": "Accuracy against latency",
}

# Okabe and Ito's colours, lighter on a dark page; the figures are drawn with the light ones.
STYLE = """
:root { --bench-1: #0072b2; --bench-2: #d55e00; --bench-3: #009e73; --bench-4: #cc79a7;
  --bench-5: #e69f00; --bench-6: #56b4e9; }
@media (prefers-color-scheme: dark) { :root { --bench-1: #4aa8e0; --bench-2: #ff8a3d;
  --bench-3: #35c79c; --bench-4: #e6a3c8; --bench-5: #f0b73c; --bench-6: #8ccdf2; } }
.bench svg { width: 100%; height: auto; max-width: 46rem; display: block; }
.bench svg text { fill: inherit; font-size: inherit; }
"""


def of_run(folder: Path, artifacts: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the benchmark that lies in a run folder; None where it is of other files.

    The flow writes it where there is a GPU; ``trt-qat bench ... --out RUN/bench.json`` does at any
    time. It is this run's if a file that it timed is one of the run's, byte for byte.

    Args:
        folder: of the run.
        artifacts: SHA-256 by name, of its manifest.
    """
    try:
        document = json.loads((folder / FILE).read_text(encoding="utf-8"))
        timed = {run.get("sha256") for run in document["runs"]}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    found: dict[str, Any] = document
    return found if timed & set(artifacts.values()) else None


def sections(document: Mapping[str, Any] | None) -> Iterator[Markup]:
    """Yield the section of a benchmark; nothing without one."""
    if document is None:
        return
    from trt_qat.benching import plots

    figures = [
        tag("figure", Markup(svg), role="img", aria_label=_caption(name))
        for name, svg in plots.inline(document)
    ]
    device = document["device"]
    names = [gpu["name"] for gpu in device["gpus"]] or [device["cpu"] or device["machine"]]
    yield section(
        "Latency",
        tag("style", Markup(STYLE)),
        note(f"On {', '.join(names)}; intervals are 95 %. Measured by trt-qat bench."),
        tag("div", *figures, class_="bench"),
        tag("details", tag("summary", "As a table"), join(_tables(document))),
        *(
            [tag("ul", *(tag("li", text) for text in document["warnings"]))]
            if document["warnings"]
            else []
        ),
    )


def _caption(name: str) -> str:
    kind, _, batch = name.partition("-b")
    return f"{CAPTIONS[kind]}, batch {batch}" if batch else CAPTIONS[kind]


def _tables(document: Mapping[str, Any]) -> Iterator[Markup]:
    rows = [
        (
            tag("code", run["spec"]),
            run["batch"],
            f"{run['latency_ms']['p50']:.4g}",
            "{:.4g} to {:.4g}".format(*run["latency_ms"]["ci95"]),
            f"{run['latency_ms']['p99']:.4g}",
            f"{run['throughput']:,.0f}",
        )
        for run in document["runs"]
    ]
    head = ("model", "batch", "p50 ms", "95 % interval", "p99 ms", "samples/s")
    yield table("Latency", head, rows, {1, 2, 3, 4, 5})
    ratios = [
        (
            tag("code", ratio["a"]),
            tag("code", ratio["b"]),
            ratio["batch"],
            f"{ratio['p50_ratio']:.4f}",
            "{:.4f} to {:.4f}".format(*ratio["ci95"]),
            ratio["verdict"],
        )
        for ratio in document["ratios"]
    ]
    if ratios:
        head = ("latency of", "over", "batch", "ratio", "95 % interval", "verdict")
        yield table("Ratios", head, ratios, {2, 3, 4})
