"""What engines compute on carried crops, for `agreement.py` to judge where torch is.

    python benchmarks/gpu/logits.py --crops tested.npy --engine NAME=FILE.engine --out logits.npz

The base install and TensorRT are enough. The last batch is filled up with the first crops.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from trt_qat.engine.execution.runner import TrtRunner
from trt_qat.errors import TrtQatError


def computed(engine: Path, crops: Any, batch: int) -> Any:
    """Return the outputs of an engine for all crops, ``(N, classes) float32``."""
    filled = np.concatenate([crops, crops[: -len(crops) % batch]])
    with TrtRunner(engine) as runner:
        name = next(iter(runner.inputs))
        parts = [
            next(iter(runner.infer({name: filled[at : at + batch]}).values())).copy()
            for at in range(0, len(filled), batch)
        ]
    return np.concatenate(parts)[: len(crops)]


def main() -> int:
    """Run the engines that are given; one that fails does not stop the rest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--crops", type=Path, required=True, help="of crops.py, as .npy")
    parser.add_argument("--engine", action="append", required=True, help="NAME=FILE; repeatable")
    parser.add_argument("--batch", type=int, default=32, help="that the engines were built for")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    crops, found, failed = np.load(given.crops), {}, 0
    for each in given.engine:
        name, _, file = each.partition("=")
        try:
            found[name] = computed(Path(file), crops, given.batch)
        except (TrtQatError, OSError) as error:
            failed += 1
            print(f"{name}: {error}", file=sys.stderr)
    np.savez_compressed(given.out, **found)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
