"""What the tests of the benchmarks share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.benching.conftest import linear

__all__ = ["linear"]


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Benchmarks choose how many threads torch has; other tests train to the same bits after."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
