"""``trt-qat report``: the page of a run, written again."""

from __future__ import annotations

import sys

from trt_qat.cli.options import RunFolder


def report(run_folder: RunFolder) -> None:
    """Write a run's report.html again, and print its path."""
    from trt_qat.page import write

    sys.stdout.write(f"{write(run_folder)}\n")
