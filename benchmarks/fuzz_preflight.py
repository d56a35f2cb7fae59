"""Fuzz preflight: damaged models must give a report or one InputError, never another exception.

    python benchmarks/fuzz_preflight.py --count 5000 --seed 0
    python benchmarks/fuzz_preflight.py --count 2000 --confirm

Each model is judged, dumped, mended in memory and reported as SARIF and JUnit. The first model that
breaks something is kept beside the printed seed and index. With ``--confirm`` each is put to
NVIDIA's parser, and one in eight to its builder: whatever becomes of their process, ours goes on.
"""

from __future__ import annotations

import argparse
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
    print(f"{time.perf_counter() - began:.1f} s, peak memory {peak_mib:.0f} MiB")


if __name__ == "__main__":
    main()
