"""Where an operation stands, and its one name whatever its spelling."""

from __future__ import annotations

import _thread
import operator
import sys
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trt_qat.qat.placement import callsite, why
from trt_qat.qat.placement.callsite import (
    Line,
    Ordinal,
    Scope,
    Scopes,
    Site,
    current_line,
    modules_by_path,
    operation_name,
    user_frame,
)


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("add", "add"), ("add_", "add"), ("__add__", "add"), ("__radd__", "add"),
        ("__iadd__", "add"), (torch.add, "add"), (operator.add, "add"), (operator.iadd, "add"),
        ("__rsub__", "sub"), ("__imul__", "mul"), ("__rmatmul__", "matmul"), ("__rpow__", "pow"),
        ("relu_", "relu"), (torch.round, "round"), ("index_add", "index_add"), ("isub", "sub"),
        (torch.fmod, "fmod"), (torch.rsqrt, "rsqrt"), ("imag", "imag"), (torch.addmm, "addmm"),
        (Scope("a", 1), "Scope(path='a', call=1)"),
    ],
)  # fmt: skip
def test_an_operation_has_one_name(target: Any, name: str) -> None:
    assert operation_name(target) == name


def here() -> Line:
    return current_line()


def test_a_line_is_an_instruction_of_the_users_code() -> None:
    line = here()
    assert line.file == __file__
    assert line.function == here.__code__.co_firstlineno
    assert here() == line
    first, second = current_line(), current_line()
    assert first.function == second.function
    assert first.offset < second.offset


class Asking(nn.Module):
    def forward(self, x: Tensor) -> Any:
        frame = user_frame(sys._getframe(0))
        return x, frame, user_frame(frame.f_back if frame else None)


def test_code_of_torch_and_of_placement_is_not_the_users() -> None:
    _, inner, outer = Asking()(torch.ones(1))
    assert inner.f_code is Asking.forward.__code__
    assert outer is sys._getframe(0)  # torch's _call_impl lies between
    assert user_frame(None) is None
    ours = compile("import sys; frame = user_frame(sys._getframe(0))", callsite.__file__, "exec")
    frozen = compile("import sys; frame = user_frame(sys._getframe(0))", "<frozen x>", "exec")
    for code in (ours, frozen):
        space: dict[str, Any] = {"user_frame": user_frame}
        exec(code, space)
        assert space["frame"] is sys._getframe(0)


def test_code_that_no_code_of_the_users_has_called_has_a_line_too() -> None:
    source = "def run():\n    told.append(current_line()); done.release()"
    done = threading.Lock()
    done.acquire()
    told: list[Line] = []
    space: dict[str, Any] = {"current_line": current_line, "told": told, "done": done}
    exec(compile(source, "<frozen hooks>", "exec"), space)
    _thread.start_new_thread(space["run"], ())
    assert done.acquire(timeout=20)
    assert told == [Line("", 0, 0)]


def test_sites_count_the_calls_of_modules_and_the_turns_of_instructions() -> None:
    scopes, line, other = Scopes(), Line("f", 1, 2), Line("f", 1, 4)
    root = Scope("", 0)
    assert scopes.site(line, "add") == Site(root, line, "add", 0)
    assert scopes.site(line, "add") == Site(root, line, "add", 1)
    assert scopes.site(line, "add") == Site(root, line, "add", 2)
    assert scopes.site(other, "add") == Site(root, other, "add", 0)
    assert scopes.site(line, "mul") == Site(root, line, "mul", 0)
    assert scopes.ordinal("add") == Ordinal(root, "add", 0)
    assert scopes.ordinal("add") == Ordinal(root, "add", 1)
    assert scopes.ordinal("mul") == Ordinal(root, "mul", 0)
    assert scopes.next_call("a") == Scope("a", 0)
    assert scopes.enter("a") == Scope("a", 0)
    assert scopes.next_call("a") == Scope("a", 1)
    assert scopes.enter("a.b") == Scope("a.b", 0)
    assert scopes.site(line, "add") == Site(Scope("a.b", 0), line, "add", 0)
    assert scopes.ordinal("add") == Ordinal(Scope("a.b", 0), "add", 0)
    scopes.leave()
    assert scopes.enter("a.b") == Scope("a.b", 1)
    scopes.leave()
    scopes.leave()
    assert scopes.enter("a") == Scope("a", 1)
    assert scopes.site(line, "add") == Site(Scope("a", 1), line, "add", 0)


# Why a part was left


def reason(run: Any) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        run()
    return why.first_reason(caught.value)


def test_a_reason_is_one_line_and_where_in_the_users_code() -> None:
    def refuse() -> None:
        msg = "control flow\nand more"
        raise torch.fx.proxy.TraceError(msg)

    number = refuse.__code__.co_firstlineno + 2
    assert reason(refuse) == f"control flow (test_callsite.py:{number})"

    def wrong() -> Tensor:
        return torch.ones(2) + torch.ones(3)

    number = wrong.__code__.co_firstlineno + 1
    assert reason(wrong).startswith("RuntimeError: The size of tensor a (2)")
    assert reason(wrong).endswith(f"(test_callsite.py:{number})")

    def silent() -> None:
        raise KeyError

    assert reason(silent).startswith("KeyError: KeyError (test_callsite.py:")
    assert why.first_reason(ValueError("never raised")) == "ValueError: never raised"

    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.conv2d(x, x[0])

    number = Failing.forward.__code__.co_firstlineno + 1
    assert reason(lambda: Failing()(torch.ones(1))).endswith(f"(test_callsite.py:{number})")


def test_modules_have_the_paths_that_torch_gives_them() -> None:
    shared = nn.ReLU()
    root = nn.Sequential(nn.Sequential(nn.Linear(2, 2), shared), shared, nn.Identity())
    root[0].register_module("none", None)
    root[2].loop = root[0]
    assert modules_by_path(root) == dict(root.named_modules())
    assert list(modules_by_path(root)) == [path for path, _ in root.named_modules()]
