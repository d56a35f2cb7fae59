"""What ends a training from outside: heard when a file is written, told of in one sentence."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from tests.qat.training import small_model
from trt_qat.errors import DataError
from trt_qat.qat import checkpoint, stopping
from trt_qat.qat.stopping import signals_held, workers_watched


class Ended(BaseException):
    pass


@pytest.fixture
def handled() -> Iterator[None]:
    """SIGTERM raises, as under the command line; SIGINT as Python sets it."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended

    before = signal.signal(signal.SIGTERM, end)
    yield
    signal.signal(signal.SIGTERM, before)


def writes_of(path: Path, monkeypatch: pytest.MonkeyPatch, at: int, number: int = 0) -> int:
    """Save a model, with a signal in the write ``at``; return how many writes there were."""
    calls = 0

    class Signalled(checkpoint._Stream):
        def write(self, content: Any) -> int:
            nonlocal calls
            calls += 1
            if calls - 1 == at:
                signal.raise_signal(number)
            return super().write(content)

    monkeypatch.setattr(checkpoint, "_Stream", Signalled)
    checkpoint.save(small_model(), path)
    return calls


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Ended)]
)
def test_a_signal_in_any_write_of_a_checkpoint_is_heard_after_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    handled: None,
    number: int,
    error: type[BaseException],
) -> None:
    # Unheld, torch turns some into a RuntimeError, loses some, and ends the process at others.
    writes = writes_of(tmp_path / "whole.pt", monkeypatch, at=-1)
    whole = (tmp_path / "whole.pt").read_bytes()
    assert writes > 20
    for at in range(0, writes, 7):
        path = tmp_path / f"{at}.pt"
        with pytest.raises(error):
            writes_of(path, monkeypatch, at, number)
        assert path.read_bytes() == whole
    assert not [file for file in tmp_path.iterdir() if "tmp" in file.name]


def test_handlers_are_put_back_and_the_default_of_sigterm_is_let_be(handled: None) -> None:
    ours = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with signals_held():
        assert signal.getsignal(signal.SIGTERM) is not ours[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == ours
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with signals_held():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_error_of_the_block_is_what_the_interrupt_came_upon() -> None:
    def fail() -> None:
        with signals_held():
            signal.raise_signal(signal.SIGINT)
            torch.zeros(1).reshape(2)

    with pytest.raises(KeyboardInterrupt) as caught:
        fail()
    assert isinstance(caught.value.__context__, RuntimeError)


def broken_pipe() -> None:
    """Read from a process that is gone, as a DataLoader does of a batch in shared memory."""
    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    ours.recv()


def test_a_pipe_found_broken_before_torch_tells_of_a_dead_process_is_that_process() -> None:
    def tell(number: int, frame: FrameType | None) -> None:
        message = "DataLoader worker (pid 7) is killed by signal: Killed."
        raise RuntimeError(message)

    before = signal.signal(signal.SIGALRM, tell)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        died = "training data died: DataLoader worker"
        with pytest.raises(DataError, match=died), workers_watched():
            broken_pipe()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_broken_pipe_of_something_else_and_a_file_that_is_missing_stay_what_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stopping, "_PATIENCE", 0.01)
    with pytest.raises(EOFError), workers_watched():
        broken_pipe()
    with pytest.raises(FileNotFoundError), workers_watched():
        Path("missing").read_bytes()


def test_torch_may_tell_of_a_dead_process_while_it_is_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told(traceback: object) -> Iterator[Any]:
        message = "DataLoader worker (pid 7) is killed by signal: Killed."
        raise RuntimeError(message)

    monkeypatch.setattr("traceback.walk_tb", told)
    with pytest.raises(DataError, match="training data died"), workers_watched():
        broken_pipe()
