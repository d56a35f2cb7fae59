"""The forward of a placed part: the deployed graph as code, and when the user's own code runs.

A part's owner gets a class derived from its own, one for each class and not for each model, and a
`Program` in its attributes: plain data, so that the model can be copied, pickled and saved whole.
"""

from __future__ import annotations

import functools
import linecache
import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from trt_qat.qat.placement.calls import Call, guarded, mismatch, tensors_of
from trt_qat.qat.placement.own_path import OwnPath, deployed_within
from trt_qat.qat.placement.stock import HOOKS

PROGRAM = "_qdq_program"
OWN_FORWARD = "_own_forward"  # one that the user set on the instance
_DERIVED = "_qdq_derived"
_count = 0


@dataclass
class Code:
    """A graph as a Python function that can be copied and pickled.

    Attributes:
        source: of a function ``forward`` that takes the owner and whatever the graph takes.
        names: its global names.
        function: compiled from both.
    """

    source: str
    names: dict[str, Any]
    function: Callable[..., Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.function = _compile(self.source, self.names)

    def __deepcopy__(self, memo: dict[int, Any]) -> Code:
        """Return itself: it holds no module and no tensor, and nothing changes it."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return what can be pickled: modules such as ``torch`` go by their names."""
        names = {
            key: _Imported(value.__name__) if isinstance(value, types.ModuleType) else value
            for key, value in self.names.items()
        }
        state = {k: v for k, v in vars(self).items() if k not in ("function", "forward")}
        return {**state, "names": names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Import what went by its name."""
        self.__dict__.update(state)
        self.names = {
            key: value.module() if isinstance(value, _Imported) else value
            for key, value in self.names.items()
        }
        self.__post_init__()


@dataclass
class Program(Code):
    """One part's deployed graph as code, and what decides whether it runs.

    Attributes:
        call: as seen on the first batch, without its tensors.
        output: structure of what the owner returns.
        trains: the graph is that of training too.
        sizes: sizes of the seen tensors behind the batch, where the graph holds for them alone.
        inlined: paths of the modules whose code the graph runs through, and whether the graph
            holds what their hooks do.
        own_path: for runs of the user's code.
    """

    call: Call
    output: Any
    trains: bool
    sizes: list[tuple[int, ...]] | None
    inlined: dict[str, bool]
    own_path: OwnPath = field(default_factory=OwnPath)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.forward = guarded(self.function, self.call, self.output)  # in the owner's signature

    @classmethod
    def of(cls, graph: fx.Graph, call: Call, output: Any, **options: Any) -> Program:
        """Take the code of a graph."""
        code = graph.python_code("self")
        return cls(code.src, dict(code.globals), call.without_tensors(), output, **options)

    def deploys(self, owner: nn.Module, args: Any, kwargs: Any) -> bool:
        """Tell whether the deployed graph stands for this call of the owner's code."""
        if owner.training and not self.trains:
            return False
        exporting = torch.compiler.is_exporting()
        for path, hooks_traced in self.inlined.items():
            if _has_hooks(owner, path) and not (exporting and hooks_traced):
                return False
        if mismatch(self.call, args, kwargs) is not None:
            return False
        return self.sizes is None or _sizes((args, kwargs)) == self.sizes


@dataclass(frozen=True)
class _Imported:
    name: str

    def module(self) -> types.ModuleType:
        import importlib

        return importlib.import_module(self.name)


def _compile(source: str, names: dict[str, Any]) -> Callable[..., Any]:
    global _count
    _count += 1
    file = f"<placed graph {_count}>"
    # Never checked against a file: so that a traceback can show the line.
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    space = dict(names)
    exec(compile(source, file, "exec"), space)
    compiled: Callable[..., Any] = space["forward"]
    weakref.finalize(compiled, linecache.cache.pop, file, None)
    return compiled


def _has_hooks(owner: nn.Module, path: str) -> bool:
    module = owner.get_submodule(path)
    return any(getattr(module, hooks) for hooks in HOOKS)


def _sizes(value: Any) -> list[tuple[int, ...]]:
    return [tuple(t.shape[1:]) for t in tensors_of(value)]


def install(owner: nn.Module, program: Program) -> None:
    """Give ``owner`` its program in place of its forward."""
    if "forward" in vars(owner):
        vars(owner)[OWN_FORWARD] = vars(owner).pop("forward")
    vars(owner)[PROGRAM] = program
    owner.__class__ = derived(type(owner), "Placed", _placed_forward)


_CLASSES: weakref.WeakValueDictionary[tuple[str, type], type[nn.Module]] = (
    weakref.WeakValueDictionary()
)


def is_derived(cls: type) -> bool:
    """Tell whether `derived` made a class."""
    return _DERIVED in vars(cls)


def derived(
    original: type[nn.Module], kind: str, forward_of: Callable[[type[nn.Module]], Any]
) -> type[nn.Module]:
    """Return the class derived from ``original`` with another forward; one for each class.

    Args:
        original: the user's class.
        kind: tells classes derived from one for different ends apart.
        forward_of: makes the forward of it.
    """
    found = _CLASSES.get((kind, original))
    if found is not None:
        return found

    def reduce(self: nn.Module, protocol: Any) -> Any:
        state: Any = getattr(self, "__getstate__", None)  # of every object from Python 3.11 on
        rebuilt = (original, kind, forward_of)
        return _blank, rebuilt, vars(self) if state is None else state()

    namespace = {
        "forward": forward_of(original),
        "__reduce_ex__": reduce,
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": f"{original.__name__} whose forward holds Q/DQ pairs.",
        _DERIVED: True,
    }
    made = type(original.__name__, (original,), namespace)  # messages name the user's class
    _CLASSES[kind, original] = made
    return made


def _placed_forward(original: type[nn.Module]) -> Callable[..., Any]:
    @functools.wraps(original.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        program: Program = vars(self)[PROGRAM]
        if program.deploys(self, args, kwargs):
            if torch.compiler.is_compiling():  # and no run of the owner's code goes on around it
                return program.forward(self, *args, **kwargs)
            with deployed_within(self):
                return program.forward(self, *args, **kwargs)
        own = vars(self).get(OWN_FORWARD) or functools.partial(original.forward, self)
        return program.own_path.run(self, own, args, kwargs)

    return forward


def _blank(original: type[nn.Module], kind: str, forward_of: Any) -> nn.Module:
    """Make the instance that a pickle or a copy fills."""
    cls = derived(original, kind, forward_of)
    made: nn.Module = cls.__new__(cls)
    return made
