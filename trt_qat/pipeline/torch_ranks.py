"""A run by several processes, as torchrun and accelerate launch start them: one run folder.

The first process does what a lone one does. Before a stage that all take part in, it tells the
others, who do the same work in folders of their own, which are thrown away; while it exports,
judges and compares, they wait. What a stage reads and another process lacks is sent to it, so that
machines need not share a disk.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trt_qat import artifact
from trt_qat.pipeline.flow import RunResult
from trt_qat.pipeline.plan import PLAN
from trt_qat.pipeline.stage import Run, Stage
from trt_qat.qat import ranks
from trt_qat.recipe.load import Recipe


def run_together(recipe: Recipe, lead: Callable[[], RunResult], *, resume: bool) -> RunResult:
    """Run a recipe with all processes of the job.

    Args:
        recipe: of the run; every process has read it.
        lead: what the first process does; it enters `together` for every stage.
        resume: go on with a training that was interrupted.

    Returns:
        The result of the run, the same in every process.

    Raises:
        RankLost: another process failed or is gone.
    """
    ranks.join()
    with ranks.telling(), ranks.watched():
        if not ranks.is_first():
            return _follow(recipe, resume=resume)
        with ranks.alone():
            result = lead()
        ranks.from_first(result)
        return result


@contextlib.contextmanager
def together(stage: Stage, run: Run) -> Iterator[None]:
    """Have all processes do the work of a stage; without, it is the first one's alone."""
    if not stage.ranks:
        yield
        return
    with ranks.alone(False):
        ranks.from_first(stage.name)
        _hand_out(stage, run)
        yield


def _follow(recipe: Recipe, *, resume: bool) -> RunResult:
    with tempfile.TemporaryDirectory(prefix="trt-qat-") as scratch:
        run = Run(recipe, Path(scratch), resume=resume, progress=False)
        run.checkpoints = run.folder / "checkpoints"
        while True:
            order = ranks.from_first(None)
            if isinstance(order, RunResult):
                return order
            stage = next(each for each in PLAN if each.name == order)
            _hand_out(stage, run)
            assert stage.work is not None
            stage.work(run)


def _hand_out(stage: Stage, run: Run) -> None:
    """Bring the files that a stage reads to where this process lacks them, or has others."""
    have = {name: _digest(run.path(name)) for name in stage.parents}
    everywhere = ranks.gathered(have)
    for name, digest in everywhere[0].items():
        if digest is None or all(each[name] == digest for each in everywhere):
            continue
        content: Any = ranks.from_first(run.path(name).read_bytes() if ranks.is_first() else None)
        if have[name] != digest:
            with artifact.atomic_path(run.path(name)) as path:
                path.write_bytes(content)


def _digest(path: Path) -> str | None:
    return artifact.sha256_file(path) if path.is_file() else None
