"""How often engines and ONNX files answer as the float network does, on carried crops.

    python benchmarks/gpu/agreement.py --crops tested.npy --wanted wanted.npy \
        --spec split=trt-trusted:split.engine --spec split-onnx=ort:split.onnx --out agreement.json

The crops and the float network's answers are of `efficientnet.py`, the first as `crops.py` unpacks
them. The base install is enough. The last batch is filled up with the first crops; a spec that
fails does not stop the rest.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from trt_qat.artifact import platform_facts, versions, write_json
from trt_qat.errors import TrtQatError
from trt_qat.measure import metrics
from trt_qat.runners.open import runner


def computed(spec: str, crops: Any, batch: int) -> Any:
    """Return the first output for all crops, ``(N, classes) float32``."""
    filled = np.concatenate([crops, crops[: -len(crops) % batch]])
    with runner(spec) as opened:
        name = next(iter(opened.inputs))
        parts = [
            next(iter(opened.infer({name: filled[at : at + batch]}).values())).copy()
            for at in range(0, len(filled), batch)
        ]
    return np.concatenate(parts)[: len(crops)]


def row(wanted: Any, found: Any) -> dict[str, Any]:
    """Return agreement of the classes with its standard error, and the SQNR of the logits."""
    share, distance = metrics.argmax_agreement(wanted, found) or 0.0, metrics.sqnr_db(wanted, found)
    return {
        "agreement": round(share, 4),
        "standard_error": round((share * (1 - share) / len(wanted)) ** 0.5, 4),
        "sqnr_db": None if distance is None else round(distance, 2),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the specs that are given; return 1 where one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--crops", type=Path, required=True, help="of crops.py, as .npy")
    parser.add_argument("--wanted", type=Path, required=True, help="the float network's, as .npy")
    parser.add_argument("--spec", action="append", required=True, help="NAME=SPEC; repeatable")
    parser.add_argument("--batch", type=int, default=32, help="that engines were built for")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    crops, wanted = np.load(given.crops), np.load(given.wanted)
    rows: dict[str, Any] = {}
    for each in given.spec:
        name, _, spec = each.partition("=")
        try:
            rows[name] = row(wanted, computed(spec, crops, given.batch))
        except TrtQatError as error:
            rows[name] = {"failed": str(error)}
            print(f"{name}: {error}", file=sys.stderr)
    document = {"crops": len(crops), "machine": platform_facts(), "versions": versions()}
    write_json(given.out, document | {"rows": rows})
    print(json.dumps(rows, indent=1))
    return 1 if any("failed" in found for found in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
