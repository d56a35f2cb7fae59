"""What every build checks before, and cleans up after, whichever compiler does it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from trt_qat.errors import CheckFailed
from trt_qat.wording import counted


@contextlib.contextmanager
def gone_after_an_error(path: Path | None) -> Iterator[None]:
    """Remove a file that only a build which ended well has a use for."""
    try:
        yield
    except BaseException:
        if path is not None:
            path.unlink(missing_ok=True)
        raise


def refuse_errors(onnx: Path, target: str | None, version: str) -> None:
    """Refuse what TensorRT would refuse, or silently compute wrongly.

    Raises:
        CheckFailed: preflight finds an error.
    """
    from trt_qat.lint.preflight import preflight

    report = preflight(onnx, target, tensorrt=version)
    found = [finding for finding in report.findings if finding.severity == "error"]
    if found:
        first = found[0]
        message = (
            f"{onnx}: preflight finds {counted(len(found), 'error')} for TensorRT {version}; the "
            f"first: {first.rule} at {first.node}: {first.message} All: trt-qat preflight {onnx} "
            f"--tensorrt {version}"
        )
        raise CheckFailed(message)
