"""``torch-compile:`` SPECs: the same answers, compiled each time they are opened."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trt_qat.errors import BackendUnavailable, ModelError
from trt_qat.runners.open import runner

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler"
)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x).relu()
        return found


def no_module() -> str:
    return "nothing"


FEED = {"x": np.random.default_rng(0).random((2, 4), np.float32)}


def compiled_graphs() -> int:
    """Infer by a runner that is opened for it; return how many graphs were compiled for that."""
    stats: dict[str, int] = torch._dynamo.utils.counters["stats"]
    with runner("torch:tests.qat.test_compiled:Small") as eager:
        expected = eager.infer(FEED)["output"]
    with runner("torch-compile:tests.qat.test_compiled:Small") as compiled:
        before = stats["unique_graphs"]
        np.testing.assert_allclose(compiled.infer(FEED)["output"], expected, atol=1e-6)
    assert (eager.name, compiled.name) == ("torch", "torch-compile")
    return stats["unique_graphs"] - before


@pytest.mark.slow
@needs_compiler
def test_a_compiled_model_answers_as_the_model_does() -> None:
    assert compiled_graphs() == 1


@needs_compiler
@pytest.mark.slow
def test_a_model_is_compiled_however_often_it_is_opened() -> None:
    """Dynamo gives up after eight compilations of one forward, and would run the ninth eagerly."""
    assert [compiled_graphs() for _ in range(10)] == [1] * 10


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(BackendUnavailable, match=r"Small needs a C\+\+ compiler .* runs without"):
        runner("torch-compile:tests.qat.test_compiled:Small")


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(ModelError, match=r"torch-compile:.*:no_module returned str; it must"):
        runner("torch-compile:tests.qat.test_compiled:no_module")
