"""Keeping a study of sensitivity in its run folder, where the next report shows it."""

from __future__ import annotations

from typing import Any

from trt_qat import artifact, page
from trt_qat.pipeline.stage import Run


def keep_study(run: Run, document: dict[str, Any]) -> None:
    """Write ``sensitivity.json``, with the digest of the float model that it is of."""
    fp32 = artifact.sha256_file(run.path("fp32.pt"))
    artifact.write_json(run.path(page.SENSITIVITY), document | {"fp32": fp32})
