"""The whole GPU check: build, inspect, compare and time every carried model, best cells first.

    python benchmarks/gpu/run.py --pieces pieces --carried carried --no-external-tactics
    python benchmarks/gpu/run.py --carried carried --seconds 540 --out $OUT
    python benchmarks/gpu/run.py --carried carried --list --tensorrt 8.6

The base install is enough; no torch. Results go to ``benchmarks/results/<gpu>/`` and are whole
after every cell: run it again and it goes on where it was. A crash of TensorRT, or an error that
leaves a process without a context of CUDA, costs its cell and a new process does the next.
``--seconds`` ends it after the cell that is running then. Clocks are recorded and never changed.
Exit status: 0 all cells done, 1 some failed or the time was up, 2 bad input, 3 no GPU or TensorRT.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.gpu import carry, cells, external, net, probes, store, summary, work
from benchmarks.gpu.cells import Cell
from trt_qat.artifact import versions, write_json, write_text
from trt_qat.benching import gpu as clocks
from trt_qat.benching import machine as host
from trt_qat.engine import compat, machine
from trt_qat.engine.sticky import is_sticky
from trt_qat.errors import BackendUnavailable, TrtQatError
from trt_qat.targets import parse_version

ROOT = Path(__file__).parents[2]
INTERNAL = ("edge_mask_convolutions", "jit_convolutions")
MOST_WORKERS = 20
"""Processes, one after a crash or a dead context; more would be a machine that cannot do it."""
DEAD = 5
"""Exit status of a worker whose context of CUDA is dead: whatever follows would fail too."""
TESTS_S = 400


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--carried", type=Path, required=True, help="folder of prepare.py")
    parser.add_argument("--pieces", type=Path, help="pieces to put together into it first")
    parser.add_argument("--out", type=Path, help="results; absent: benchmarks/results/<gpu>")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "trt-qat-gpu")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="budget")
    parser.add_argument("--bench-seconds", type=float, default=3.0, help="of timing an engine")
    parser.add_argument("--only", action="append", help="model, or kind of cell; repeatable")
    parser.add_argument("--kind", action="append", help="of cells alone; repeatable")
    parser.add_argument("--batch", action="append", type=int, help="of published sizes; repeatable")
    parser.add_argument("--skip", action="append", default=[], help="variant; repeatable")
    parser.add_argument("--weights", choices=("auto", "int8", "fp32"), default="auto")
    parser.add_argument(
        "--no-external-tactics",
        action="store_true",
        help="without cuBLAS and cuDNN: for TensorRT 8.6 beside stand-ins of them",
    )
    parser.add_argument("--retry", action="store_true", help="do again what failed or crashed")
    parser.add_argument("--list", action="store_true", help="print the cells, in order, and stop")
    parser.add_argument("--tensorrt", default="10.3", help="version that --list is for")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def planned(
    given: argparse.Namespace, models: dict[str, Any], version: compat.Version
) -> list[Cell]:
    """Return the cells that are asked for, in order."""
    trtexec = shutil.which("trtexec") is not None
    every = cells.plan(models, version, probes=probes.PROBES, trtexec=trtexec)
    if given.only:
        every = [c for c in every if {c.kind, c.name} & set(given.only)]
    if given.kind:
        every = [c for c in every if c.kind in given.kind]
    if given.batch:
        every = [c for c in every if not c.batch or c.batch in given.batch]
    return [c for c in every if c.variant not in given.skip]


def out_folder(given: argparse.Namespace) -> Path:
    """Return where results go."""
    if given.out is not None:
        return Path(given.out)
    return ROOT / "benchmarks" / "results" / machine.gpus()[0][0].slug


def bench_of(
    given: argparse.Namespace, models: dict[str, Any], version: compat.Version
) -> work.Bench:
    """Return what the cells share."""
    auto = "int8" if version >= net.INT8_SINCE else "fp32"
    return work.Bench(
        carried=given.carried,
        models=models,
        work=given.work,
        out=out_folder(given),
        seconds=given.bench_seconds,
        common={"tactic_sources": INTERNAL} if given.no_external_tactics else {},
        weights=auto if given.weights == "auto" else given.weights,
        skip=tuple(given.skip),
    )


def do(bench: work.Bench, cell: Cell) -> Any:
    """Do one cell; return its result."""
    kinds: dict[str, Callable[[work.Bench, Cell], Any]] = {
        "build": work.build_cell,
        "time": work.time_cell,
        "rebuild": work.rebuild_cell,
        "trtexec": external.trtexec_cell,
        "tests": lambda bench, cell: gpu_tests(bench.common),
        "probe": probe_cell,
    }
    return kinds[cell.kind](bench, cell)


def probe_cell(bench: work.Bench, cell: Cell) -> Any:
    """Try one thing in a folder of its own."""
    with tempfile.TemporaryDirectory(dir=bench.work) as folder:
        return probes.PROBES[cell.name](Path(folder), bench.common)


def gpu_tests(options: dict[str, Any]) -> dict[str, Any]:
    """Run the tests that are marked ``gpu``, where pytest is installed."""
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-m", "gpu", "--noconftest"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "tests/engine/test_on_gpu.py"],
        cwd=ROOT,
        env=os.environ | {"TRT_QAT_TEST_BUILD": json.dumps(options)},
        capture_output=True,
        text=True,
        timeout=TESTS_S,
        check=False,
    )
    return {"exit": done.returncode, "tail": (done.stdout + done.stderr).splitlines()[-60:]}


def worker(given: argparse.Namespace) -> int:
    """Do cell after cell until none is left or the time is up; return the exit status."""
    models = carry.read_manifest(given.carried)["models"]
    version = compat.version(compat.load())
    bench, results = bench_of(given, models, version), store.Store(out_folder(given))
    bench.work.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + given.seconds
    failed = 0
    for cell in planned(given, models, version):
        if not results.is_open(cell, retry=given.retry):
            continue
        if time.monotonic() >= deadline:
            print("the time is up; run it again to go on", file=sys.stderr)
            return 1
        results.start(cell)
        began = time.perf_counter()
        try:
            result: Any = do(bench, cell)
        except Exception as error:  # whatever it is, the next cell is worth more than this one
            failed += 1
            results.end(cell, time.perf_counter() - began, error=f"{type(error).__name__}: {error}")
            print(f"{cell.id}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            if is_sticky(f"{type(error).__name__}: {error}"):
                return DEAD
        else:
            results.end(cell, time.perf_counter() - began, result=result)
            print(f"{cell.id}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return 1 if failed else 0


def supervise(given: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Run a worker, and another wherever one crashed or lost its context."""
    results, out = store.Store(out_folder(given)), out_folder(given)
    facts = {**machine.facts(), "host": host.examine(), "versions": versions()}
    command = shlex.join(["python", "benchmarks/gpu/run.py", *arguments])
    before = clocks.read()
    write_json(out / "machine.json", {"command": command, **facts, "clocks": [before]})
    deadline, code, lost = time.monotonic() + given.seconds, 1, False
    for _ in range(MOST_WORKERS):
        left = deadline - time.monotonic()
        again = [*arguments, "--worker", "--seconds", str(max(left, 0.0))]
        code = subprocess.run([sys.executable, __file__, *again], check=False).returncode
        crashed = results.mark_crashed()
        write_summary(out, facts)
        if crashed:
            print(
                f"{', '.join(crashed)}: TensorRT ended the process ({code}); going on", flush=True
            )
        elif code == DEAD:
            print("the context of CUDA is dead; going on in a new process", flush=True)
            lost = True
            # What failed would be tried again by every new process, and end each.
            arguments = [each for each in arguments if each != "--retry"]
        else:
            break
    seen = [before, clocks.read()]
    write_json(out / "machine.json", {"command": command, **facts, "clocks": seen})
    return code if code in (2, 3) or (code == 0 and not lost) else 1


def write_summary(out: Path, facts: dict[str, Any]) -> None:
    """Write what all cells say together."""
    found = summary.summarise(store.Store(out).all())
    write_json(out / "summary.json", found)
    write_text(out / "README.md", summary.page(facts, found))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check; return the exit status."""
    given = parse(arguments)
    try:
        if given.pieces and not given.worker:
            carry.join(given.pieces, given.carried)
        if given.list:
            models = carry.read_manifest(given.carried)["models"]
            for cell in planned(given, models, parse_version(given.tensorrt)):
                print(cell.id)
            return 0
        if reason := machine.why_not_run():
            raise BackendUnavailable(reason)
        if given.worker:
            return worker(given)
        carry.read_manifest(given.carried)
        return supervise(given, sys.argv[1:] if arguments is None else list(arguments))
    except TrtQatError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
