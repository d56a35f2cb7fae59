"""Kernels skipped for want of memory, in every wording that TensorRT has had."""

from __future__ import annotations

import pytest

from trt_qat.engine.evidence.memory import MIB, is_about, skipped

REQUEST = (
    "Tactic Device request: {0}MB Available: 166MB. Device memory is insufficient to use tactic."
)
OLD = "Skipping tactic 3 due to insuficient memory on requested size of 538 detected for tactic 4."
MENDED = (
    "Skipping tactic 3 due to insufficient memory on requested size of 541 detected for tactic 0x4."
)
BYTES = (
    "UNSUPPORTED_STATE: Skipping tactic 44 due to insufficient memory on requested size of "
    "1048576000 detected for tactic 0x6e2a3c7a7fc5e4e1."
)


@pytest.mark.parametrize(
    ("lines", "count", "mib"),
    [
        ([REQUEST.format(538), OLD], 1, 538),
        ([OLD], 1, 538),
        ([MENDED], 1, 541),
        ([REQUEST.format(1000), BYTES], 1, 1000),
        ([BYTES], 1, 1000),
        ([BYTES.replace("1048576000", "1048576").replace(": S", "S")], 1, 1),
        ([REQUEST.format(1583), MENDED.replace("541", "1583")], 1, 1583),
        ([REQUEST.format(2).replace("2MB", "2 GiB")], 1, 2048),
        ([REQUEST.format(950)] * 3, 3, 950),
        ([REQUEST.format(538), OLD, REQUEST.format(806), OLD.replace("538", "806")], 2, 806),
        ([REQUEST.format(950), REQUEST.format(538), OLD], 2, 950),
        ([], 0, 0),
    ],
    ids=[
        "8.x",
        "no request",
        "8.6",
        "bytes",
        "bytes alone",
        "9",
        "8.5",
        "GiB",
        "10",
        "two",
        "mixed",
        "none",
    ],
)
def test_each_kernel_counts_once_and_sizes_are_bytes(
    lines: list[str], count: int, mib: int
) -> None:
    found = skipped(lines)
    assert (found.count, found.largest_bytes) == (count, mib * MIB)


def test_a_small_request_of_newer_releases_is_of_bytes() -> None:
    """NVIDIA/TensorRT-LLM issue 493."""
    text = (
        "UNSUPPORTED_STATESkipping tactic 4 due to insufficient memory on requested size of 66048 "
        "detected for tactic 0x000000000000001f."
    )
    assert skipped([text]).largest_bytes == 66048


def test_other_skips_are_not_for_memory() -> None:
    text = "Skipping tactic 0x0 due to exception Assertion numScales == mGlobRefs failed."
    assert not is_about(text)
    assert skipped([text]).count == 0
