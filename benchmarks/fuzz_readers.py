"""Fuzz every reader of files: a damaged one gives a result or one error, never a traceback.

    python benchmarks/fuzz_readers.py --count 10000 --out benchmarks/results/cpu/fuzz_readers.json

Recipes, ONNX, engines, logs, layer listings, times, calibration caches, ranges, data sets, images,
checkpoints, baselines, packs, saved inputs and outputs, and every file of a run folder, which is
read by verdict, gate, report and bundle. A reader that takes 30 s counts as hanging. What breaks
one is kept beside the printed kind; the run goes on, and ends with exit code 1.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.readers import Hangs, Reader, fed, readers
from tests.runs import write_engine
from trt_qat.pipeline.run import run

ROOT = Path(__file__).parents[1]


def kept(reader: Reader, folder: Path, keep: Path, number: int, error: BaseException) -> str:
    """Keep the file that broke a reader; return where in our code it broke."""
    target = keep / f"{number}-{reader.name}"
    shutil.copy2(folder / reader.name, target)
    told = traceback.extract_tb(error.__traceback__)
    ours = next((each for each in reversed(told) if "trt_qat" in each.filename), told[-1])
    place = f"{Path(ours.filename).name}:{ours.lineno}"
    return f"{reader.kind}: {type(error).__name__} at {place}: {str(error)[:150]} ({target})"


def main() -> int:
    """Read the command line, damage files and have them read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", default="", help="only kinds that begin so")
    parser.add_argument("--run", type=Path, help="a finished run's folder; else one is made")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    os.chdir(ROOT)
    warnings.filterwarnings("ignore")
    keep = Path(tempfile.mkdtemp(prefix="fuzz-readers-"))
    folder = given.run or run(write_engine(keep), out=keep / "run").folder
    scratch = keep / "scratch"
    scratch.mkdir()
    every = [each for each in readers(scratch, folder) if each.kind.startswith(given.kind)]
    draw, began = Random(given.seed), time.perf_counter()
    outcomes: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    broken: dict[str, str] = {}
    faults = collections.Counter[str]()
    for number, reader in enumerate(draw.choices(every, [r.share for r in every], k=given.count)):
        own = Random(f"{given.seed} {number}")
        try:
            outcomes[reader.kind][fed(reader, keep / "fed", own)] += 1
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            what = "hangs" if isinstance(error, Hangs) else "tracebacks"
            faults[what] += 1
            outcomes[reader.kind][what] += 1
            told = kept(reader, keep / "fed", keep, number, error)
            if broken.setdefault(" ".join(told.split()[2:6]), told) == told:
                print(told, flush=True)
    document = {
        "seed": given.seed,
        "files": given.count,
        "tracebacks": faults["tracebacks"],
        "hangs": faults["hangs"],
        "seconds": round(time.perf_counter() - began),
        "kinds": {kind: dict(sorted(told.items())) for kind, told in sorted(outcomes.items())},
    }
    print(json.dumps({key: document[key] for key in list(document)[:5]}))
    if given.out is not None:
        given.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
