"""What changed for whom: samples that one of float and INT8 has right, and the drop by class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.gate.answers import Answers
from trt_qat.page.charts import percent
from trt_qat.page.markup import Cell, Markup, folded, note, section, table, tag
from trt_qat.wording import counted

Document = Mapping[str, Any]

MOST = 50
"""Samples that are named."""

OPEN = 20
"""Rows that stand open; more are one click away."""

FEW_CLASSES = 12
"""So many fit into a table of what is taken for what."""


@dataclass(frozen=True)
class Changes:
    """Answers of the float model and of what ships, sample by sample.

    Attributes:
        stage: what ships: engine or onnx.
        labels: ``(N,)``, the classes.
        ids: ``(N,)``, where each sample stood in its source.
        float_answers: ``(N,)``, classes.
        answers: ``(N,)``, classes.
    """

    stage: str
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]
    float_answers: NDArray[np.int64]
    answers: NDArray[np.int64]


def changes_of(found: Answers) -> Changes | None:
    """Return the answers of two stages; None where they are not classes, or one is missing."""
    stage = next((name for name in ("engine", "onnx") if name in found.outputs), None)
    labels = found.labels
    if stage is None or "fp32" not in found.outputs or labels.ndim != 1:
        return None
    pair = found.outputs["fp32"], found.outputs[stage]
    if labels.dtype.kind not in "iu" or any(x.ndim != 2 or x.shape[1] < 2 for x in pair):
        return None
    one, other = (outputs.argmax(axis=1) for outputs in pair)
    return Changes(stage, labels.astype(np.int64), found.ids, one, other)


def samples(found: Changes | None) -> Iterator[Markup]:
    """Yield the section; nothing where answers are not classes."""
    if found is None:
        return
    before, after = (x == found.labels for x in (found.float_answers, found.answers))
    lost, gained = np.flatnonzero(before & ~after), np.flatnonzero(~before & after)
    yield section(
        "Samples and classes",
        tag(
            "p",
            f"Of {counted(len(found.labels), 'test sample')} INT8 loses {len(lost)} that FP32 has "
            f"right, and gains {len(gained)}.",
        ),
        *_by_class(found, before, after),
        *_changed(found, lost, gained),
        *_confusion(found),
    )


def _changed(
    found: Changes, lost: NDArray[np.int64], gained: NDArray[np.int64]
) -> Iterator[Markup]:
    both = [(place, "lost") for place in lost] + [(place, "gained") for place in gained]
    if not both:
        return
    rows = [
        (int(found.ids[place]), what, int(found.labels[place]), int(found.float_answers[place]),
         int(found.answers[place]))
        for place, what in both[:MOST]
    ]  # fmt: skip
    head = ("sample", "INT8", "label", "FP32 says", "INT8 says")
    shown = table("Samples that changed, by where they stand in the source", head, rows,
                  {2, 3, 4}, sortable=True)  # fmt: skip
    yield shown if len(both) <= OPEN else folded(f"{counted(len(both), 'sample')} changed", shown)
    if len(both) > MOST:
        yield note(f"{MOST} of {len(both)} samples are named.")


def _by_class(
    found: Changes, before: NDArray[np.bool_], after: NDArray[np.bool_]
) -> Iterator[Markup]:
    rows = []
    for place in np.unique(found.labels):
        mine = found.labels == place
        one, other = float(before[mine].mean()), float(after[mine].mean())
        points = 100 * (other - one)
        rows.append(
            (
                Cell(str(int(place)), int(place)),
                Cell(f"{int(mine.sum()):,}", int(mine.sum())),
                Cell(percent(one), one),
                Cell(percent(other), other),
                Cell(f"{points:+.2f}", points),
            )
        )
    rows.sort(key=lambda row: float(row[4].value))  # type: ignore[arg-type]
    head = ("class", "samples", "FP32", "INT8", "points")
    numeric = {1, 2, 3, 4}
    title = "Right answers by class, the largest drop first"
    yield table(title, head, rows[:OPEN], numeric, sortable=True)
    if rows[OPEN:]:
        rest = table("Right answers by class, the others", head, rows[OPEN:], numeric,
                     sortable=True)  # fmt: skip
        yield folded(f"{len(rows) - OPEN} more classes", rest)


def _confusion(found: Changes) -> Iterator[Markup]:
    classes = sorted({*found.labels.tolist(), *found.answers.tolist()})
    if len(classes) > FEW_CLASSES:
        return
    rows = []
    for label in classes:
        mine = found.answers[found.labels == label]
        counts = [int((mine == answer).sum()) for answer in classes]
        cells = [
            tag("span", count, class_="right" if at == label else "wrong" if count else "none")
            for at, count in zip(classes, counts, strict=True)
        ]
        rows.append((str(label), *cells))
    head = ("label", *(f"says {answer}" for answer in classes))
    shown = table("What INT8 takes for what", head, rows, set(range(1, len(head))))
    yield folded("Confusion of classes", shown)
