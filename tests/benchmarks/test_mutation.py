"""Mutants change one place of a function, and take effect wherever the function is."""

from __future__ import annotations

import gc
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.mutation import PARTS, ROOT
from tests.mutants import functions_of, mutants, put

SOURCE = '''
from functools import cache

def some(values, *, least=1):
    """Docstring of 3."""
    kept = [v for v in values if v > least and v != "no"]
    if not kept:
        raise ValueError(f"{values == 7}")
    return any(kept) + 2

@cache
def numbers(last):
    return list(made(last))

def made(last):
    for at in range(last):
        if at == 2:
            continue
        yield at

class Kept:
    def half(self):
        return (lambda x: x // 2)(8)

def longer(least):
    return lambda text: len(text) > least

REGISTERED = [numbers, Kept.half]
TABLE = {"long": longer(3)}
'''


@pytest.fixture
def module(tmp_path: Path) -> ModuleType:
    path = tmp_path / "subject.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("subject", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def path_of(module: ModuleType) -> Path:
    assert module.__file__ is not None
    return Path(module.__file__)


def test_conditions_numbers_names_and_returns_are_changed(module: ModuleType) -> None:
    told = [f"{each.function} {each.what}" for each in mutants(path_of(module))]
    assert told == [
        "some unfiltered:  for v in values if v > least and v != 'no'",
        "some and_or: v > least and v != 'no'",
        "some without_part_1: v > least and v != 'no'",
        "some without_part_2: v > least and v != 'no'",
        "some other_comparison: v > least",
        "some other_comparison: v != 'no'",
        "some another_name: v != 'no'",
        "some never: if not kept",
        "some always: if not kept",
        "some not: not kept",
        "some returns_none: return any(kept) + 2",
        "some computed: any(kept) + 2",
        "some called: any(kept)",
        "some constant: 2",
        "numbers returns_none: return list(made(last))",
        "made never: if at == 2",
        "made always: if at == 2",
        "made other_comparison: at == 2",
        "made constant: 2",
        "made goes_on: continue",
        "made no_yield: yield at",
        "half returns_none: return (lambda x: x // 2)(8)",
        "half computed: x // 2",
        "half constant: 2",
        "half constant: 8",
        "longer returns_none: return lambda text: len(text) > least",
        "longer other_comparison: len(text) > least",
    ]


def changed(module: ModuleType, what: str, nth: int = 0) -> int:
    return put([each for each in mutants(path_of(module)) if what in each.what][nth])


def test_a_mutant_counts_behind_decorators_and_in_registries(module: ModuleType) -> None:
    numbers, half = module.REGISTERED
    assert changed(module, "returns_none: return list") == 1
    assert numbers(4) is None
    assert changed(module, "computed: x // 2") == 1
    assert half(None) == 16


def test_a_mutant_counts_in_what_its_function_has_made(module: ModuleType) -> None:
    assert not module.TABLE["long"]("abc")
    assert changed(module, "other_comparison: len(text)") == 1
    assert module.TABLE["long"]("abc")


@pytest.mark.parametrize(
    "what",
    ["unfiltered", "without_part_2", "other_comparison", "and_or", "called: any", "computed: any"],
)
def test_each_changes_what_the_function_returns(module: ModuleType, what: str) -> None:
    sound = [module.some([5, 1]), module.some([2, 3])]
    assert changed(module, what) == 1
    given = [[5, 1], [2, 3], [0], [1], [5, "no", 0]]
    told = []
    for values in given:
        try:
            told.append(module.some(values))
        except (ValueError, TypeError) as error:
            told.append(type(error).__name__)
    assert told != [*sound, "ValueError", "ValueError", 3]


def test_a_generator_stays_one(module: ModuleType) -> None:
    assert list(module.made(4)) == [0, 1, 3]
    changed(module, "goes_on")
    assert list(module.made(4)) == [0, 1, 2, 3]


def test_the_tests_of_a_part_are_there() -> None:
    for folder, paths in PARTS.values():
        assert (ROOT / folder).is_dir()
        assert all((ROOT / path).exists() for path in paths)
    beside = {path.name for path in (ROOT / "tests/lint").glob("test_beside_*.py")}
    assert beside
    assert beside <= {Path(path).name for path in PARTS["lint"][1]}


def test_functions_that_a_session_froze_are_found() -> None:
    gc.freeze()
    try:
        assert test_functions_that_a_session_froze_are_found in functions_of(Path(__file__))
    finally:
        gc.unfreeze()
