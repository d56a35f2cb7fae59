"""Jobs of a sweep on the machines of Ray, which share the folder's disk and the installation."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Answer = tuple[int, str, str]
"""Exit code, standard output and log of a job."""

RETRIES = 3
"""Of a job whose machine is gone: it goes on from its checkpoint."""

LOST = -9
"""Exit code of a job whose machine is gone for good, as of a process that was killed."""

PATIENCE_S = 120.0
"""What a job that is ended may take for its checkpoint."""


def has_ray() -> bool:
    """Tell whether Ray is installed."""
    return importlib.util.find_spec("ray") is not None


def on_ray(
    commands: Iterable[tuple[str, list[str]]],
    out: Path,
    at_once: int | None,
    done: Callable[[str, Answer], None],
) -> None:
    """Run commands as tasks of Ray, each with a GPU where the cluster has any, else a CPU.

    Args:
        commands: name and words of each.
        out: gets a log a job.
        at_once: how many run at a time; None: as many as Ray has room for.
        done: called with the name and what came of it, as each ends.
    """
    import ray

    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    remote = ray.remote(num_gpus=gpus, max_retries=RETRIES)(_ended)
    here = str(Path.cwd())
    waiting = list(commands)
    running: dict[Any, str] = {}
    try:
        while waiting or running:
            while waiting and (at_once is None or len(running) < at_once):
                name, words = waiting.pop(0)
                running[remote.remote(words, here)] = name
            (task,), _ = ray.wait(list(running), num_returns=1)
            name, answer = running.pop(task), _answer(task)
            (out / f"{name}.log").write_text(answer[2], encoding="utf-8")
            done(name, answer)
    except BaseException:  # Ctrl-C and SIGTERM: each job writes its checkpoint and ends
        for task in running:
            ray.cancel(task)
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=PATIENCE_S)
        raise


def _answer(task: Any) -> Answer:
    import ray

    try:
        code, told, log = ray.get(task)
    except ray.exceptions.RayError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        # Of an error in a task the last line says what, of a lost machine the first.
        at = -1 if isinstance(error, ray.exceptions.RayTaskError) else 0
        return LOST, "", f"Ray: {lines[at].strip() if lines else type(error).__name__}\n"
    return code, told, log


def _ended(words: list[str], folder: str) -> Answer:
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
    ) as process:
        try:
            told, log = _waited(process)
        except BaseException:  # cancelled
            process.terminate()
            process.wait()
            raise
    return process.returncode, told, log


def _waited(process: subprocess.Popen[str]) -> tuple[str, str]:
    while True:  # Ray's word that a task is cancelled is heard between two instructions alone
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=1.0)
