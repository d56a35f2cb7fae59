"""Do the tests of lint rules and of placement notice small changes of what they test?

    python benchmarks/mutation.py lint --sample 400 --out benchmarks/results/cpu/mutation-lint.json
    python benchmarks/mutation.py placement --sample 300 --minutes 30
    python benchmarks/mutation.py lint --file fusion.py --lines 40-60
    python benchmarks/mutation.py lint --sample 400 --again RESULT.json

Each change (tests/mutants.py) is put into a process of its own, a fork of one that has imported
all, and the tests that run its line, themselves or in a fixture, are run there, those named like
its file first, then the quickest, until one fails. What none fails on has survived; what takes far
longer than without counts as noticed. mutmut is not used: it leaves out functions with decorators,
which all rules are.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FunctionType
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.mutants import Mutant, functions_of, mutants, put

ROOT = Path(__file__).parents[1]
_LINT = ("rules", "beside_*", "fate", "operators", "preflight", "reported")
PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "lint": (
        "trt_qat/lint/rules",
        tuple(
            str(path.relative_to(ROOT))
            for name in _LINT
            for path in sorted(ROOT.glob(f"tests/lint/test_{name}.py"))
        ),
    ),
    "placement": ("trt_qat/qat/placement", ("tests/qat/placement",)),
}
"""Part -> folder of the code, and the tests that mirror it.

Those of placement by exports (tests/qat) take minutes and notice more.
"""

_NO_COLLECTION = ("-p", "no:unraisableexception")  # of all garbage, at the end of every run
QUIET = [
    "-q",
    "-x",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
    *_NO_COLLECTION,
    "--no-header",
    "-W",
    "ignore",
]
MOST_SECONDS = 45.0
"""Of tests that a change gets: those named like its file and the quickest first."""

PATIENCE = 5.0
"""Times what the tests take without a change, and 20 seconds; what takes longer does not end.

Of processor time a test may take so many times what the longest test does, and 5 seconds.
"""


@dataclass
class Tests:
    """What tests run and take.

    Attributes:
        seconds: by test.
        lines: file -> line -> tests.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[int, set[str]]] = field(default_factory=dict)

    def of(self, mutant: Mutant) -> list[str]:
        """Return the tests that run a mutant's lines: its file's own, then the quickest."""
        known = self.lines.get(str(mutant.path), {})
        lines = range(mutant.line, mutant.last_line + 1)
        near = set().union(*(known.get(line, set()) for line in lines))
        chosen: list[str] = []
        left = MOST_SECONDS
        own = f"/test_{mutant.path.stem}.py::"
        for test in sorted(near, key=lambda test: (own not in test, self.seconds[test])):
            left -= self.seconds[test]
            if chosen and left < 0:
                break
            chosen.append(test)
        return chosen


class _Watch:
    """A plugin of pytest: which test or fixture runs, and how long a test takes.

    Attributes:
        fixtures: of each test.
    """

    def __init__(self, tests: Tests, switch: Callable[[str], object]) -> None:
        self.tests, self.switch = tests, switch
        self.fixtures: dict[str, list[str]] = {}
        self._now = [""]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        names = getattr(item, "fixturenames", ())
        self.fixtures[item.nodeid] = [f"fixture {name}" for name in names]
        began = time.perf_counter()
        with self._as(item.nodeid):
            yield
        self.tests.seconds[item.nodeid] = time.perf_counter() - began

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[Any]:
        with self._as(f"fixture {fixturedef.argname}"):
            return (yield)

    @contextlib.contextmanager
    def _as(self, what: str) -> Iterator[None]:
        self._now.append(what)
        self.switch(what)
        try:
            yield
        finally:
            self._now.pop()
            self.switch(self._now[-1])


class _Chosen:
    """A plugin of pytest: only these tests, in this order, each with its time.

    One that takes longer ends the process by a signal, wherever its code is.
    """

    def __init__(self, names: Sequence[str], seconds: float) -> None:
        self.places = {name: place for place, name in enumerate(names)}
        self.seconds = seconds
        signal.signal(signal.SIGPROF, signal.SIG_DFL)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        signal.setitimer(signal.ITIMER_PROF, self.seconds)
        yield
        signal.setitimer(signal.ITIMER_PROF, 0)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self.places]
        items.sort(key=lambda item: self.places[item.nodeid])


def observed(folder: Path, paths: Sequence[str]) -> Tests:
    """Run the tests once, in a fork, and return what they run and take.

    Raises:
        SystemExit: one of them fails without any change.
    """
    scratch = Path(tempfile.mkdtemp(prefix="mutation-"))
    child = os.fork()
    if not child:
        _observe(folder, paths, scratch)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        told = "the tests fail without any change; run them with pytest first"
        raise SystemExit(told)
    from coverage import CoverageData

    told = json.loads((scratch / "told.json").read_text())
    tests = Tests(told["seconds"])
    users: dict[str, set[str]] = {name: {name} for name in tests.seconds}
    for test, fixtures in told["fixtures"].items():
        for fixture in fixtures:
            users.setdefault(fixture, set()).add(test)
    data = CoverageData(str(scratch / "coverage"))
    data.read()
    for name in data.measured_files():
        by_line = data.contexts_by_lineno(name)
        tests.lines[name] = {
            line: set().union(*(users.get(each, set()) for each in run))
            for line, run in by_line.items()
        }
    return tests


def _observe(folder: Path, paths: Sequence[str], scratch: Path) -> None:
    import coverage

    measured = coverage.Coverage(
        data_file=str(scratch / "coverage"), include=[f"{folder}/*"], config_file=False
    )
    watch = _Watch(Tests(), measured.switch_context)
    _silent()
    measured.start()
    code = pytest.main([*QUIET, *paths], [watch])
    measured.stop()
    measured.save()
    told = {"seconds": watch.tests.seconds, "fixtures": watch.fixtures}
    (scratch / "told.json").write_text(json.dumps(told))
    os._exit(int(code))


def _silent() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def noticed(mutant: Mutant, tests: Tests, functions: list[FunctionType]) -> str:
    """Return how a mutant ended: ``failed``, ``endless``, ``survived`` or ``not run``.

    Args:
        mutant: to be put in.
        tests: all of its part.
        functions: the living ones of its part.
    """
    if not (wanted := tests.of(mutant)):
        return "not run"
    child = os.fork()
    if not child:
        _silent()
        files = sorted({test.partition("::")[0] for test in wanted})
        plugin = _Chosen(wanted, 5 + PATIENCE * max(tests.seconds.values()))
        os._exit(int(pytest.main([*QUIET, *files], [plugin])) if put(mutant, functions) else 99)
    usual = sum(map(tests.seconds.__getitem__, wanted))
    code = _ended(child, 20 + PATIENCE * usual)
    if code == -signal.SIGPROF:
        code = None
    if code is not None and code > 3:
        told = f"{mutant.path}:{mutant.line} {mutant.function}: pytest ended with {code}"
        raise SystemExit(told)
    return "endless" if code is None else "failed" if code else "survived"


def _ended(child: int, seconds: float) -> int | None:
    """Wait for a process; return its exit code, or None where it had to be ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def chosen(folder: Path, given: argparse.Namespace) -> list[Mutant]:
    """Return the mutants that are asked for: a sample of all, in a fixed order."""
    found = [each for path in sorted(folder.rglob("*.py")) for each in mutants(path)]
    if given.file:
        found = [each for each in found if each.path.name in given.file]
    if given.lines:
        first, _, last = given.lines.partition("-")
        found = [each for each in found if int(first) <= each.line <= int(last or first)]
    if given.sample and given.sample < len(found):
        kept = sorted(Random(given.seed).sample(range(len(found)), given.sample))
        found = [found[i] for i in kept]
    return found


def label(mutant: Mutant) -> str:
    """Return a mutant's place and change."""
    place = f"{mutant.path.relative_to(ROOT)}:{mutant.line}"
    return f"{place} {mutant.function}: {mutant.what}"


def document(results: list[tuple[Mutant, str]], given: argparse.Namespace) -> dict[str, Any]:
    """Return the score, by file too, with those that survived."""
    files: dict[str, Counter[str]] = defaultdict(Counter)
    for mutant, how in results:
        files[str(mutant.path.relative_to(ROOT))][how] += 1
    total = Counter(how for _, how in results)
    seen = total["failed"] + total["endless"]
    return {
        "part": given.part,
        "seed": given.seed,
        "mutants": len(results),
        "score_percent": round(100 * seen / max(len(results), 1), 1),
        **dict(sorted(total.items())),
        "files": {name: dict(sorted(count.items())) for name, count in sorted(files.items())},
        "survivors": [
            f"{label(each)} ({how})" for each, how in results if how in ("survived", "not run")
        ],
    }


def main() -> None:
    """Read the command line, and put one mutant after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=sorted(PARTS))
    parser.add_argument("--sample", type=int, default=0, help="so many, drawn by --seed; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--file", nargs="+", help="of these files alone")
    parser.add_argument("--lines", help="FIRST-LAST of those files")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many")
    parser.add_argument("--again", type=Path, help="only what survived there, by more tests")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    os.chdir(ROOT)
    place, paths = PARTS[given.part]
    waiting = chosen(ROOT / place, given)
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main([*QUIET, "--collect-only", *paths])
    began = time.monotonic()
    tests = observed(ROOT / place, paths)
    print(
        f"{len(tests.seconds)} tests, {sum(tests.seconds.values()):.0f} s; {len(waiting)} mutants"
    )
    Random(given.seed).shuffle(waiting)  # so that what --minutes leaves is a sample too
    results: list[tuple[Mutant, str]] = []
    if given.again:
        known = json.loads(given.again.read_text(encoding="utf-8"))
        alive = {text.rpartition(" (")[0] for text in known["survivors"]}
        waiting = waiting[: known["mutants"]]
        results = [(mutant, "failed") for mutant in waiting if label(mutant) not in alive]
        waiting = [mutant for mutant in waiting if label(mutant) in alive]
    functions = functions_of(ROOT / place)
    for mutant in waiting:
        if time.monotonic() - began > 60 * given.minutes:
            break
        how = noticed(mutant, tests, functions)
        results.append((mutant, how))
        if how in ("survived", "not run"):
            print(how, label(mutant), flush=True)
    results.sort(key=lambda each: (str(each[0].path), each[0].number))
    told = document(results, given)
    print(json.dumps({key: told[key] for key in told if key not in ("survivors", "files")}))
    if given.out is not None:
        given.out.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
