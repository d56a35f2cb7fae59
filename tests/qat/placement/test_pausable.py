"""A paused mode sees nothing, and leaves torch's modes as they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from trt_qat.qat.placement.pausable import Pausable


class Seeing(Pausable):
    """Keeps the names of what torch calls it for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen.append(func.__name__)
        return func(*args, **(kwargs or {}))


class Above(TorchFunctionMode):
    """One of the user's."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def failing(mode: Pausable) -> float:
    with mode:
        mode.pause()
        return 1 / 0


def test_torch_calls_a_paused_mode_for_no_operation_and_no_attribute() -> None:
    x, mode = torch.ones(2), Seeing()
    with mode:
        mode.pause()
        assert x.relu().dtype == torch.float32
        mode.pause()
        x.relu()
        mode.resume()
        x.relu()
        assert mode.busy == 1
        assert mode.seen == []
        mode.resume()
        x.neg()
    x.relu()
    assert mode.seen == ["neg"]


def test_a_mode_that_lies_above_goes_on_seeing() -> None:
    x, mode, above = torch.ones(2), Seeing(), Above()
    with mode, above:
        mode.pause()
        x.relu()
        mode.resume()
        x.neg()
    assert above.calls == 2
    with mode:
        mode.pause()
        with above:
            x.relu()
        mode.resume()
        x.sign()
    assert above.calls == 3
    assert mode.seen == ["relu", "neg", "sign"], "below another one it had to let them pass"


def test_an_error_during_a_pause_leaves_the_modes_below_in_place() -> None:
    x, mode, below = torch.ones(2), Seeing(), Above()
    with below:
        with pytest.raises(ZeroDivisionError):
            failing(mode)
        x.relu()
    assert below.calls == 1
    assert mode.seen == []
