"""Fixtures that several test files share."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest

from tests.parse_once import parse_once
from tests.runs import write_engine
from trt_qat.pipeline.run import RunResult, run

# As the command line does, before anything imports torch: see `trt_qat.cli.app.main`.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Processes that tests start would compile all of trt_qat again, each for itself.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests send it to themselves


def pytest_sessionstart() -> None:
    """Parse onnxscript's functions once; see tests/parse_once.py."""
    parse_once()


def pytest_collection_finish() -> None:
    """Let the collector pass by what is imported: a million objects that stay to the end."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regen", action="store_true", help="write tests/golden anew")


@pytest.fixture
def regen(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written instead of compared."""
    return bool(request.config.getoption("--regen"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A whole run of the small recipe; tests read its folder and change nothing in it."""
    folder = tmp_path_factory.mktemp("finished")
    return run(write_engine(folder), out=folder / "run")


@pytest.fixture(scope="session")
def run_folder(finished: RunResult) -> Path:
    return finished.folder
