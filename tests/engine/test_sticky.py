"""CUDA errors that end a process's context, by the texts that TensorRT 8.6.0 and pycuda gave."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from trt_qat.engine.sticky import created, is_sticky
from trt_qat.errors import BackendUnavailable

NULL = "pybind11::init(): factory function returned nullptr"
TRT = SimpleNamespace(__version__="8.6.0")


@pytest.mark.parametrize(
    "text",
    [
        "CheckFailed: 1: [calibrator.cpp::add::793] Error Code 1: Cuda Runtime (an illegal memory "
        "access was encountered)",
        "LogicError: cuStreamCreate failed: an illegal memory access was encountered",
        "BackendUnavailable: CUDA: cudaMalloc fails with cudaErrorIllegalAddress",
        f"TypeError: {NULL}",
    ],
)
def test_an_error_that_leaves_no_context_is_known(text: str) -> None:
    assert is_sticky(text)


@pytest.mark.parametrize("text", ["CheckFailed: no engine", "out of memory", "CUDA: invalid value"])
def test_other_errors_leave_it_usable(text: str) -> None:
    assert not is_sticky(text)


def test_a_null_pointer_is_a_sentence_on_the_gpu() -> None:
    log = SimpleNamespace(lines=["[W] hm", "[E] 6: CUDA initialization failure with error: 700"])

    def make() -> Any:
        raise TypeError(NULL)

    with pytest.raises(
        BackendUnavailable, match=r"TensorRT 8\.6\.0 has no context.*700\).*new"
    ) as e:
        created(TRT, log, make)
    assert is_sticky(str(e.value))


def test_another_type_error_is_its_own() -> None:
    def make() -> Any:
        message = "incompatible constructor arguments"
        raise TypeError(message)

    with pytest.raises(TypeError, match="incompatible"):
        created(TRT, SimpleNamespace(lines=[]), make)
    assert created(TRT, SimpleNamespace(lines=[]), lambda: 3) == 3
