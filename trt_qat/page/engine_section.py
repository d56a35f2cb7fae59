"""The engine of a run: who compiled it, what it consists of, and what that evidence is worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trt_qat.engine.evidence.sides import sentence
from trt_qat.gate.verdict import Verdict
from trt_qat.page.markup import Markup, note, section, table, tag
from trt_qat.wording import counted

Document = Mapping[str, Any]
_MB = 1e6


def engine(parts: Document, judged: Verdict | None = None) -> Iterator[Markup]:
    """Yield the section; where there is no engine it says why, and what to do.

    Args:
        parts: files of the run by what they hold; ``engine`` is its ``layers.json``.
        judged: on the run.
    """
    found = parts.get("engine")
    if found is None:
        if judged is not None:
            why = judged.reasons[0] if judged.state == "onnx-verified" else "No engine was built."
            yield section("Engine", tag("p", why), tag("p", "Next: ", tag("code", judged.next)))
        return
    rows = [(title, value) for title, value in _rows(found) if value]
    differ = (found.get("agreement") or {}).get("differ", [])
    yield section(
        "Engine",
        *([tag("p", judged.reasons[0])] if judged and judged.state == "onnx-verified" else []),
        table("Engine", ("what", "value"), rows, set()),
        *(note(f"This is {found['scope']}.") for _ in range("scope" in found)),
        *([_differences(differ)] if differ else []),
        *_timed_layers(found),
    )


def _rows(found: Document) -> Iterator[tuple[str, str]]:
    source, census = found["source"], found["census"]
    yield "compiled by", _compiler(source)
    yield "for", ", ".join(source.get("targets") or ()) or source.get("portable") or ""
    if source.get("bytes"):
        yield "size", f"{source['bytes'] / _MB:.2f} MB"
    if census["layers"] is not None:
        yield "kernels", str((found.get("traffic") or {}).get("kernels", census["layers"]))
    yield "computing in", _counts(census["precision"])
    agreed = found.get("agreement")
    if agreed:
        yield (
            "preflight was right",
            f"on the precision of {agreed['precision']} of {agreed['found']} weighted layers",
        )
    traffic = found.get("traffic")
    if traffic and traffic["bytes_read"] is not None:
        moved = (traffic["bytes_read"] + traffic["bytes_written"]) / _MB
        yield "activations moved", f"{moved:.3g} MB an inference{_shapes(source)}"
    if sides := found.get("against_fp16"):
        yield "INT8 or FP16", sentence(sides)
    told = found.get("times")
    if told:
        yield "median latency", f"{told['compute_ms']['p50']:.4g} ms, of trtexec"
        yield "99th percentile", f"{told['compute_ms']['p99']:.4g} ms"
    if found["sparsity"]:
        yield "2:4", f"{found['sparsity']['chose']} of {found['sparsity']['found']} sparse kernels"


def _compiler(source: Document) -> str:
    if source.get("backend") == "rtx":
        return f"TensorRT for RTX {source['rtx']}, without a GPU"
    return f"TensorRT {source.get('tensorrt')} on {source.get('gpu')}"


def _shapes(source: Document) -> str:
    told = source.get("shapes") or {}
    shapes = ", ".join(f"{name} {'x'.join(map(str, dims))}" for name, dims in told.items())
    return f" ({shapes})" if shapes else ""


def _counts(counts: Mapping[str, int] | None) -> str:
    ordered = sorted((counts or {}).items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in ordered)


def _differences(differ: list[Document]) -> Markup:
    rows = [
        (entry["name"], entry["predicted"], entry["listed"] or "not listed", entry["why"] or "")
        for entry in differ
    ]
    title = f"{counted(len(rows), 'layer')} that the compiler treats otherwise than predicted"
    head = ("layer", "predicted", "listed", "why")
    return tag("details", tag("summary", title), table(title, head, rows, set()))


def _timed_layers(found: Document) -> Iterator[Markup]:
    """Yield the layers with their times, the longest first, where trtexec's profile is at hand."""
    timed = [layer for layer in found["layers"] if layer.get("time_ms")]
    if not timed:
        return
    total = sum(layer["time_ms"] for layer in timed)
    rows = [
        (
            layer["name"],
            _types(layer["precision_in"]),
            _types(layer["precision_out"]),
            layer["precision"] or layer["purpose"],
            f"{layer['time_ms']:.4f}",
            f"{100 * layer['time_ms'] / total:.1f} %",
        )
        for layer in sorted(timed, key=lambda layer: -layer["time_ms"])
    ]
    title = f"{counted(len(rows), 'layer')} by time, {total:.4g} ms together"
    head = ("layer", "in", "out", "computes", "ms", "share")
    said = "By trtexec's profiler, which keeps layers from overlapping: the sum is not the latency."
    yield tag("details", tag("summary", title), note(said), table(title, head, rows, {4, 5}))


def _types(types: list[str | None]) -> str:
    return " ".join(kind or "?" for kind in types)
