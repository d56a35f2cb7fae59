"""What preflight predicts, held against engines that NVIDIA built and published layer by layer.

    python benchmarks/recorded_engines.py

It needs no GPU: the engines are recordings (``tests/recordings/engines``, each with its source),
and the networks are built anew with the same layers and Q/DQ (``tests/recorded``). For each engine
it tells how many weighted layers are INT8, read INT8 and write INT8 as predicted, what the
published times add up to, and whether any layer ran faster than its roofline.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.gpu import predicted
from tests.recorded.engines import ENGINES, Recorded
from trt_qat.artifact import write_json
from trt_qat.lint.preflight import preflight

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks/results/recorded/engines.json"
FIELDS = ("int8", "input_int8", "output_int8")


def judged(recorded: Recorded) -> dict[str, Any]:
    """Return one engine's verdict: agreement by field, what disagrees, times and floors."""
    engine = recorded.layers()
    report = preflight(recorded.network(), target=recorded.target)
    found = predicted.table([layer.to_dict() for layer in report.layers], engine)
    times = recorded.times()
    floors = {row.layer: row.floor_us for row in report.roofline.rows} if report.roofline else {}
    return {
        "source": recorded.document()["Source"],
        "layers": len(found["rows"]),
        "agreement": {field: found["agreement"][field] for field in FIELDS},
        "disagree": [row for row in found["rows"] if any(_differs(row, f) for f in FIELDS)],
        "total_us": round(sum(times.values()), 3),
        "conversions_us": round(_conversions(engine, times), 3),
        "floor_us": round(sum(filter(None, floors.values())), 3),
        "below_the_floor": _below(found["rows"], floors, times),
    }


def _differs(row: dict[str, Any], field: str) -> bool:
    seen = row["seen"]
    return seen is None or (seen[field] is not None and seen[field] != row["predicted"][field])


def _conversions(engine: dict[str, Any], times: dict[str, float]) -> float:
    """Return the time of kernels that only change a type or a format, Q and DQ among them."""
    layers = engine["layers"]
    return sum(times.get(x["name"], 0.0) for x in layers if x["purpose"] in ("reformat", "qdq"))


def _below(
    rows: list[dict[str, Any]], floors: dict[str, float | None], times: dict[str, float]
) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        floor, taken = floors.get(row["layer"]), times.get(row.get("engine_layer", ""))
        if floor is not None and taken is not None and taken < floor:
            found.append({"layer": row["layer"], "us": taken, "floor_us": round(floor, 3)})
    return found


def _row(name: str, found: dict[str, Any]) -> str:
    agree = " ".join(f"{f} {found['agreement'][f].get('agrees', 0)}" for f in FIELDS)
    times = f"{found['total_us']:.0f} us, {found['conversions_us']:.0f} us of it conversions"
    return f"{name}: {found['layers']} layers; agree: {agree}; {times}"


def results() -> dict[str, Any]:
    """Return the document that is kept: every engine's verdict."""
    engines = {recorded.name: judged(recorded) for recorded in ENGINES}
    return {"command": "python benchmarks/recorded_engines.py", "engines": engines}


def main() -> None:
    """Judge every recorded engine, print a line each, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    found = results()
    for name, engine in found["engines"].items():
        print(_row(name, engine))
    write_json(given.out, found)


if __name__ == "__main__":
    main()
