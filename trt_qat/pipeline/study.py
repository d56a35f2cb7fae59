"""What a study of a run needs of its folder, and what it leaves there for the next report."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from trt_qat import artifact, page
from trt_qat.errors import InputError
from trt_qat.pipeline.plan import trained
from trt_qat.pipeline.stage import Run

BUDGET = "budget.json"


def must_be_trained(run: Run, out: Path | None) -> None:
    """Refuse a run folder without the float model of its recipe.

    Args:
        run: whose folder is asked.
        out: the folder as it was given; None: it was not.

    Raises:
        InputError: it is absent or another recipe's; the message has the command that makes it.
    """
    if trained(run):
        return
    recipe = run.recipe
    words = ["trt-qat", "run", str(recipe.path), "--until", "train"]
    words += [] if out is None else ["--out", str(out)]
    words += [word for text in recipe.overrides for word in ("--set", text)]
    message = (
        f"{run.path('fp32.pt')}: absent, or not what this recipe trains; first run: "
        f"{shlex.join(words)}"
    )
    raise InputError(message)


def keep_study(run: Run, document: dict[str, Any]) -> None:
    """Write ``sensitivity.json``, with the digest of the float model that it is of."""
    fp32 = artifact.sha256_file(run.path("fp32.pt"))
    artifact.write_json(run.path(page.SENSITIVITY), document | {"fp32": fp32})
