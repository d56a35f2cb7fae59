"""Ctrl-C during a build is neither lost nor raised out of one of TensorRT's callbacks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from trt_qat.engine.interrupt import noted


def test_the_interrupt_is_raised_when_the_block_ends() -> None:
    said: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    reached: list[bool] = []

    def build() -> None:
        with noted(said.append) as interrupt:
            os.kill(os.getpid(), signal.SIGINT)
            reached.append(interrupt.asked)

    with pytest.raises(KeyboardInterrupt):
        build()
    assert reached == [True]
    assert "as soon as TensorRT lets go" in said[0]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_block_that_nobody_stops_ends_as_it_is() -> None:
    with noted(lambda line: None) as interrupt:
        pass
    assert not interrupt.asked


def test_an_error_of_the_build_is_not_hidden() -> None:
    def build() -> None:
        with noted(lambda line: None):
            os.kill(os.getpid(), signal.SIGINT)
            message = "of the build"
            raise ValueError(message)

    with pytest.raises(ValueError, match="of the build"):
        build()


def test_a_second_interrupt_ends_the_process() -> None:
    code = (
        "import os, signal, time\n"
        "from trt_qat.engine.interrupt import noted\n"
        "with noted(print):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('still here')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGINT
    assert "still here" not in done.stdout


def test_a_build_outside_the_main_thread_is_left_alone() -> None:
    asked: list[bool] = []

    def build() -> None:
        with noted(lambda line: None) as interrupt:
            asked.append(interrupt.asked)

    thread = threading.Thread(target=build)
    thread.start()
    thread.join(10)
    assert asked == [False]
