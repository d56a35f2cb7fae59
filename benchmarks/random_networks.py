"""Random networks: each file agrees with its model at every point, or the network is refused.

    python benchmarks/random_networks.py --first 0 --count 500
    python benchmarks/random_networks.py --first 0 --count 2000 --minutes 60 --parser

Networks of tests/qat/random_networks.py, by seed, quantized and exported as each seed says, and run
on onnxruntime at a batch and at one of another size (tests/qat/agreement.py). Every tenth is put to
TensorRT for RTX's parser too with ``--parser``. What has been done stands in the result file and is
not done again, so that the same command goes on; another commit's answers count as they are.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.parse_once import parse_once
from tests.qat.random_networks import random_case
from tests.qat.test_random_networks import TOLERANCE, errors
from trt_qat.atomic import atomic_path
from trt_qat.engine.aot.child import Compiler
from trt_qat.engine.confirm.preflight import preflight
from trt_qat.errors import TrtQatError

RESULT = Path("benchmarks/results/cpu/random_networks.json")
SAVED_EVERY = 20


def outcome(seed: int, compiler: Compiler | None) -> tuple[str, str]:
    """Return ``agreed``, ``refused``, ``wrong`` or ``parser``, and the reason or the error."""
    with tempfile.TemporaryDirectory(prefix="random-network-") as name:
        folder = Path(name)
        try:
            found = max(errors(random_case(seed), folder))
        except TrtQatError as error:
            left = [path.name for path in folder.iterdir()]
            return ("wrong", f"left {left}") if left else ("refused", kind(str(error)))
        if not found <= TOLERANCE:
            return "wrong", f"{found:.2e}"
        if compiler is not None and seed % 10 == 0:
            (path,) = folder.glob("*.onnx")
            told = preflight(path, confirm="rtx", compiler=compiler).confirmation
            assert told is not None
            if not told.parsed:
                return "parser", "; ".join(each.text for each in told.refused)[:200]
    return "agreed", ""


def kind(message: str) -> str:
    """Return an error's message without names and numbers, to be counted."""
    first = message.splitlines()[0]
    first = re.sub(r"'[^']*'|\"[^\"]*\"|\([^)]*\)", "…", first)
    return re.sub(r"[\w./-]*\d[\w./-]*|\S*/\S*", "…", first)[:160]


def document(done: dict[str, list[str]], seconds: float) -> dict[str, Any]:
    """Return what came of all that have been done."""
    counts = Counter(how for how, _ in done.values())
    reasons = Counter(why for how, why in done.values() if how == "refused")
    return {
        "networks": len(done),
        "tolerance": TOLERANCE,
        **{how: counts[how] for how in ("agreed", "refused", "wrong", "parser")},
        "seconds": round(seconds),
        "refusals": dict(reasons.most_common()),
        "at_fault": {seed: why for seed, (how, why) in done.items() if how in ("wrong", "parser")},
        "seeds": {how: sorted(int(s) for s, (h, _) in done.items() if h == how) for how in counts},
    }


def known(path: Path) -> tuple[dict[str, list[str]], float]:
    """Return what an earlier call has done, and how long it took."""
    if not path.is_file():
        return {}, 0.0
    told = json.loads(path.read_text(encoding="utf-8"))
    done = {str(seed): [how, ""] for how, seeds in told["seeds"].items() for seed in seeds}
    for seed, why in told["at_fault"].items():
        done[seed][1] = why
    refused = iter(why for why, count in told["refusals"].items() for _ in range(count))
    for each in done.values():
        if each[0] == "refused":  # the counts are kept, not which seed had which
            each[1] = next(refused)
    return done, float(told["seconds"])


def write(path: Path, told: dict[str, Any]) -> None:
    """Write the result; seeds of one outcome stand in one line."""
    text = json.dumps(told, indent=2)
    text = re.sub(r"\[\s+([\d,\s]+?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    with atomic_path(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line and run a range of seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many")
    parser.add_argument("--parser", action="store_true", help="ask TensorRT for RTX about a tenth")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    parse_once()
    done, before = known(given.out)
    began = time.monotonic()
    compiler = Compiler() if given.parser else None
    for seed in range(given.first, given.first + given.count):
        if time.monotonic() - began > 60 * given.minutes:
            break
        if str(seed) in done:
            continue
        done[str(seed)] = list(outcome(seed, compiler))
        if done[str(seed)][0] in ("wrong", "parser"):
            print(seed, *done[str(seed)], flush=True)
        if len(done) % SAVED_EVERY == 0:
            write(given.out, document(done, before + time.monotonic() - began))
    write(given.out, document(done, before + time.monotonic() - began))
    print({how: Counter(each[0] for each in done.values())[how] for how in ("agreed", "refused")})


if __name__ == "__main__":
    main()
