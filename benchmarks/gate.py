"""Does `trt-qat check` flag what is worse and let pass what is not: simulated and on real models.

    python benchmarks/gate.py

Simulated: two models of 93 % on 10,000 samples that answer a given part of the samples otherwise,
one of them 0.5 or 1 points worse (power) or equally good (false alarms).

Real, on the 10,000 test images of Fashion-MNIST, from a finished run of its recipe:
* itself: the exported ONNX against its own baseline, inferred again with other batch sizes;
* regressions: one layer's weight scales are stretched until the ONNX loses half a point;
* equally good: two models of the run exchange their answers at random, sample by sample, which
  makes them equally good whatever they are, and keeps which samples they disagree on.

The exit status is 1 if a comparison with itself raises an alarm, a real regression is missed, or
false alarms are more than half the significance asks (only losses count, so half of 5 %).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from trt_qat.artifact import platform_facts, versions, write_json, write_text
from trt_qat.data import Dataset, load
from trt_qat.gate import gate
from trt_qat.gate.metric_checks import regression
from trt_qat.gate.snapshot import Scores
from trt_qat.measure import metrics
from trt_qat.recipe.load import load_recipe
from trt_qat.recipe.specs import Tolerances
from trt_qat.runners.ort import OrtRunner

ENGINE = Path("engines/fashion-int8-24.toml")
RESULT = Path("benchmarks/results/cpu/gate.json")
DOCS = Path("docs/gate.md")
BEGIN, END = "<!-- table: power -->", "<!-- end -->"
SAMPLES = 10_000
ACCURACY = 0.93
DISAGREEMENTS = (0.006, 0.01, 0.02, 0.03, 0.05, 0.08)
"""Part of the samples on which exactly one of two models is right."""
LOSSES = (0.005, 0.01)
TOLERANCES = Tolerances()
LAYERS = 5
LOSS_SOUGHT = (0.0045, 0.0055)

Bits = NDArray[np.bool_]


def alarm(base: Bits, cand: Bits) -> bool:
    """Tell whether the gate flags the candidate."""
    found = regression("top1", "onnx", Scores.of(base), Scores.of(cand), TOLERANCES)
    return found.status == "failed"


def simulated(disagreement: float, loss: float, random: np.random.Generator) -> tuple[Bits, Bits]:
    """Draw two models: the second loses ``loss`` in the mean."""
    lost, gained = (disagreement + loss) / 2, (disagreement - loss) / 2
    kinds = random.choice(4, SAMPLES, p=[ACCURACY - lost, 1 - ACCURACY - gained, lost, gained])
    return (kinds == 0) | (kinds == 2), (kinds == 0) | (kinds == 3)


def rates(repeats: int) -> list[dict[str, Any]]:
    """Return how often the gate raises an alarm, one entry a disagreement."""
    random = np.random.default_rng(0)
    rows = []
    for disagreement in DISAGREEMENTS:
        row: dict[str, Any] = {"disagreement": disagreement, "repeats": repeats}
        for loss in (0.0, *LOSSES):
            if loss > disagreement:
                continue
            pairs = (simulated(disagreement, loss, random) for _ in range(repeats))
            key = "false_alarms" if loss == 0.0 else f"flagged_{100 * loss:g}_points"
            row[key] = sum(alarm(*pair) for pair in pairs) / repeats
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    return rows


def infer(path: Path, data: Dataset, batch: int = 256) -> NDArray[np.float32]:
    """Return the logits of every test image."""
    with OrtRunner(path) as runner:
        (name,) = runner.inputs
        parts = [
            next(iter(runner.infer({name: images}).values()))
            for images, _ in data.test.batches(batch)
        ]
    return np.concatenate(parts)


def answers(folder: Path, data: Dataset, logits: NDArray[np.float32]) -> Path:
    """Write a folder that the gate takes for a run."""
    folder.mkdir(exist_ok=True)
    np.savez(folder / "answers.npz", labels=data.test.labels, ids=data.test.ids, onnx=logits)
    return folder


def against_itself(path: Path, data: Dataset, folder: Path, repeats: int) -> dict[str, Any]:
    """Compare a model with itself through the whole gate, inferring it again every time."""
    reference = infer(path, data)
    gate.update(answers(folder / "self", data, reference), folder / "self.json")
    random = np.random.default_rng(1)
    alarms, changed, differences = 0, 0, 0.0
    for _ in range(repeats):
        logits = infer(path, data, int(random.integers(32, 1000)))
        report = gate.check(answers(folder / "again", data, logits), folder / "self.json")
        details = next(entry.details for entry in report.checks if entry.name == "top1 onnx")
        alarms += not report.passed()
        changed += details["lost"] + details["gained"]
        differences = max(differences, metrics.max_abs(reference, logits))
    return {
        "comparisons": repeats,
        "alarms": alarms,
        "changed_samples": changed,
        "largest_logit_difference": differences,
    }


def stretched(model: onnx.ModelProto, scale: str, factor: float, out: Path) -> Path:
    """Write a copy of a model with one weight scale initializer times ``factor``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensor = next(item for item in copy.graph.initializer if item.name == scale)
    values = numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), scale))
    onnx.save(copy, out)
    return out


def weight_scales(model: onnx.ModelProto) -> Iterator[str]:
    """Yield the scales of the weights: DequantizeLinear of an INT8 initializer."""
    stored = {item.name for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            yield node.input[1]


def regressions(path: Path, data: Dataset, folder: Path) -> list[dict[str, Any]]:
    """Make real regressions of half a point, one layer at a time, and judge them."""
    model = onnx.load(path)
    labels = data.test.labels
    base = infer(path, data).argmax(1) == labels
    rows: list[dict[str, Any]] = []
    for scale in weight_scales(model):
        low, high = 1.0, 8.0
        for _ in range(12):
            factor = (low * high) ** 0.5
            right = infer(stretched(model, scale, factor, folder / "m.onnx"), data).argmax(1)
            cand = right == labels
            loss = float(base.mean() - cand.mean())
            if LOSS_SOUGHT[0] <= loss <= LOSS_SOUGHT[1]:
                rows.append(judged(scale, factor, base, cand))
                print(rows[-1], file=sys.stderr, flush=True)
                break
            low, high = (factor, high) if loss < LOSS_SOUGHT[0] else (low, factor)
        if len(rows) == LAYERS:
            break
    return rows


def judged(scale: str, factor: float, base: Bits, cand: Bits) -> dict[str, Any]:
    """Return what the gate says of one pair."""
    found = regression("top1", "onnx", Scores.of(base), Scores.of(cand), TOLERANCES)
    return {
        "scale": scale,
        "factor": round(factor, 4),
        "loss": float(base.mean() - cand.mean()),
        "disagreement": float(np.mean(base != cand)),
        "p_value": found.details["p_value"],
        "interval95": found.details["interval95"],
        "flagged": found.status == "failed",
    }


def exchanged(run: Path, repeats: int) -> list[dict[str, Any]]:
    """Return the false alarms of real pairs of models that were made equally good."""
    with np.load(run / "answers.npz") as archive:
        labels = archive["labels"]
        logits = {stage: archive[stage] for stage in ("onnx", "onnx_fused")}
    with np.load(run / "fp32_logits.npz") as archive:
        logits["fp32"] = archive["logits"]
    right = {stage: array.argmax(1) == labels for stage, array in logits.items()}
    random = np.random.default_rng(2)
    rows = []
    for first, second in (("fp32", "onnx"), ("onnx", "onnx_fused")):
        a, b = right[first], right[second]
        alarms = 0
        for _ in range(repeats):
            swap = random.random(len(labels)) < 0.5
            alarms += alarm(np.where(swap, b, a), np.where(swap, a, b))
        rows.append(
            {
                "pair": [first, second],
                "accuracies": [float(a.mean()), float(b.mean())],
                "disagreement": float(np.mean(a != b)),
                "exchanges": repeats,
                "false_alarms": alarms / repeats,
                "alarm_as_they_are": alarm(a, b),
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Measure, and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/fashion-int8-24"))
    parser.add_argument("--repeats", type=int, default=2000, help="of every simulation")
    parser.add_argument("--itself", type=int, default=100, help="comparisons with itself")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    spec = load_recipe(ENGINE).spec
    data = load(spec.data, spec.calibration, ENGINE.parent)
    path = given.run / "model.onnx"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        itself = against_itself(path, data, folder, given.itself)
        print(itself, file=sys.stderr, flush=True)
        real = regressions(path, data, folder)
    document = {
        "command": "python benchmarks/gate.py",
        "machine": platform_facts(),
        "versions": versions(),
        "tolerances": {
            "regression": TOLERANCES.regression,
            "significance": TOLERANCES.significance,
        },
        "samples": SAMPLES,
        "itself": itself,
        "real_regressions": real,
        "real_equally_good": exchanged(given.run, given.repeats),
        "simulated": rates(given.repeats),
    }
    write_json(given.out, document)
    if given.out == RESULT:
        write_text(DOCS, filled(DOCS.read_text(encoding="utf-8"), document))
    print(json.dumps(document, indent=2))
    sys.exit(failed(document))


def power_table(document: dict[str, Any]) -> str:
    """Return the simulated rates as the Markdown table of docs/gate.md."""
    names = ["false_alarms", *(f"flagged_{100 * loss:g}_points" for loss in LOSSES)]
    lines = [
        "| answered otherwise | equally good: alarm | 0.5 points worse: flagged | 1 point worse |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for row in document["simulated"]:
        cells = [f"{row[name]:.1%}" if name in row else "" for name in names]
        lines.append(f"| {row['disagreement']:.1%} | {' | '.join(cells)} |")
    return "\n".join(lines)


def filled(text: str, document: dict[str, Any]) -> str:
    """Return docs/gate.md with the table of these results."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{power_table(document)}\n{END}{rest.partition(END)[2]}"


def failed(document: dict[str, Any]) -> int:
    """Return 1 if a promise was broken; a rate may be off by what chance does to it."""
    rows = [*document["simulated"], *document["real_equally_good"]]
    counts = [row.get("repeats", row.get("exchanges")) for row in rows]
    half = TOLERANCES.significance / 2
    often = any(
        row["false_alarms"] > half + 3 * (half / count) ** 0.5
        for row, count in zip(rows, counts, strict=True)
    )
    missed = not all(row["flagged"] for row in document["real_regressions"])
    few = len(document["real_regressions"]) < LAYERS
    return int(document["itself"]["alarms"] > 0 or often or missed or few)


if __name__ == "__main__":
    main()
