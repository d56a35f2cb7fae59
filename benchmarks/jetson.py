"""A benchmark on a Jetson: one power mode after the other, clocks locked. Needs no torch.

    python benchmarks/jetson.py model.onnx --modes 0,2 --set --out results
    python benchmarks/jetson.py --record board      # what this board tells of itself, as files
    python benchmarks/jetson.py --replay board      # the same on any machine, from those files

With ``--set`` each mode is set by ``sudo nvpmodel -m`` and clocks are locked by ``sudo
jetson_clocks``; at the end clocks and mode are what they were. Without it the board is measured as
it stands. Every mode is a process of its own: ``trt-qat build`` and ``trt-qat bench`` with energy.
See docs/jetson.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trt_qat.benching import jetson
from trt_qat.errors import BackendUnavailable, InputError, TrtQatError

SYS = Path("/sys")
PATTERNS = (
    "class/devfreq/*/*_freq",
    "bus/i2c/drivers/ina3221/*/hwmon/hwmon*/*_label",
    "bus/i2c/drivers/ina3221/*/hwmon/hwmon*/*_input",
    "class/thermal/thermal_zone*/type",
    "class/thermal/thermal_zone*/temp",
    "devices/system/cpu/online",
)
"""What `trt_qat.benching.jetson` reads of sysfs."""


def record(
    folder: Path, sys_: Path = SYS, model: Path = jetson.MODEL, root: Path = Path("/")
) -> int:
    """Copy what a board tells of itself into a folder; return the number of files.

    Nothing of it names a host, a user or an address.

    Raises:
        BackendUnavailable: this is no Jetson.
    """
    if jetson.examine(sys_, model, root) is None:
        message = f"{model}: names no Jetson; record on the board, replay anywhere"
        raise BackendUnavailable(message)
    files = {path: folder / "sys" / path.relative_to(sys_) for path in _sysfs(sys_)}
    files[model] = folder / "model"
    for part in (jetson.STATUS, jetson.CONFIGURATION, jetson.RELEASE):
        files[root / part] = folder / "root" / part
    count = 0
    for source, target in files.items():
        with contextlib.suppress(OSError):  # zones and rails that are off cannot be read
            content = source.read_bytes()
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            count += 1
    return count


def _sysfs(sys_: Path) -> Iterator[Path]:
    for pattern in PATTERNS:
        yield from sys_.glob(pattern)


def replay(folder: Path) -> dict[str, object]:
    """Return what a recorded board is and how it was set.

    Raises:
        InputError: the folder holds no record.
    """
    found = jetson.examine(folder / "sys", folder / "model", folder / "root")
    if found is None:
        message = f"{folder}: holds no record of a Jetson; make one there with --record"
        raise InputError(message)
    return {**found, "clocks_locked": jetson.clocks_locked(found)}


def commands(model: Path, engine: Path, batches: str, seconds: float, out: Path) -> list[list[str]]:
    """Return the commands that measure one mode."""
    ours = [sys.executable, "-m", "trt_qat"]
    bench = ["bench", f"trt:{engine}", "--seconds", f"{seconds:g}", "--out", str(out)]
    bench += ["--batch", batches] if batches else []
    return [[*ours, "build", str(model), "-o", str(engine)], [*ours, *bench]]


def run(command: list[str]) -> None:
    """Run a command and show it.

    Raises:
        InputError: it failed; its own message stands above.
    """
    print(f"$ {shlex.join(command)}", file=sys.stderr, flush=True)
    try:
        status = subprocess.run(command, check=False).returncode
    except FileNotFoundError as error:
        message = f"{command[0]}: not on this machine; --set needs JetPack's nvpmodel"
        raise BackendUnavailable(message) from error
    if status:
        message = f"{shlex.join(command)}: exit status {status}"
        raise InputError(message)


@contextlib.contextmanager
def clocks_locked() -> Iterator[None]:
    """Lock the clocks, and give them back whatever happens."""
    with tempfile.TemporaryDirectory() as folder:
        stored = str(Path(folder) / "clocks")
        run(["sudo", "jetson_clocks", "--store", stored])
        try:
            run(["sudo", "jetson_clocks"])
            yield
        finally:
            run(["sudo", "jetson_clocks", "--restore", stored])


def measure(model: Path, modes: list[str], given: argparse.Namespace) -> None:
    """Measure every mode, or the one that is set."""
    before = jetson.power_mode(Path("/"))
    try:
        for mode in modes or [(before or "as-it-is").partition(" ")[0]]:
            if given.set:
                run(["sudo", "nvpmodel", "-m", mode])
            with clocks_locked() if given.set else contextlib.nullcontext():
                out = given.out / f"{model.stem}-mode{mode}.json"
                engine = given.out / f"{model.stem}-mode{mode}.engine"
                for command in commands(model, engine, given.batch, given.seconds, out):
                    run(command)
    finally:
        if given.set and modes and before is not None:
            run(["sudo", "nvpmodel", "-m", before.partition(" ")[0]])


def main() -> None:
    """Record, replay or measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, help="a QDQ ONNX")
    parser.add_argument("--modes", default="", help="of nvpmodel -q --verbose, such as 0,2")
    parser.add_argument("--set", action="store_true", help="set modes and clocks by sudo")
    parser.add_argument("--batch", default="1")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path("jetson-results"))
    parser.add_argument("--record", type=Path, metavar="DIR")
    parser.add_argument("--replay", type=Path, metavar="DIR")
    given = parser.parse_args()
    modes = [mode for mode in given.modes.split(",") if mode]
    if not all(re.fullmatch(r"\d+", mode) for mode in modes):
        parser.error(f"--modes {given.modes}: allowed: numbers with commas between them")
    if modes and not given.set:
        parser.error("--modes needs --set, which changes the board's power mode by sudo")
    if sum(value is not None for value in (given.model, given.record, given.replay)) != 1:
        parser.error("give a model, --record DIR or --replay DIR, one of the three")
    try:
        if given.record:
            print(f"{given.record}: {record(given.record)} files")
        elif given.replay:
            print(json.dumps(replay(given.replay), indent=2))
        else:
            measure(given.model, modes, given)
    except TrtQatError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
