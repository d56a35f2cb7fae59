"""trtexec's summary at the end of a log."""

from __future__ import annotations

from pathlib import Path

from tests.runs import command_line
from trt_qat.engine.evidence.build_log import parse

SUMMARY = """\
[01/10/2024-21:55:18] [I] === Performance summary ===
[01/10/2024-21:55:18] [I] Throughput: 2217.29 qps
[01/10/2024-21:55:18] [I] Latency: min = 0.5 ms, max = 1.2 ms, mean = 0.52 ms, median = 0.51 ms, \
percentile(90%) = 0.53 ms, percentile(95%) = 0.55 ms, percentile(99%) = 0.6 ms
[01/10/2024-21:55:18] [I] Enqueue Time: min = 0.03 ms, max = 0.2 ms, mean = 0.04 ms, median = 0.04 \
ms, percentile(99%) = 0.1 ms
[01/10/2024-21:55:18] [I] GPU Compute Time: min = 0.44 ms, max = 0.9 ms, mean = 0.446 ms, median = \
0.4444 ms, percentile(90%) = 0.445 ms, percentile(95%) = 0.45 ms, percentile(99%) = 0.48 ms
[01/10/2024-21:55:18] [I] Total Host Walltime: 3.001 s
&&&& PASSED TensorRT.trtexec [TensorRT v8601] # trtexec --loadEngine=a
"""


def test_medians_and_percentiles_are_read_off() -> None:
    told = parse(SUMMARY).performance
    assert told["throughput_qps"] == 2217.29
    assert (told["compute_ms_p50"], told["compute_ms_p99"]) == (0.4444, 0.48)
    assert (told["latency_ms_p50"], told["enqueue_ms_p50"]) == (0.51, 0.04)


def test_a_log_without_a_summary_tells_none() -> None:
    assert parse("[I] Throughput is not told\n").performance == {}


def test_the_command_prints_them(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text(SUMMARY)
    done = command_line("inspect", tmp_path / "x.log")
    assert "TensorRT 8.6.1, it passed" in done.stdout
    assert "computing takes 0.4444 ms (median; 99 %: 0.48 ms)" in done.stdout
    assert "2217.29 queries a second" in done.stdout


def test_figures_in_the_users_locale_are_read() -> None:
    told = parse(SUMMARY.replace(".4", ",4").replace("2217.29", "2.217,29")).performance
    assert (told["compute_ms_p50"], told["throughput_qps"]) == (0.4444, 2217.29)
