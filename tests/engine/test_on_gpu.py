"""The real thing: engines are built, inspected and run. Needs TensorRT, a GPU and a CUDA binding.

``TRT_QAT_TEST_BUILD`` may hold build options as JSON, such as tactic sources, where a machine needs
them. The base install and pytest are enough (``--noconftest``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import trt_qat as tq
from benchmarks.gpu import forms, net
from tests.runs import own_process
from trt_qat import backends
from trt_qat.artifact import read_sidecar, sha256_file, sidecar_path
from trt_qat.engine import compat, machine
from trt_qat.engine.build.build import build
from trt_qat.engine.build.implicit import build_implicit
from trt_qat.engine.build.result import EngineArtifact
from trt_qat.engine.evidence import evidence
from trt_qat.engine.execution.runner import TrtRunner
from trt_qat.engine.origin import origin_of
from trt_qat.errors import CheckFailed, DataError, InputError
from trt_qat.measure import metrics
from trt_qat.recipe.specs import BuildSpec
from trt_qat.runners.open import runner
from trt_qat.runners.ort import OrtRunner

WHY_NOT = backends.why_no_tensorrt() or machine.why_not_run()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(WHY_NOT is not None, reason=f"gpu: {WHY_NOT}")]

MIN_SQNR_DB = 30.0
"""Of an FP16 remainder against FP32: its own rounding leaves some 60 dB."""


def spec(**given: Any) -> BuildSpec:
    common = json.loads(os.environ.get("TRT_QAT_TEST_BUILD", "{}"))
    return BuildSpec.model_validate(common | {"batch": (1, 4, 16)} | given)


def network(folder: Path, **given: Any) -> Path:
    return net.write_for(compat.version(compat.load()), folder / "small.onnx", **given)


def agree(path: Path, opened: TrtRunner, batch: int, **given: Any) -> None:
    feed = net.feed(batch, **given)
    with OrtRunner(path) as reference:
        want = reference.infer(feed)[net.OUTPUT]
    got = opened.infer(feed)[net.OUTPUT]
    assert got.shape == want.shape
    assert (metrics.sqnr_db(want, got) or np.inf) > MIN_SQNR_DB


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EngineArtifact]:
    folder = tmp_path_factory.mktemp("engine")
    path = network(folder)
    return path, build(path, folder / "small.engine", spec=spec())


# Build and evidence


def test_a_build_leaves_plan_sidecar_and_layers(made: tuple[Path, EngineArtifact]) -> None:
    _, engine = made
    sidecar = read_sidecar(engine.path)
    assert sidecar is not None
    assert sidecar.sha256 == sha256_file(engine.path)
    assert evidence.layers_path(engine.path).is_file()
    assert tq.inspect(engine.path) == engine.layers
    assert engine.layers["source"]["tensorrt"] == compat.load().__version__


def test_the_engine_computes_in_int8(made: tuple[Path, EngineArtifact]) -> None:
    _, engine = made
    assert engine.layers["detailed"]
    assert (census := engine.layers["census"])["precision"].get("int8", 0) >= 2
    # TensorRT 8 hides the types of dynamic shapes.
    assert (census["int8_in_int8_out"] is None) == (census["int8_not_told"] > 1)


def test_the_log_tells_of_sparsity(tmp_path: Path) -> None:
    path = network(tmp_path, channels=256, size=14)
    engine = build(path, tmp_path / "wide.engine", spec=spec(batch=(32, 32, 32)))
    assert engine.layers["sparsity"] is not None
    assert engine.layers["sparsity"]["found"] == 2
    assert engine.layers["census"]["int8_in_int8_out"] >= 1  # one shape, so types are told
    dense = build(path, tmp_path / "d.engine", spec=spec(batch=(32, 32, 32), sparse_weights=False))
    assert not any(each["sparse"] == "sparse" for each in dense.layers["layers"])


def test_a_second_build_takes_its_kernels_from_the_cache(tmp_path: Path) -> None:
    path, cache = network(tmp_path), tmp_path / "shared.timing"
    first, second = (
        build(path, tmp_path / f"{at}.engine", spec=spec(timing_cache=str(cache))) for at in "ab"
    )
    assert cache.stat().st_size > 0
    kernels = [[each["tactic"] for each in one.layers["layers"]] for one in (first, second)]
    assert kernels[0] == kernels[1]


def test_a_damaged_cache_is_begun_anew(tmp_path: Path) -> None:
    path, cache = network(tmp_path), tmp_path / "bad.timing"
    cache.write_bytes(b"no cache" * 100)
    build(path, tmp_path / "a.engine", spec=spec(timing_cache=str(cache)))
    assert not cache.read_bytes().startswith(b"no cache")


def test_a_build_that_fails_leaves_no_file(tmp_path: Path) -> None:
    path = network(tmp_path)
    with pytest.raises(InputError, match="this machine has"):
        build(path, tmp_path / "a.engine", spec=spec(dla_core=15))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("graph", [False, True])
def test_the_profiler_tells_the_time_of_every_layer(
    made: tuple[Path, EngineArtifact], graph: bool
) -> None:
    _, engine = made
    with TrtRunner(engine.path, graph=graph) as opened:
        for _ in range(2):
            times = opened.layer_times(net.feed(4))
        assert set(times) & {each["name"] for each in engine.layers["layers"]}
        assert all(0 <= each < 1000 for each in times.values())


@pytest.mark.parametrize("options", [{"refit": "all"}, {"version_compatible": True}])
def test_portable_and_refittable_engines_run(tmp_path: Path, options: dict[str, Any]) -> None:
    path = network(tmp_path)
    engine = build(path, tmp_path / "a.engine", spec=spec(**options))
    with TrtRunner(engine.path) as opened:
        agree(path, opened, 4)


def test_a_plan_without_weights_is_smaller_or_refused_by_name(
    tmp_path: Path, made: tuple[Path, EngineArtifact]
) -> None:
    path, stripped = network(tmp_path), spec(refit="identical", strip_weights=True)
    if compat.version(compat.load()) < compat.STRONG_SINCE:
        with pytest.raises(InputError, match="REFIT_IDENTICAL"):
            build(path, tmp_path / "a.engine", spec=stripped)
        return
    engine = build(path, tmp_path / "a.engine", spec=stripped)
    assert engine.path.stat().st_size < made[1].path.stat().st_size


# Run


def test_every_batch_of_the_profile_agrees_with_onnxruntime(
    made: tuple[Path, EngineArtifact],
) -> None:
    path, engine = made
    with TrtRunner(engine.path) as opened:
        for batch in (4, 1, 16, 3, 16):
            agree(path, opened, batch)


def test_a_captured_graph_computes_the_same(made: tuple[Path, EngineArtifact]) -> None:
    if not machine.bindings()["cuda-python"]:
        pytest.skip("CUDA graphs need cuda-python")
    path, engine = made
    with runner(f"trt-graph:{engine.path}") as opened, TrtRunner(engine.path) as plain:
        for batch in (4, 4, 16, 4, 1):
            feed = net.feed(batch, seed=batch)
            got, want = opened.infer(feed), plain.infer(feed)
            assert np.array_equal(got[net.OUTPUT], want[net.OUTPUT])
        assert opened.device_timer(net.feed(4)) > 0  # type: ignore[attr-defined]
    assert path.is_file()


def test_the_second_profile_is_used_where_it_is_asked_for(tmp_path: Path) -> None:
    path = network(tmp_path)
    ranges = [
        {net.INPUT: {"min": shape, "opt": shape, "max": shape}}
        for shape in ([1, 64, 16, 16], [16, 64, 16, 16])
    ]
    engine = build(path, tmp_path / "two.engine", spec=spec(profiles=ranges))
    with TrtRunner(engine.path, profile=1) as opened:
        agree(path, opened, 16)
        with pytest.raises(DataError, match=r"the engine's profile allows \(16,"):
            opened.infer(net.feed(1))
    with pytest.raises(InputError, match="profile 2; the engine has 0 to 1"):
        TrtRunner(engine.path, profile=2)


def test_an_output_whose_shape_only_values_tell(tmp_path: Path) -> None:
    path = net.write_nonzero(tmp_path / "nonzero.onnx")
    engine = build(path, tmp_path / "nonzero.engine", spec=spec(remainder="fp32"))
    feed = {net.INPUT: np.array([[0, 1, 0, 2], [3, 0, 0, 0]], np.float32)}
    with OrtRunner(path) as reference, TrtRunner(engine.path) as opened:
        for scale in (1.0, 0.0, 1.0):
            scaled = {net.INPUT: feed[net.INPUT] * np.float32(scale)}
            want = reference.infer(scaled)[net.OUTPUT]
            assert np.array_equal(opened.infer(scaled)[net.OUTPUT], want)


def test_the_comparison_takes_an_engine(made: tuple[Path, EngineArtifact]) -> None:
    path, engine = made
    found = tq.compare(f"ort:{path}", f"trt:{engine.path}", [net.feed(4), net.feed(16)])
    assert found.passed
    assert found.samples == 20


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"z": net.feed(1)[net.INPUT]}, r"fed \['z'\]; its inputs are \['x'\]"),
        ({"x": net.feed(1)[net.INPUT].astype(np.float64)}, "got float64"),
        ({"x": net.feed(17)[net.INPUT]}, r"the engine's profile allows \(1, 64, 16, 16\)"),
        ({"x": net.feed(1, channels=32)[net.INPUT]}, r"allowed: float32"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_and_the_next_runs(
    made: tuple[Path, EngineArtifact], feed: dict[str, Any], message: str
) -> None:
    path, engine = made
    with TrtRunner(engine.path) as opened:
        with pytest.raises(DataError, match=message):
            opened.infer(feed)
        agree(path, opened, 2)


# Engines that are not what they should be


@pytest.mark.parametrize("harm", ["garbage", "cut"])
def test_a_trusted_engine_that_is_damaged_is_one_error(
    tmp_path: Path, made: tuple[Path, EngineArtifact], harm: str
) -> None:
    plan = made[1].path.read_bytes()
    damaged = {"garbage": b"garbage" * 1000, "cut": plan[: len(plan) // 2]}[harm]
    (tmp_path / "bad.engine").write_bytes(damaged)
    code = (
        "from trt_qat.errors import InputError\nfrom trt_qat.runners.open import runner\n"
        f"try:\n    runner('trt-trusted:{tmp_path / 'bad.engine'}')\n"
        "except InputError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "does not load it" in done.stdout


def test_an_engine_that_fails_to_load_leaves_the_device_to_the_next(
    tmp_path: Path, made: tuple[Path, EngineArtifact]
) -> None:
    path, engine = made
    (tmp_path / "bad.engine").write_bytes(b"garbage" * 1000)
    with pytest.raises(InputError, match="does not load it"):
        TrtRunner(tmp_path / "bad.engine", trust=True)
    with TrtRunner(engine.path) as opened:
        agree(path, opened, 4)


def test_the_sidecar_of_another_version_is_believed(
    tmp_path: Path, made: tuple[Path, EngineArtifact]
) -> None:
    copy = tmp_path / "other.engine"
    copy.write_bytes(made[1].path.read_bytes())
    document = json.loads(sidecar_path(made[1].path).read_text())
    document["metrics"]["tensorrt"] = "7.0.0"
    sidecar_path(copy).write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"TensorRT 7\.0\.0 built it"):
        TrtRunner(copy)


# Implicit INT8, and the command


def test_implicit_int8_is_the_baseline_where_the_version_has_it(tmp_path: Path) -> None:
    path = tmp_path / "float.onnx"
    onnx.save(forms.without_pairs(onnx.load(net.write(tmp_path / "small.onnx"))), path)
    feeds = [net.feed(4, seed=seed) for seed in range(4)]
    if compat.version(compat.load()) >= compat.STRONG_ONLY:
        with pytest.raises(InputError, match="IInt8EntropyCalibrator2"):
            build_implicit(path, tmp_path / "a.engine", feeds, spec=spec())
        return
    engine = build_implicit(path, tmp_path / "a.engine", feeds, spec=spec())
    assert engine.layers["census"]["precision"].get("int8", 0) >= 1
    origin = origin_of(engine.path)
    assert origin is not None
    assert origin.implicit
    with OrtRunner(path) as reference, TrtRunner(engine.path) as opened:
        want, got = (each.infer(feeds[0])[net.OUTPUT] for each in (reference, opened))
    assert (metrics.sqnr_db(want, got) or np.inf) > 15


def test_a_network_that_the_parser_refuses_is_one_error(tmp_path: Path) -> None:
    path = network(tmp_path)
    model = onnx.load(path)
    model.graph.node[-1].op_type = "NoSuchOperator"
    model.graph.node[-1].domain = "unknown.domain"
    model.opset_import.append(onnx.helper.make_opsetid("unknown.domain", 1))
    onnx.save(model, path)
    with pytest.raises((InputError, CheckFailed), match="NoSuchOperator"):
        build(path, tmp_path / "a.engine", spec=spec(remainder="fp32"))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_the_commands_work_on_an_engine(made: tuple[Path, EngineArtifact]) -> None:
    path, engine = made
    for command in (
        ("inspect", engine.path, "--layers"),
        ("compare", "--ref", f"ort:{path}", "--cand", f"trt:{engine.path}"),
        ("bench", f"trt:{engine.path}", "--batch", "1", "--json"),
    ):
        done = own_process(*command)
        assert done.returncode == 0, (command, done.stderr)
