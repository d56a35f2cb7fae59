"""What a machine has, and how a run went, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from trt_qat.errors import visible
from trt_qat.measure.metrics import score_titles
from trt_qat.pipeline.run import RunResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trt_qat.pipeline.dry import Planned


def doctor_table(document: dict[str, Any]) -> Group:
    """Return the stages of this machine, and the versions they would use."""
    stages = Table("stage", "runs here", "to install", "missing", box=None, pad_edge=False)
    for entry in document["stages"]:
        runs = "yes" if entry["runs"] else "no"
        stages.add_row(entry["stage"], runs, entry["install"] or "", entry["why"] or "")
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
    without = f"{machine['rtx']}, builds without a GPU"
    table.add_row("TensorRT for RTX", machine["why_not_rtx"] or without)
    if not machine["why_not_rtx"]:
        runs = machine["why_not_run_rtx"] or "trt-rtx:FILE.engine is a SPEC like any other"
        table.add_row("its engines", runs)
    for name, installed in machine["bindings"].items():
        table.add_row(name, "installed" if installed else "not installed")
    return table


def verdict_lines(verdict: dict[str, Any]) -> Text:
    """Return whether the run may ship, why, what is true besides, and the next command."""
    lines = [f"\nverdict: {verdict['title']}"]
    lines += [f"  {line}" for line in (*verdict["reasons"], *verdict["notes"])]
    return Text(visible("\n".join([*lines, f"next: {verdict['next']}"]), keep="\n"))


def plan_table(planned: Sequence[Planned]) -> Table:
    """Return what every stage of a run would do."""
    table = Table("stage", "would be", "because", box=None, pad_edge=False)
    words = {"runs": "run", "fails": "refused"}
    for each in planned:
        table.add_row(each.name, words.get(each.does, each.does), Text(visible(each.why)))
    return table


def run_table(result: RunResult) -> Group:
    """Return what became of the stages, and the accuracies side by side."""
    stages = Table("stage", "status", "seconds", box=None, pad_edge=False)
    for record in result.stages:
        seconds = f"{record.seconds:.1f}" if record.seconds else ""
        stages.add_row(record.name, record.status, seconds)
    metrics = {entry.get("metric", "top1") for entry in result.metrics.values()}
    name = next(iter(metrics)) if len(metrics) == 1 else "score"
    title = "accuracy" if name == "top1" else name
    scores = Table("model", title, "95 % interval", "samples", box=None, pad_edge=False)
    for key, title in score_titles(result.metrics).items():
        entry = result.metrics[key]
        low, high = entry["interval95"]
        scores.add_row(
            title, f"{entry['accuracy']:.2%}", f"{low:.2%} to {high:.2%}", str(entry["samples"])
        )
    return Group(stages, Text(), scores) if result.metrics else Group(stages)
