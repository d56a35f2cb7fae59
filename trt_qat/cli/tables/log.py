"""What a log means, for people: each message explained once, with the mend."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from rich.text import Text

from trt_qat.engine.evidence.explain import is_explained, release_of_tag

_CONSEQUENCE = re.compile(
    r"Engine could not be created|Building engine failed|Failed to (?:create engine|parse onnx)|"
    r"Engine set up failed|Parsing model failed|Assertion engine(?:Ptr)? != nullptr failed|"
    r"Engine deserialization failed|failed to build the TensorRT engine|"
    r"ModelImporter\.cpp:\d+: (?:While parsing node|--- |input: |output: |ERROR: )"
)
_OUTCOMES = {
    "passed": "it passed",
    "failed": "build or run failed",
    "unfinished": "the log breaks off before the end",
}
_SHOWN = 3
_STYLES = {"error": "bold red", "warning": "bold yellow", "info": "bold"}


def facts_line(document: dict[str, Any]) -> str:
    """Return version, device and outcome that a log states, empty where it states none."""
    told = document.get("facts") or {}
    words = []
    if "tensorrt" in told:
        words.append(f"TensorRT {told['tensorrt']}")
    if "gpu" in told:
        words.append(f"on {told['gpu']}")
    if "compute_capability" in told:
        words.append(f"compute capability {told['compute_capability']}")
    if "outcome" in told:
        words.append(_OUTCOMES[told["outcome"]])
    return ", ".join(words)


def performance_line(document: dict[str, Any]) -> str:
    """Return what trtexec's summary says, empty where there is none."""
    told = document.get("performance") or {}
    if "compute_ms_p50" not in told:
        return ""
    p99 = f"; 99 %: {told['compute_ms_p99']:g} ms" if "compute_ms_p99" in told else ""
    line = f"computing takes {told['compute_ms_p50']:g} ms (median{p99})"
    if "latency_ms_p50" in told:
        line += f", with copies {told['latency_ms_p50']:g} ms"
    if "throughput_qps" in told:
        line += f", {told['throughput_qps']:g} queries a second"
    return line


def explained_text(document: dict[str, Any]) -> Text:
    """Return what the messages mean, the gravest first."""
    text = Text()
    for told in document.get("explained", []):
        style = _STYLES[told["severity"]]
        text.append(f"{told['severity']}", style=style)
        text.append(f"{_times(told['count'])}{_names(told)}: {told['means']}\n")
        for line in _more(told, document.get("facts") or {}):
            text.append(f"    {line}\n")
    text.rstrip()
    return text


def unexplained(document: dict[str, Any]) -> list[str]:
    """Return the warnings and errors that no entry of the table explains.

    What only says that the build failed is left out where its cause is explained.
    """
    left = [line for line in document["warnings"] if not is_explained(line)]
    if any(told["severity"] == "error" for told in document.get("explained", [])):
        left = [line for line in left if not _CONSEQUENCE.search(line)]
    return left


def _times(count: int) -> str:
    return f" ({count} times)" if count > 1 else ""


def _names(told: dict[str, Any]) -> str:
    names = told["nodes"]
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return " " + "; ".join(names[:_SHOWN]) + more


def _more(told: dict[str, Any], facts: dict[str, str]) -> Iterator[str]:
    if told["rule"]:
        yield f"{told['rule']} of `trt-qat preflight` foresees it"
    stated = told["facts"]
    if "serialized" in stated:
        plan, runtime = _release(stated["serialized"]), _release(stated["current"])
        yield f"the plan is of {plan}, the runtime of {runtime}"
    elif "expected" in stated:
        yield f"the two are {stated['expected']} and {stated.get('got') or 'not told'}"
    yield f"mend: {told['mend']}"
    if told["fixed"]:
        yield _fixed(told["fixed"], facts.get("tensorrt"))
    if told["affects"]:
        yield f"seen with: {told['affects']}"
    yield f"source: {told['source']}"


def _fixed(release: str, here: str | None) -> str:
    major = release.removesuffix(".0")
    if here is not None and _number(here) >= _number(release):
        return f"mended in TensorRT {major}, and this log is of {here}: look for another cause"
    return f"TensorRT {major} builds it"


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _release(tag: str) -> str:
    release = release_of_tag(tag)
    return f"serialization version {tag}" + ("" if release is None else f" (TensorRT {release})")
