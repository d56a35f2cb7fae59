"""Small changes of source code that a test should notice, and putting one into a running process.

A mutant changes one place of one function: a comparison, a condition or a part of it, a number, a
name that is compared, a return or yield. Its code takes the place of the function's own
(``__code__``), so that it counts wherever the function was imported or registered by a decorator.
Not changed are texts of messages, tables of modules and values that arguments have by default.
"""

from __future__ import annotations

import ast
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult, ast.Mod: ast.Add,
}  # fmt: skip
_CALLED = {"any": "all", "all": "any", "min": "max", "max": "min"}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_OTHER = "another"  # takes the place of a name that is compared


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        path: of the file.
        number: of the change in the file, from 0.
        line: where what is changed begins, from 1.
        last_line: where it ends.
        what: the change, for people.
        function: name of the outermost function, or method, around it.
        first_line: where that function begins, its decorators included.
    """

    path: Path
    number: int
    line: int
    last_line: int
    what: str
    function: str
    first_line: int


def mutants(path: Path) -> list[Mutant]:
    """Return every mutant of a file, in the order of its lines."""
    found: list[Mutant] = []
    for function, node, change in _places(_parsed(path)):
        first = min([function.lineno, *(each.lineno for each in function.decorator_list)])
        placed = node.ifs[0] if isinstance(node, ast.comprehension) else _condition(node)
        line, last = placed.lineno, placed.end_lineno or placed.lineno
        named = f"{change.__name__.strip('_')}: {_shown(node)}"
        found.append(Mutant(path, len(found), line, last, named, function.name, first))
    return found


def functions_of(folder: Path) -> list[FunctionType]:
    """Return the living functions of the files in a folder."""
    gc.unfreeze()  # what is frozen is not listed
    living = (thing for thing in gc.get_objects() if type(thing) is FunctionType)
    return [each for each in living if each.__code__.co_filename.startswith(str(folder))]


def put(mutant: Mutant, functions: list[FunctionType] | None = None) -> int:
    """Give every living function of the mutant's place its code; return how many there were.

    Functions that it has made, as the tests of a table, are given theirs too.

    Args:
        mutant: what to put.
        functions: of the mutant's file and perhaps of others, None to look for them.
    """
    tree = _parsed(mutant.path)
    _, node, change = list(_places(tree))[mutant.number]
    change(node)
    module = compile(ast.fix_missing_locations(tree), str(mutant.path), "exec")
    code = _code(module, mutant.function, mutant.first_line)
    wanted = (str(mutant.path), mutant.function, mutant.first_line)
    living = functions_of(mutant.path) if functions is None else functions
    count = 0
    inner: dict[CodeType, CodeType] = {}
    for function in living:
        old = function.__code__
        if (old.co_filename, old.co_name, old.co_firstlineno) == wanted:
            inner.update(zip(_within(old), _within(code), strict=False))
            function.__code__ = code
            count += 1
    for function in living:
        if function.__code__ in inner:
            function.__code__ = inner[function.__code__]
    return count


def _within(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of functions within a function, but for what runs at once."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if not constant.co_name.endswith("comp>"):
                yield constant
            yield from _within(constant)


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _condition(node: ast.AST) -> Any:
    return node.test if isinstance(node, (ast.If, ast.While)) else node


def _shown(node: ast.AST) -> str:
    if isinstance(node, (ast.If, ast.While)):
        return f"if {ast.unparse(node.test)}"
    return ast.unparse(node)[:120]


def _outermost(tree: ast.Module) -> Iterator[Function]:
    for node in tree.body:
        if isinstance(node, _FUNCTIONS):
            yield node
        elif isinstance(node, ast.ClassDef):
            yield from (inner for inner in node.body if isinstance(inner, _FUNCTIONS))


def _code(module: CodeType, name: str, first_line: int) -> CodeType:
    for constant in module.co_consts:
        if isinstance(constant, CodeType):
            if (constant.co_name, constant.co_firstlineno) == (name, first_line):
                return constant
            try:
                return _code(constant, name, first_line)
            except LookupError:
                continue
    raise LookupError(name)


Function = ast.FunctionDef | ast.AsyncFunctionDef
Change = Callable[[ast.AST], None]


def _places(tree: ast.Module) -> Iterator[tuple[Function, ast.AST, Change]]:
    """Yield each node of functions' bodies that can be changed, and what changes it."""
    for function in _outermost(tree):
        for node in _executed(function.body):
            for change in _of(node):
                yield function, node, change


def _executed(nodes: list[ast.stmt]) -> Iterator[ast.AST]:
    """Yield the nodes of statements, less texts of messages, annotations and docstrings."""
    open_: list[ast.AST] = list(reversed(nodes))
    while open_:
        node = open_.pop()
        if isinstance(node, (ast.JoinedStr, ast.Raise, ast.arguments)):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        yield node
        left_out = {id(child) for child in (getattr(node, "annotation", None),) if child}
        children = [child for child in ast.iter_child_nodes(node) if id(child) not in left_out]
        open_ += reversed(children)


def _of(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.Compare):
        yield from (_compared(i) for i, op in enumerate(node.ops) if type(op) in _COMPARED)
        yield from (_renamed(i) for i, side in enumerate(node.comparators) if _names(side))
    elif isinstance(node, ast.BoolOp):
        yield _and_or
        yield from (_without(i) for i in range(len(node.values)))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield _not
    elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
        yield _never
        if not isinstance(node, ast.While):
            yield _always
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield from (_unfiltered(i) for i in range(len(node.ifs)))
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        yield _constant
    elif isinstance(node, ast.BinOp) and type(node.op) in _COMPUTED:
        yield _computed
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in _CALLED:
            yield _called
    else:
        yield from _of_statement(node)


def _of_statement(node: ast.AST) -> Iterator[Change]:
    yields = (ast.Yield, ast.YieldFrom)
    if isinstance(node, ast.Expr) and isinstance(node.value, yields):
        yield _no_yield
    elif isinstance(node, ast.Return) and node.value is not None:
        if not isinstance(node.value, ast.Constant):
            yield _returns_none
    elif isinstance(node, (ast.Continue, ast.Break)):
        yield _goes_on


def _names(side: ast.expr) -> bool:
    if isinstance(side, (ast.Tuple, ast.Set, ast.List)):
        return any(map(_names, side.elts))
    return isinstance(side, ast.Constant) and isinstance(side.value, str)


def _renamed(at: int) -> Change:
    def another_name(node: ast.AST) -> None:
        assert isinstance(node, ast.Compare)
        side = node.comparators[at]
        first = next(
            each
            for each in ast.walk(side)
            if isinstance(each, ast.Constant) and isinstance(each.value, str)
        )
        first.value = _OTHER

    return another_name


def _compared(at: int) -> Change:
    def other_comparison(node: ast.AST) -> None:
        assert isinstance(node, ast.Compare)
        node.ops[at] = _COMPARED[type(node.ops[at])]()

    return other_comparison


def _without(at: int) -> Change:
    def without_part(node: ast.AST) -> None:
        assert isinstance(node, ast.BoolOp)
        del node.values[at]
        if len(node.values) == 1:  # which Python's compiler does not take
            node.values *= 2

    without_part.__name__ = f"without_part_{at + 1}"
    return without_part


def _unfiltered(at: int) -> Change:
    def unfiltered(node: ast.AST) -> None:
        assert isinstance(node, ast.comprehension)
        node.ifs[at] = ast.Constant(value=True)

    return unfiltered


def _and_or(node: ast.AST) -> None:
    assert isinstance(node, ast.BoolOp)
    node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()


def _not(node: ast.AST) -> None:
    assert isinstance(node, ast.UnaryOp)
    twice = ast.UnaryOp(op=ast.Not(), operand=node.operand)
    node.operand = twice


def _never(node: ast.AST) -> None:
    assert isinstance(node, (ast.If, ast.IfExp, ast.While))
    node.test = ast.Constant(value=False)


def _always(node: ast.AST) -> None:
    assert isinstance(node, (ast.If, ast.IfExp))
    node.test = ast.Constant(value=True)


def _constant(node: ast.AST) -> None:
    assert isinstance(node, ast.Constant)
    value = node.value
    assert isinstance(value, (bool, int, float))
    node.value = (not value) if isinstance(value, bool) else value + 1


def _computed(node: ast.AST) -> None:
    assert isinstance(node, ast.BinOp)
    node.op = _COMPUTED[type(node.op)]()


def _called(node: ast.AST) -> None:
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    node.func.id = _CALLED[node.func.id]


def _no_yield(node: ast.AST) -> None:
    assert isinstance(node, ast.Expr)
    # It stays a generator.
    node.value = ast.YieldFrom(value=ast.Tuple(elts=[], ctx=ast.Load()))


def _returns_none(node: ast.AST) -> None:
    assert isinstance(node, ast.Return)
    node.value = ast.Constant(value=None)


def _goes_on(node: ast.AST) -> None:
    """Let the loop's body go on: a statement without effect takes its place."""
    node.__class__ = ast.Pass
