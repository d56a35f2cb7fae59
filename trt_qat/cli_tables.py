"""Results as tables for people; the stable form is ``--json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from trt_qat.bisection import Bisection
from trt_qat.comparison import Comparison
from trt_qat.metrics import SCORE_TITLES
from trt_qat.pipeline import RunResult
from trt_qat.wording import counted

if TYPE_CHECKING:
    from trt_qat.qat.sensitivity import Sensitivity, Suggestion


def doctor_table(document: dict[str, Any]) -> Group:
    """Return the stages of this machine, and the versions they would use."""
    stages = Table("stage", "runs here", "missing", box=None, pad_edge=False)
    for entry in document["stages"]:
        stages.add_row(entry["stage"], "yes" if entry["runs"] else "no", entry["why"] or "")
    found = (f"{name} {version or 'absent'}" for name, version in document["versions"].items())
    return Group(stages, Text(), _machine(document["machine"]), Text(), Text(", ".join(found)))


def _machine(machine: dict[str, Any]) -> Table:
    """Return what engines need of this machine, as two columns."""
    table = Table("for engines", "here", box=None, pad_edge=False)
    table.add_row("NVIDIA driver", machine["driver"] or "none")
    for gpu in machine["gpus"]:
        sm, cuda = (".".join(map(str, gpu[key])) for key in ("sm", "cuda"))
        target = f", --target {gpu['target']}" if gpu["target"] else ""
        table.add_row(
            "GPU",
            f"{gpu['name']}: compute capability {sm}, {gpu['memory_mib']} MiB, "
            f"{gpu['multiprocessors']} multiprocessors, CUDA up to {cuda}{target}",
        )
    if not machine["gpus"]:
        table.add_row("GPU", machine["why_no_gpu"])
    table.add_row("TensorRT", machine["tensorrt"] or "not installed")
    for name, installed in machine["bindings"].items():
        table.add_row(name, "installed" if installed else "not installed")
    return table


def run_table(result: RunResult) -> Group:
    """Return what became of the stages, and the accuracies side by side."""
    stages = Table("stage", "status", "seconds", box=None, pad_edge=False)
    for record in result.stages:
        seconds = f"{record.seconds:.1f}" if record.seconds else ""
        stages.add_row(record.name, record.status, seconds)
    scores = Table("model", "accuracy", "95 % interval", "samples", box=None, pad_edge=False)
    for key, title in SCORE_TITLES.items():
        if entry := result.metrics.get(key):
            low, high = entry["interval95"]
            scores.add_row(
                title, f"{entry['accuracy']:.2%}", f"{low:.2%} to {high:.2%}", str(entry["samples"])
            )
    return Group(stages, Text(), scores) if result.metrics else Group(stages)


def compare_table(found: Comparison, worst: int = 0) -> Group:
    """Return one row for each output, the worst layers, and the first that diverges."""
    table = Table(
        "output",
        "max abs",
        "mean abs",
        "relative",
        "cosine",
        "SQNR dB",
        "argmax",
        "top 5",
        box=None,
        pad_edge=False,
    )
    for output in found.outputs:
        agreements = (output.argmax_agreement, output.top5_agreement)
        table.add_row(
            output.name,
            f"{output.max_abs:.3g}",
            f"{output.mean_abs:.3g}",
            "" if output.relative is None else f"{output.relative:.2%}",
            f"{output.cosine:.6f}",
            _decibel(output.sqnr_db),
            *("" if part is None else f"{part:.4%}" for part in agreements),
        )
    parts: list[Any] = [table, Text()]
    if found.layers and worst:
        parts += [_layers_table(found, worst), Text()]
    lines = [f"{found.cand} against {found.ref}, {counted(found.samples, 'sample')}"]
    if found.layers:
        lines.append(_divergence(found))
    if found.bisection is not None:
        lines.append(_bisected(found.bisection))
    if found.accuracy:
        lines.append(
            f"accuracy: {found.accuracy['ref']:.2%} reference, {found.accuracy['cand']:.2%} here"
        )
    lines.append("passed" if found.passed else "FAILED")
    return Group(*parts, Text("\n".join(lines)))


def sensitivity_table(ranked: Sensitivity, found: Suggestion | None) -> Group:
    """Return the layers, the most sensitive first, and what to keep float for a budget."""
    table = Table("layer", "alone in INT8", "all but it", box=None, pad_edge=False)
    for layer in ranked.layers:
        table.add_row(Text(layer.name), f"{layer.alone_db:.1f} dB", f"{layer.without_db:.1f} dB")
    lines = [f"all layers in INT8: {ranked.full_db:.1f} dB (SQNR of the outputs against FP32)"]
    if found is not None:
        lines.append(
            f"accuracy: {found.fp32:.2%} FP32, {found.int8:.2%} with all layers in INT8, "
            f"{found.accuracy:.2%} as follows"
        )
        nothing = "# nothing need be kept float\n"
        lines.append(found.recipe_lines() if found.exclude else nothing)
        if not found.within:
            lines.append("no choice of layers stays within the budget")
    return Group(table, Text(), Text("\n".join(lines)))


def _layers_table(found: Comparison, worst: int) -> Table:
    table = Table(
        "layer", "op", "SQNR dB", "own SQNR dB", "max abs", "steps", "saturated",
        box=None, pad_edge=False,
    )  # fmt: skip
    ranked = sorted(
        found.layers, key=lambda layer: (_rank(layer.local_sqnr_db), _rank(layer.sqnr_db))
    )
    for layer in ranked[:worst]:
        table.add_row(
            Text(layer.name),
            layer.op,
            _decibel(layer.sqnr_db),
            _decibel(layer.local_sqnr_db),
            f"{layer.max_abs:.3g}",
            "" if layer.steps is None else f"{layer.steps:.3g}",
            "" if layer.saturated is None else f"{layer.saturated:.2%}",
        )
    return table


def _divergence(found: Comparison) -> str:
    first = found.first_divergence
    if first is None:
        return f"no layer of {len(found.layers)} makes an error of its own beyond rounding"
    whose = "the reference's" if found.bisection is None else "its own"
    return (
        f"first divergence: {first.op} {first.name!r}, which makes {_decibel(first.local_sqnr_db)} "
        f"dB from {whose} inputs (largest difference {first.local_max_abs:.3g})"
    )


def _bisected(found: Bisection) -> str:
    text = (
        f"{counted(found.builds, 'build')} with {len(found.marked)} of "
        f"{counted(found.cuts, 'cut')} marked"
    )
    if not found.outputs_kept:
        text += "; the marks changed the outputs, so fusions around them are not as they were"
    if found.nodes:
        text += "\nnodes of the group: " + ", ".join(found.nodes)
    return text


def _rank(sqnr_db: float | None) -> float:
    return float("inf") if sqnr_db is None else sqnr_db


def _decibel(sqnr_db: float | None) -> str:
    return "equal" if sqnr_db is None else f"{sqnr_db:.1f}"
