"""Stages that need torch, imported when they run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from trt_qat.backends import lacks
from trt_qat.pipeline.stage import Metrics, Run


def torch_stages(name: str) -> Any:
    """Return `trt_qat.pipeline.torch_stages`.

    Raises:
        BackendUnavailable: a library of the ``train`` extra is missing; ``name`` says what for.
    """
    try:
        with warnings.catch_warnings():
            # ModelOpt speaks of transformers wherever that is installed; no stage uses it.
            warnings.filterwarnings("ignore", message="transformers .* is not tested")
            from trt_qat.pipeline import torch_stages as stages
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("trt_qat"):
            raise
        raise lacks(name, error.name, "train") from error
    return stages


def torch_stage(name: str) -> Callable[[Run], Metrics]:
    """Return a stage of `trt_qat.pipeline.torch_stages`, imported when it runs: it needs torch."""

    def work(run: Run) -> Metrics:
        body: Callable[[Run], Metrics] = getattr(torch_stages(name), name)
        return body(run)

    return work
