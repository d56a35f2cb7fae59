"""The first screen: may it ship, why, what to do next, and the figures that everybody asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trt_qat.gate.verdict import Verdict, summary_of
from trt_qat.measure.metrics import is_sparse
from trt_qat.page.charts import percent
from trt_qat.page.markup import Markup, tag
from trt_qat.wording import counted, format_title, other_formats, sparse_words

Document = Mapping[str, Any]
Fact = tuple[str, str, str]

_MARKS = {"ship": ("✓", "good"), "onnx-verified": ("◐", "warn"), "do-not-ship": ("✗", "bad")}
_MB = 1e6


def first_screen(manifest: Document, parts: Document, found: Verdict) -> Markup:
    """Return the page's head: the verdict and the figures."""
    mark, kind = _MARKS[found.state]
    facts = [
        tag("div", tag("dt", name), tag("dd", tag("b", value), *([tag("span", more)] * bool(more))))
        for name, value, more in _facts(manifest, parts)
    ]
    return tag(
        "header",
        tag("h1", manifest["name"]),
        tag("p", tag("span", f"{mark} {found.title}", class_=f"verdict {kind}")),
        tag("ul", *(tag("li", text) for text in found.reasons), class_="reasons"),
        tag("p", "Next: ", tag("code", found.next), class_="next"),
        tag("dl", *facts, class_="facts"),
        tag("ul", *(tag("li", text) for text in found.notes), class_="notes"),
        _lead(parts.get("metrics", {}), format_title(summary_of(parts))),
    )


def shipped(scores: Document) -> tuple[str, Document] | None:
    """Return which entry of ``metrics.json`` is of what ships, the best proof first."""
    keys = [key for key in ("engine", "onnx", "qat") if scores.get(key)]
    return (keys[0], scores[keys[0]]) if keys else None


def _lead(scores: Document, title: str) -> Markup:
    if not scores.get("fp32") or not scores.get("qat"):
        return Markup("")
    fp32, qat = scores["fp32"], scores["qat"]
    points = 100 * (qat["accuracy"] - fp32["accuracy"])
    kind = f"2:4-sparse {title}" if is_sparse(scores) else f"dense {title}"
    metric = qat.get("metric", "top1")
    said = (
        f"answers {percent(qat['accuracy'])} of {counted(qat['samples'], 'test image')} rightly"
        if metric == "top1"
        else f"reaches {metric} {percent(qat['accuracy'])} on "
        f"{counted(qat['samples'], 'test sample')}"
    )
    text = f"The {kind} network {said}, {points:+.2f} points against FP32"
    return tag("p", f"{text} ({percent(fp32['accuracy'])}).", class_="lead")


def _facts(manifest: Document, parts: Document) -> Iterator[Fact]:
    yield from _accuracy(parts.get("metrics", {}))
    summary = summary_of(parts)
    if summary:
        yield (
            "INT8 coverage",
            f"{summary['int8']} of {counted(summary['layers'], 'layer')}",
            other_formats(summary) or f"{summary['int8_in_int8_out']} INT8 in and out",
        )
        first, _, more = sparse_words(summary["sparse_found"], summary["sparse_likely"]).partition(
            ", "
        )
        yield "2:4", first, more
    yield from _sizes(parts.get("sizes", {}))
    yield _target(manifest, parts)
    yield _tensorrt(manifest, parts)
    yield _latency(parts)
    date, commit = parts.get("date"), manifest.get("commit")
    yield "Made", date or "at an unknown date", f"commit {commit}" if commit else "not from git"


def _accuracy(scores: Document) -> Iterator[Fact]:
    found = shipped(scores)
    if found is None:
        return
    key, entry = found
    low, high = entry["interval95"]
    titles = {"engine": "of the engine", "onnx": "of the ONNX", "qat": "after QAT"}
    more = f"{titles[key]}, 95 %: {percent(low)} to {percent(high)}"
    if scores.get("fp32"):
        points = 100 * (entry["accuracy"] - scores["fp32"]["accuracy"])
        more += f"; {points:+.2f} points against FP32"
    metric = entry.get("metric", "top1")
    yield "Accuracy" if metric == "top1" else metric, percent(entry["accuracy"]), more


def _sizes(sizes: Mapping[str, int]) -> Iterator[Fact]:
    if "model.onnx" not in sizes:
        return
    more = [f"engine {sizes['model.engine'] / _MB:.3g} MB"] if "model.engine" in sizes else []
    if sizes.get("fp32.pt"):
        more.append(f"float weights {sizes['fp32.pt'] / _MB:.3g} MB")
    yield "Size", f"{sizes['model.onnx'] / _MB:.3g} MB ONNX", ", ".join(more)


def _target(manifest: Document, parts: Document) -> Fact:
    named = (parts.get("preflight") or {}).get("target") or manifest.get("recipe", {}).get(
        "spec", {}
    ).get("target")
    gpu = parts.get("engine", {}).get("source", {}).get("gpu")
    return "Target", named or gpu or "none named", f"built on {gpu}" if gpu and named else ""


def _tensorrt(manifest: Document, parts: Document) -> Fact:
    source = parts.get("engine", {}).get("source", {})
    if source.get("backend") == "rtx":
        return "TensorRT", f"for RTX {source.get('rtx')}", "compiled without a GPU"
    if source.get("tensorrt"):
        return "TensorRT", str(source["tensorrt"]), ""
    asked = (parts.get("preflight") or {}).get("tensorrt")
    here = manifest.get("versions", {}).get("tensorrt")
    more = f"preflight judged for {asked}" if asked else ""
    return "TensorRT", here or "not installed", more


def _latency(parts: Document) -> Fact:
    runs = [run for run in (parts.get("bench") or {}).get("runs", ())
            if run["spec"].startswith("trt")]  # fmt: skip
    if runs:
        run = min(runs, key=lambda run: float(run["latency_ms"]["p50"]))
        low, high = run["latency_ms"]["ci95"]
        more = f"batch {run['batch']}, 95 %: {low:.4g} to {high:.4g} ms"
        return "Latency", f"{run['latency_ms']['p50']:.4g} ms", more
    told = (parts.get("engine") or {}).get("times")
    if told:
        return "Latency", f"{told['compute_ms']['p50']:.4g} ms", "median, of trtexec"
    if "engine" in parts:
        return "Latency", "not measured", "the engine has not been run"
    return "Latency", "not built", "there is no engine to time"
