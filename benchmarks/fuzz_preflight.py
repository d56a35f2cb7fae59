"""Fuzz preflight: damaged models must give a report or one InputError, never another exception.

    python benchmarks/fuzz_preflight.py --count 10000 --out results.json
    python benchmarks/fuzz_preflight.py --count 2000 --confirm

Each model is judged, dumped, mended in memory and reported as SARIF and JUnit. The first model that
breaks something is kept beside the printed seed and index. With ``--confirm`` each is put to
NVIDIA's parser, and one in eight to its builder: whatever becomes of their process, ours goes on.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.graph.fuzz import confirmed, fuzz
from trt_qat.engine.aot.child import Compiler


def main() -> None:
    """Read the command line and print what came of the run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--confirm", action="store_true", help="ask TensorRT for RTX")
    parser.add_argument("--out", type=Path, help="write what came of it there, as JSON")
    arguments = parser.parse_args()
    began = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-preflight-"))
    if arguments.confirm:
        with Compiler() as compiler:
            outcomes = fuzz(arguments.count, arguments.seed, folder, confirmed(compiler))
    else:
        outcomes = fuzz(arguments.count, arguments.seed, folder)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"seed {arguments.seed}: {arguments.count} models, no crash of ours, {dict(outcomes)}")
    seconds = time.perf_counter() - began
    print(f"{seconds:.1f} s, peak memory {peak_mib:.0f} MiB")
    if arguments.out is not None:
        document = {
            "seed": arguments.seed,
            "models": arguments.count,
            "tracebacks": 0,  # the first one ends the run
            "outcomes": dict(outcomes),
            "peak_mib": round(peak_mib),
            "seconds": round(seconds),
        }
        arguments.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
