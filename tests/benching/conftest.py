"""One benchmark that several test files look at."""

from __future__ import annotations

from typing import Any

import pytest

import trt_qat as tq
from tests.runners.test_ort import linear_onnx
from trt_qat.benching.result import BenchResult
from trt_qat.benching.settings import Settings

QUICK = Settings(seconds=0.02, sessions=1, warmup_s=0.01, energy_s=0)
"""For what does not depend on time."""


@pytest.fixture(scope="session")
def linear(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(linear_onnx(tmp_path_factory.mktemp("bench")))


@pytest.fixture(scope="session")
def result(linear: str) -> BenchResult:
    """Two models at two batch sizes, in sessions, with all that is measured beside latency."""
    settings = Settings(
        seconds=0.05, sessions=6, warmup_s=0.01, streams=(1, 2), layers=True, energy_s=0
    )
    specs = [f"ort:{linear}", f"ort-int8:{linear}"]
    return tq.bench(specs, batches=(1, 8), target="a100", accuracy=(0.93, 0.92), settings=settings)


@pytest.fixture(scope="session")
def document(result: BenchResult) -> dict[str, Any]:
    return result.to_dict()
