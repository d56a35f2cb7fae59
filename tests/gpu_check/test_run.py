"""The script: what it needs, what it survives, and the page that it leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.gpu import carry, external, probes, run, store, summary, work
from benchmarks.gpu.cells import FIRST, Cell
from benchmarks.gpu.predicted import FIELDS
from trt_qat.engine import compat, machine
from trt_qat.errors import CheckFailed

ROOT = Path(__file__).parents[2]
MODELS = {
    "small": {"published": False, "onnx": ["dense", "sparse"]},
    "big-224": {"published": True, "onnx": ["dense", "sparse"]},
}


@pytest.fixture
def carried(tmp_path: Path) -> Path:
    folder = tmp_path / "carried"
    folder.mkdir()
    carry.write_manifest(folder, {"models": MODELS})
    return folder


def script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/gpu/run.py", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.skipif(machine.why_not_run() is None, reason="TensorRT and a GPU are here")
def test_without_a_gpu_it_exits_3_with_one_sentence(carried: Path, tmp_path: Path) -> None:
    done = script("--carried", carried, "--out", tmp_path / "out")
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert "there is no GPU" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_cells_are_listed_anywhere(carried: Path) -> None:
    done = script("--carried", carried, "--list", "--tensorrt", "8.6", "--only", "small")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["build:small:dense", "build:small:sparse"]
    assert "build:small:implicit" in done.stdout


def test_a_folder_without_a_manifest_is_bad_input(tmp_path: Path) -> None:
    done = script("--carried", tmp_path, "--list")
    assert done.returncode == 2
    assert "no manifest" in done.stderr


# The worker, with cells that do nothing on a GPU


def worked(carried: Path, out: Path, monkeypatch: pytest.MonkeyPatch, do: Any, *more: str) -> int:
    monkeypatch.setattr(
        compat, "load", lambda: SimpleNamespace(__name__="tensorrt", __version__="10.3.0")
    )
    monkeypatch.setattr(run, "do", do)
    work = str(out / "work")
    given = ["--carried", str(carried), "--out", str(out), "--work", work, "--only", "small"]
    return run.worker(run.parse([*given, *more]))


def test_a_cell_that_fails_does_not_stop_the_next(
    carried: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def do(bench: Any, cell: Cell) -> Any:
        done.append(cell.id)
        if cell.variant == "dense":
            message = "no engine"
            raise CheckFailed(message)
        return {"did": cell.id}

    assert worked(carried, tmp_path, monkeypatch, do) == 1
    results = store.Store(tmp_path).all()
    assert results["build:small:dense"]["error"] == "CheckFailed: no engine"
    assert results["build:small:sparse"]["is"] == {"did": "build:small:sparse"}
    count = len(done)
    assert worked(carried, tmp_path, monkeypatch, do) == 0
    assert len(done) == count
    worked(carried, tmp_path, monkeypatch, do, "--retry")
    assert done[count:] == ["build:small:dense"]


def test_a_dead_context_ends_the_worker_and_costs_one_cell(
    carried: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows in that process would fail with the same error, whatever it is."""

    def do(bench: Any, cell: Cell) -> Any:
        message = "Error Code 1: Cuda Runtime (an illegal memory access was encountered)"
        raise CheckFailed(message)

    assert worked(carried, tmp_path, monkeypatch, do) == run.DEAD
    assert list(store.Store(tmp_path).all()) == ["build:small:dense"]
    assert worked(carried, tmp_path, monkeypatch, lambda bench, cell: 0) == 0


@pytest.mark.parametrize("last", [0, run.DEAD])
def test_a_worker_without_a_context_is_followed_by_another_and_not_for_ever(
    carried: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    commands: list[list[str]] = []

    def process(command: list[str], **_: Any) -> Any:
        commands.append(command)
        return SimpleNamespace(returncode=run.DEAD if len(commands) < 3 else last)

    monkeypatch.setattr(subprocess, "run", process)
    given = ["--carried", str(carried), "--out", str(tmp_path), "--retry"]
    assert run.supervise(run.parse(given), given) == 1  # a cell failed, whatever came then
    assert len(commands) == (3 if last == 0 else run.MOST_WORKERS)
    assert ["--retry" in command for command in commands[:2]] == [True, False]


def test_the_budget_ends_it_and_the_next_run_goes_on(
    carried: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert worked(carried, tmp_path, monkeypatch, lambda bench, cell: 0, "--seconds", "0") == 1
    assert store.Store(tmp_path).all() == {}
    assert worked(carried, tmp_path, monkeypatch, lambda bench, cell: 0) == 0
    assert len(store.Store(tmp_path).all()) > 5


def test_weights_are_in_the_form_that_the_version_is_documented_for(
    carried: Path, tmp_path: Path
) -> None:
    given = ["--carried", str(carried), "--out", str(tmp_path)]
    for version, more, form in (
        ((8, 6), [], "fp32"),
        ((10, 3), [], "int8"),
        ((8, 6), ["--weights", "int8"], "int8"),
    ):
        bench = run.bench_of(run.parse([*given, *more]), {}, version)
        assert bench.weights == form
    own = run.bench_of(run.parse([*given, "--no-external-tactics"]), {}, (8, 6))
    assert own.common == {"tactic_sources": run.INTERNAL}


def test_a_worker_that_dies_is_followed_by_another(
    carried: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As TensorRT without a GPU, or a stand-in of cuBLAS, ends the process."""
    codes, results = [-6, 0], store.Store(tmp_path)

    def process(command: list[str], **_: Any) -> Any:
        code = codes.pop(0)
        if code < 0:
            results.start(Cell("build", "small", "dense"))
        return SimpleNamespace(returncode=code)

    monkeypatch.setattr(subprocess, "run", process)
    given = ["--carried", str(carried), "--out", str(tmp_path)]
    assert run.supervise(run.parse(given), given) == 0
    assert codes == []
    assert results.all()["build:small:dense"]["status"] == "crashed"
    machine_file = json.loads((tmp_path / "machine.json").read_text())
    assert machine_file["command"].startswith("python benchmarks/gpu/run.py --carried")
    assert len(machine_file["clocks"]) == 2
    assert "| build:small:dense | crashed |" in (tmp_path / "README.md").read_text()


# The summary


def timing(a: str, b: str, ratio: float) -> dict[str, Any]:
    return {
        "a": a, "b": b, "wanted": "", "p50_ratio": ratio, "ci95": [ratio - 0.01, ratio + 0.01],
        "verdict": "faster", "p50_ms": [ratio, 1.0],
    }  # fmt: skip


def build_result() -> dict[str, Any]:
    row = {
        "layer": "conv", "op": "Conv", "why": [], "engine_layer": "conv + relu", "tactic": "t",
        "predicted": dict.fromkeys(FIELDS, True),
        "seen": dict.fromkeys(FIELDS, True) | {"sparse_kernel": False, "int8": None},
    }  # fmt: skip
    return {
        "build_seconds": 3.0,
        "census": {"layers": 5, "precision": {"int8": 3}, "int8_in_int8_out": 2},
        "sparsity": {"found": 4, "chose": 1},
        "skipped_tactics": 0,
        "prediction": {"agreement": {"sparse_kernel": {"only predicted": 1}}, "rows": [row]},
        "compare": [{"against_onnxruntime": {"sqnr_db": 31.0}, "rounding_sqnr_db": 40.0}],
    }


CELLS: dict[str, dict[str, Any]] = {
    "build:m:sparse:b1": {"status": "done", "seconds": 1, "is": build_result()},
    "time:m:b1": {
        "status": "done",
        "is": {"pairs": [timing("dense", "implicit", 1.04), timing("dense", "fp16", 0.6),
                         timing("dense", "stock", 0.9)], "missing": {}},
    },
    "probe:p": {"status": "failed", "error": "CheckFailed: no | really"},
}  # fmt: skip


def test_a_ratio_is_judged_by_what_was_asked() -> None:
    found = summary.summarise(CELLS)
    assert [(row["b"], row["met"]) for row in found["ratios"]] == [
        ("implicit", False),
        ("fp16", True),
        ("stock", None),
    ]


@pytest.mark.parametrize(
    ("sqnr_db", "rounding_db", "suspect"),
    [(None, 20.0, False), (31.0, 60.0, False), (12.0, 20.0, False), (9.0, 20.0, True),
     (29.0, None, True), (25.0, 60.0, True)],
)  # fmt: skip
def test_numerics_are_judged_by_what_rounding_alone_does(
    sqnr_db: float | None, rounding_db: float | None, suspect: bool
) -> None:
    found = build_result()
    found["compare"] = [
        {"against_onnxruntime": {"sqnr_db": sqnr_db}, "rounding_sqnr_db": rounding_db}
    ]
    cells = {"build:m:dense:b1": {"status": "done", "is": found}}
    assert summary.summarise(cells)["builds"][0]["suspect"] is suspect


def test_a_prediction_that_was_wrong_is_listed_with_its_reason() -> None:
    found = summary.summarise(CELLS)["prediction"]
    assert found["agreement"]["sparse_kernel"] == {"only predicted": 1}
    (wrong,) = found["wrong"]
    assert wrong["fields"] == ["sparse_kernel"]  # what the engine does not tell is no error
    assert wrong["engine_layer"] == "conv + relu"


def test_the_page_shows_what_was_not_done() -> None:
    facts = {"tensorrt": "8.6.0", "gpus": [{"name": "NVIDIA H100"}]}
    text = summary.page(facts, summary.summarise(CELLS))
    assert text.startswith("# TensorRT 8.6.0 on NVIDIA H100")
    assert "| m | b1 | dense / implicit | 1.040 | 1.030 to 1.050 |  | no |" in text
    assert r"| probe:p | CheckFailed: no \| really |" in text
    assert "| m | sparse | b1 | 3.0 | 5 | 2 | 4 | 1 | 31.0 | 40.0 | sound |" in text


def test_types_that_an_engine_hides_are_no_zero_on_the_page() -> None:
    found = build_result()
    found["census"] |= {"int8_in_int8_out": None, "int8_not_told": 3}
    row = summary.summarise({"build:m:dense:b1": {"status": "done", "is": found}})
    facts = {"tensorrt": "8.6.0", "gpus": [{"name": "NVIDIA H200"}]}
    assert "| 3.0 | 5 | - (3 not told) | 4 |" in summary.page(facts, row)


def test_runs_of_one_benchmark_are_paired_by_session() -> None:
    """What a session does to both cancels: here each is twice as slow as the one before."""
    slow = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    a = {"session_p50_ms": [0.9 * each for each in slow], "latency_ms": {"p50": 5.4}}
    b = {"session_p50_ms": slow, "latency_ms": {"p50": 6.0}}
    found = work.ratio(a, b)
    assert found["p50_ratio"] == pytest.approx(0.9)
    assert found["ci95"] == pytest.approx([0.9, 0.9])
    assert (found["verdict"], found["p50_ms"]) == ("faster", [5.4, 6.0])


# trtexec, and the probes


def test_trtexec_times_as_we_do() -> None:
    shapes = {"x": (1, 3, 8, 8), "m": (1, 16)}
    flags = external.arguments(Path("a.engine"), shapes, (10, 3))
    assert "--shapes=x:1x3x8x8,m:1x16" in flags
    assert {"--useCudaGraph", "--noDataTransfers"} <= set(flags)
    assert "--useCudaGraph" not in external.arguments(Path("a.engine"), shapes, (11, 0))


def test_the_median_is_read_from_what_trtexec_prints() -> None:
    line = (
        "[12/01/2023-10:00:00] [I] GPU Compute Time: min = 0.4 ms, max = 0.6 ms, "
        "mean = 0.5 ms, median = 0.47 ms, percentile(90%) = 0.5 ms"
    )
    assert external.median_ms(f"[I] Latency: min = 1 ms\n{line}\n") == 0.47
    with pytest.raises(CheckFailed, match="its last words: cannot load"):
        external.median_ms("cannot load\n")


def test_every_probe_says_what_it_asks() -> None:
    assert len(probes.PROBES) >= 15
    assert FIRST in probes.PROBES
    assert all((probe.__doc__ or "").endswith(".") for probe in probes.PROBES.values())
