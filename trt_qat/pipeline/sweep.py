"""Many runs of recipes, with seeds and values of keys, in processes of their own; one table."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from trt_qat import artifact
from trt_qat.errors import InputError, RecipeError
from trt_qat.files import read_json
from trt_qat.pipeline.sweep_ray import Answer, has_ray, on_ray
from trt_qat.recipe.load import load_recipe

TABLE = "sweep.json"
AGAIN = "delete it to start the sweep afresh"
PROVEN = (0, 1, 4)
"""Exit codes of runs that came to their end: passed, not good enough, not proven to the last."""


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        name: of its folder below the sweep's.
        recipe: the engine's TOML.
        overrides: ``a.b=v`` each.
        point: what it is but for its seed: the recipe's name and the values of the grid.
    """

    name: str
    recipe: Path
    overrides: tuple[str, ...]
    point: str


@dataclass
class Row:
    """What became of a job; ``why`` is its last line where it did not come to its end."""

    name: str
    point: str
    overrides: tuple[str, ...]
    fingerprint: str
    exit_code: int
    metrics: dict[str, Any] = field(default_factory=dict)
    verdict: str = ""
    why: str = ""


def jobs_of(
    recipes: Sequence[Path], seeds: Sequence[int], grid: Sequence[str], settings: Sequence[str]
) -> list[Job]:
    """Return every combination of recipe, values and seed.

    Args:
        recipes: engines' TOMLs.
        seeds: of training and QAT; none: the recipes' own.
        grid: ``a.b=v1,v2`` each.
        settings: ``a.b=v`` each, for all.

    Raises:
        RecipeError: a recipe, a key or a value is wrong, or two jobs would share a folder.
    """
    axes: list[list[str]] = []
    for entry in grid:
        key, equals, values = entry.partition("=")
        if not equals or not values:
            message = f"--grid {entry}: allowed: a.b=v1,v2, such as finetune.lr=1e-3,5e-4"
            raise RecipeError(message)
        axes.append([f"{key}={value}" for value in values.split(",")])
    found: list[Job] = []
    for path, point in itertools.product(recipes, itertools.product(*axes)):
        for seed in seeds or (None,):
            seeded = [] if seed is None else [f"train.seed={seed}", f"finetune.seed={seed}"]
            given = (*settings, *point, *seeded)
            recipe = load_recipe(path, given)  # what is wrong is told before anything is run
            where = "-".join([recipe.spec.name, *map(_plain, point)])
            name = where if seed is None else f"{where}-seed{seed}"
            found.append(Job(name, recipe.path, given, " ".join([recipe.spec.name, *point])))
    names = [job.name for job in found]
    twin = next((name for name in names if names.count(name) > 1), None)
    if twin is not None:
        message = f"two jobs are called {twin!r}: give the recipes different names"
        raise RecipeError(message)
    return found


def _plain(override: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", override.partition(".")[2] or override)


def sweep(
    jobs: Sequence[Job],
    out: Path,
    *,
    at_once: int | None = None,
    until: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Run jobs, each in a process; go on with those that have not come to their end.

    The table is whole after each. Where Ray is installed its machines take them, if they share the
    folder's disk; elsewhere processes of this one.

    Args:
        jobs: to be run.
        out: gets a run folder and a log a job, and ``sweep.json``.
        at_once: how many run at a time; None: one, and of Ray's machines as many as have room.
            Devices of CUDA_VISIBLE_DEVICES are dealt among those that run here.
        until: the last stage of each.
        say: called with a line at a time of what happens.

    Returns:
        A row a job, in their order.
    """
    table = out / TABLE
    prints = {job.name: _fingerprint(job, until) for job in jobs}
    rows = {row.name: row for row in known_rows(table) if row.exit_code in PROVEN}
    rows = {name: row for name, row in rows.items() if prints.get(name) == row.fingerprint}
    left = [job for job in jobs if job.name not in rows]
    out.mkdir(parents=True, exist_ok=True)
    lock = threading.Lock()

    by_name = {job.name: job for job in left}

    def done(name: str, answer: Answer) -> None:
        row = _row(by_name[name], prints[name], *answer)
        with lock:
            rows[name] = row
            kept = [asdict(rows[each.name]) for each in jobs if each.name in rows]
            artifact.write_json(table, {"rows": kept})
            say(f"{len(rows)} of {len(jobs)}: {row.name}: {row.verdict or row.why}")

    commands = [(job.name, _command(job, out / job.name, until)) for job in left]
    (on_ray if has_ray() else _here)(commands, out.resolve(), at_once, done)
    return [rows[job.name] for job in jobs]


def known_rows(table: Path) -> list[Row]:
    """Return the rows of an earlier call's table; none where there is no table.

    Raises:
        InputError: it is no table of a sweep.
    """
    if not table.is_file():
        return []
    try:
        return [
            Row(**{**row, "overrides": tuple(row["overrides"])})
            for row in read_json(table, AGAIN)["rows"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        message = f"{table}: no table of a sweep ({error}); {AGAIN}"
        raise InputError(message) from error


def _fingerprint(job: Job, until: str | None) -> str:
    recipe = load_recipe(job.recipe, job.overrides)
    spec = recipe.spec.model_dump(mode="json")
    return artifact.fingerprint(spec=spec, until=until, versions=artifact.versions())


def _command(job: Job, folder: Path, until: str | None) -> list[str]:
    words = [str(job.recipe.resolve()), "--out", str(folder.resolve()), "--resume", "--json"]
    words += [] if until is None else ["--until", until]
    sets = [word for override in job.overrides for word in ("--set", override)]
    return [sys.executable, "-m", "trt_qat", "run", *words, *sets]


def _row(job: Job, fingerprint: str, code: int, told: str, log: str) -> Row:
    row = Row(job.name, job.point, job.overrides, fingerprint, code)
    try:
        document = json.loads(told)
        row.metrics, row.verdict = document["metrics"], document["verdict"]["title"]
    except (ValueError, KeyError, TypeError):
        row.why = next((line for line in reversed(log.splitlines()) if line.strip()), "no word")
    return row


def _here(
    commands: Iterable[tuple[str, list[str]]],
    out: Path,
    at_once: int | None,
    done: Callable[[str, Answer], None],
) -> None:
    at_once = at_once or 1
    devices = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    free, running = list(range(at_once)), set[subprocess.Popen[str]]()
    lock = threading.Lock()

    def run(name: str, words: list[str]) -> None:
        with lock:
            slot = free.pop()
        more = {"CUDA_VISIBLE_DEVICES": devices[slot % len(devices)]} if devices else {}
        threads = str(max(1, (os.cpu_count() or 1) // at_once))
        environment = {"OMP_NUM_THREADS": threads, **os.environ, **more}
        with (out / f"{name}.log").open("w+") as log:
            with subprocess.Popen(
                words,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                cwd=Path.cwd(),
            ) as process:
                running.add(process)
                told, _ = process.communicate()
            running.discard(process)
            log.seek(0)
            answer = process.returncode, told, log.read()
        with lock:
            free.append(slot)
        done(name, answer)

    with ThreadPoolExecutor(at_once) as pool:
        tasks = [pool.submit(run, name, words) for name, words in commands]
        try:
            for task in tasks:
                task.result()
        except BaseException:  # Ctrl-C and SIGTERM: each job writes its checkpoint and ends
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.terminate()
            raise


def points(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return a line a point: of every score the mean, least and largest over its seeds."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.point, []).append(row)
    lines = []
    for point, members in found.items():
        scores: dict[str, list[float]] = {}
        for row in members:
            for name, entry in row.metrics.items():
                scores.setdefault(name, []).append(float(entry["accuracy"]))
        lines.append(
            {
                "point": point,
                "runs": len(members),
                "ended": sum(row.exit_code in PROVEN for row in members),
                "scores": {
                    name: {"mean": mean(all_), "least": min(all_), "largest": max(all_)}
                    for name, all_ in scores.items()
                },
            }
        )
    return lines
