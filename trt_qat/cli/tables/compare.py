"""Where two runners differ, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from trt_qat.comparison.bisect import Bisection
from trt_qat.comparison.compare import Comparison
from trt_qat.wording import counted

if TYPE_CHECKING:
    from trt_qat.comparison.layerwise import LayerDifference
    from trt_qat.comparison.tally import TensorDifference

_VERDICTS = {
    "passed": "passed",
    "failed": "FAILED",
    "undecided": "UNDECIDED: random inputs decide nothing of a calibrated network; give --data",
}


def compare_table(found: Comparison, worst: int = 0) -> Group:
    """Return one row for each output, the worst layers, and the first that diverges."""
    table = Table(
        "output",
        "max abs",
        "mean abs",
        "relative",
        "cosine",
        "SQNR dB",
        "same answer",
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
    said = "\n".join(f"{output.name}: {_asked(output)}" for output in found.outputs)
    parts: list[Any] = [table, Text(), Text(said), Text()]
    if found.layers and worst:
        parts += [_layers_table(found, worst), Text()]
    lines = [
        f"{found.cand} against {found.ref}, {counted(found.samples, 'sample')}, {found.inputs}"
    ]
    if found.layers:
        lines.append(_divergence(found))
    if found.bisection is not None:
        lines.append(_bisected(found.bisection))
    if found.accuracy:
        lines.append(
            f"accuracy: {found.accuracy['ref']:.2%} reference, {found.accuracy['cand']:.2%} here"
        )
    random = found.passed and found.inputs.startswith("random")
    lines.append(_VERDICTS[found.verdict] + (" on random inputs, which proves little" * random))
    return Group(*parts, Text("\n".join(lines)))


def _asked(output: TensorDifference) -> str:
    what = f"answers along axis {output.axis}: " if output.kind == "classes" else ""
    return f"{'ok' if output.passed else 'NOT OK'}, {what}{output.asked}"


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
    worst = found.worst_layer if found.bisection is None else None
    if worst is None or worst.cand_tensor == first.cand_tensor:
        return f"first divergence: {_own_error(first, whose)}"
    # Where every layer rounds, as in INT8 against float, the first one that does says nothing.
    return (
        f"worst layer: {_own_error(worst, whose)}; first divergence: {first.op} {first.name!r}, "
        f"{_decibel(first.local_sqnr_db)} dB"
    )


def _own_error(layer: LayerDifference, whose: str) -> str:
    return (
        f"{layer.op} {layer.name!r}, which makes {_decibel(layer.local_sqnr_db)} dB from {whose} "
        f"inputs (largest difference {layer.local_max_abs:.3g})"
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
