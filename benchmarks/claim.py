"""Claims about latency: measured, judged, and written with all that is needed to do it again.

    python benchmarks/claim.py benchmarks/claims/*.toml
    python benchmarks/claim.py benchmarks/claims/digits-itself.toml --repeats 1

A claim is a TOML file that `Claim` describes. The exit status is 0 if every claim holds in every
repetition, else 1; 2 for a claim that cannot be read or measured.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from trt_qat.artifact import platform_facts, sha256_file, versions, write_json
from trt_qat.errors import RecipeError, TrtQatError
from trt_qat.recipe.load import read_toml
from trt_qat.recipe.specs import Spec

RESULTS = Path("benchmarks/results")
DEVICE_KINDS = ("trt", "trt-graph", "trt-trusted", "ort-cuda")


class Threshold(Spec):
    """What the interval of the ratio, engine over baseline, has to satisfy as a whole."""

    below: float | None = Field(default=None, gt=0, description="its upper end lies below")
    above: float | None = Field(default=None, gt=0, description="its lower end lies above")
    same_within: float | None = Field(
        default=None, gt=0, lt=1, description="it lies inside 1 - x to 1 + x"
    )

    @model_validator(mode="after")
    def _something(self) -> Threshold:
        if self.below is self.above is self.same_within is None:
            message = "a threshold is needed: below, above or same_within"
            raise ValueError(message)
        return self

    def holds(self, low: float, high: float) -> bool:
        """Tell whether an interval satisfies all that is asked."""
        return (
            (self.below is None or high < self.below)
            and (self.above is None or low > self.above)
            and (self.same_within is None or max(1 - low, high - 1) < self.same_within)
        )


class Measuring(Spec):
    """Options of ``trt-qat bench``."""

    batches: tuple[int, ...] = ()
    seconds: float = Field(default=10.0, gt=0)
    precision: float = Field(default=0.01, gt=0)
    sessions: int = Field(default=8, ge=1)
    data: str | None = None
    target: str | None = None


class Claim(Spec):
    """Engines against baselines."""

    title: str
    repeats: int = Field(default=3, ge=1, description="processes, one after the other")
    make: tuple[str, ...] = Field(default=(), description="commands that make the files")
    engines: dict[str, str] = Field(min_length=1, description="name -> SPEC")
    baselines: dict[str, str] = Field(min_length=1, description="name -> SPEC")
    threshold: Threshold
    settings: Measuring = Measuring()


def load(path: Path) -> Claim:
    """Return a claim.

    Raises:
        RecipeError: the file cannot be read, or a key is unknown, missing or wrong.
    """
    try:
        return Claim.model_validate(read_toml(path))
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(map(str, item['loc'])) or 'the claim'}: {item['msg']}"
            for item in error.errors(include_url=False)
        ]
        raise RecipeError("\n".join(lines)) from error


def files(claim: Claim) -> dict[str, Path]:
    """Return the file of every SPEC that names one."""
    specs = (*claim.engines.values(), *claim.baselines.values())
    split = ((spec, *spec.partition(":")[::2]) for spec in specs)
    return {spec: Path(rest) for spec, kind, rest in split if kind != "torch"}


def make_files(claim: Claim) -> None:
    """Run the claim's commands if a file is not there.

    Raises:
        RecipeError: a command failed, or the files are not there after all.
    """
    if all(path.is_file() for path in files(claim).values()):
        return
    for command in claim.make:
        print(f"$ {command}", file=sys.stderr, flush=True)
        if status := subprocess.run(words(command), check=False).returncode:
            message = f"{command}: exit status {status}"
            raise RecipeError(message)
    for spec, path in files(claim).items():
        if not path.is_file():
            message = f"{spec}: no such file, and none of the claim's make commands makes it"
            raise RecipeError(message)


def words(command: str) -> list[str]:
    """Return a command's words; ``trt-qat`` and ``python`` are those that run this script."""
    first, *rest = shlex.split(command)
    ours = {"trt-qat": [sys.executable, "-m", "trt_qat"], "python": [sys.executable]}
    return [*ours.get(first, [first]), *rest]


def bench_command(claim: Claim, baseline: str, repeat: int) -> str:
    """Return the command of one repetition against one baseline."""
    given = claim.settings
    parts = ["trt-qat", "bench", claim.baselines[baseline], *claim.engines.values(), "--json"]
    parts += ["--seconds", f"{given.seconds:g}", "--precision", f"{given.precision:g}"]
    parts += ["--sessions", str(given.sessions), "--seed", str(repeat)]
    if given.batches:
        parts += ["--batch", ",".join(map(str, given.batches))]
    for option in ("data", "target"):
        if value := getattr(given, option):
            parts += [f"--{option}", value]
    return shlex.join(parts)


def measure(claim: Claim, baseline: str, repeat: int) -> dict[str, Any]:
    """Run one repetition and judge it.

    Raises:
        RecipeError: the benchmark could not be run.
    """
    command = bench_command(claim, baseline, repeat)
    done = subprocess.run(words(command), check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        message = f"{command}: exit status {done.returncode}"
        raise RecipeError(message)
    found = json.loads(done.stdout)
    names = list(claim.engines)
    judged = [
        {
            "engine": names[i % len(names)],
            "baseline": baseline,
            "batch": ratio["batch"],
            "p50_ratio": ratio["p50_ratio"],
            "ci95": ratio["ci95"],
            "holds": claim.threshold.holds(*ratio["ci95"]),
        }
        for i, ratio in enumerate(found["ratios"])
    ]
    return {"repeat": repeat, "command": command, "judged": judged, "bench": found}


def place(claim: Claim, runs: list[dict[str, Any]]) -> str:
    """Return the folder of the results: the GPU's name where one was used, else ``cpu``."""
    kinds = {spec.partition(":")[0] for spec in claim.engines.values()}
    gpus = runs[0]["bench"]["device"]["gpus"]
    if not kinds & set(DEVICE_KINDS) or not gpus:
        return "cpu"
    return re.sub(r"[^a-z0-9]+", "-", gpus[0]["name"].lower()).strip("-")


def run(path: Path, repeats: int | None, out: Path | None) -> bool:
    """Measure a claim, write its results, tell whether it holds."""
    claim = load(path)
    make_files(claim)
    digests = {spec: sha256_file(file) for spec, file in files(claim).items()}
    count = repeats or claim.repeats
    runs = [measure(claim, name, i) for i in range(count) for name in claim.baselines]
    judged = [entry for each in runs for entry in each["judged"]]
    holds = all(entry["holds"] for entry in judged)
    document = {
        "command": f"python {shlex.join(sys.argv)}",
        "machine": platform_facts(),
        "versions": versions(),
        "claim": claim.model_dump(mode="json"),
        "files": digests,
        "holds": holds,
        "runs": runs,
    }
    write_json(out or RESULTS / place(claim, runs) / f"claim-{path.stem}.json", document)
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim.title}")
    for entry in judged:
        low, high = entry["ci95"]
        print(
            f"  {entry['engine']} over {entry['baseline']}, batch {entry['batch']}: "
            f"{entry['p50_ratio']:.3f} ({low:.3f} to {high:.3f}) {'' if entry['holds'] else 'no'}"
        )
    return holds


def main() -> None:
    """Run the claims that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("claims", nargs="+", type=Path, metavar="CLAIM.toml")
    parser.add_argument("--repeats", type=int, help="instead of the claim's own number")
    parser.add_argument("--out", type=Path, help="for a single claim: where the JSON goes")
    given = parser.parse_args()
    if given.out and len(given.claims) > 1:
        parser.error("--out is for a single claim")
    try:
        held = [run(path, given.repeats, given.out) for path in given.claims]
    except TrtQatError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(int(not all(held)))


if __name__ == "__main__":
    main()
