"""One small architecture is really prepared, and read as the machine with the GPU reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu import carry, prepare, work
from benchmarks.gpu.catalog import VARIANTS
from benchmarks.gpu.cells import Cell, plan
from tests.models import REFERENCE
from trt_qat.engine.build import network_io
from trt_qat.errors import CheckFailed
from trt_qat.runners.ort import OrtRunner

NAME = "shared_layers"


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("carried")
    entry = prepare.prepare(REFERENCE[NAME], folder / NAME)
    carry.write_manifest(folder, {"models": {NAME: entry}})
    return folder


@pytest.fixture
def bench(carried: Path, tmp_path: Path) -> work.Bench:
    models = carry.read_manifest(carried)["models"]
    return work.Bench(carried, models, tmp_path / "work", tmp_path / "out")


def test_everything_is_there_and_what_cannot_be_exported_says_why(carried: Path) -> None:
    entry = carry.read_manifest(carried)["models"][NAME]
    assert {"dense", "sparse"} <= set(entry["onnx"])
    # ModelOpt's exporter needs packages that not every machine has.
    assert "stock" in entry["onnx"] or "ImportError" in entry["refused"]["stock"]
    assert not entry["published"]
    found = network_io.read(carried / NAME / "sparse.onnx")
    assert found.quantized
    assert all(isinstance(spec.shape[0], str) for spec in found.inputs.values())


def test_the_answers_are_those_of_the_carried_files(bench: work.Bench) -> None:
    for variant in (VARIANTS["dense"], VARIANTS["fp32"], VARIANTS["sparse"]):
        feed = bench.named(Cell("build", NAME, variant.name, 4), variant)
        with OrtRunner(bench.onnx(NAME, variant)) as runner:
            got = runner.infer(feed)
        with np.load(bench.carried / NAME / "answers.npz") as archive:
            for key, array in got.items():
                want = archive[f"{variant.onnx}/{key}"][:4]
                assert work.differences(want, array)["max_abs"] < 1e-5


def test_the_float_network_is_near_what_torch_computes(bench: work.Bench) -> None:
    with np.load(bench.carried / NAME / "answers.npz") as archive:
        float_ = next(archive[key] for key in archive.files if key.startswith("fp32/"))
        assert work.differences(archive["torch/0"], float_)["sqnr_db"] > 20


def test_the_prediction_knows_the_sparse_layers(bench: work.Bench) -> None:
    known = bench.models[NAME]["known"]
    assert known["sparse"]["preflight"]["summary"]["sparse_found"] > 0
    assert known["dense"]["preflight"]["summary"]["sparse_found"] == 0
    assert len(known["sparse"]["rounding_sqnr_db"]) == 1


def test_samples_are_repeated_for_a_larger_batch(bench: work.Bench) -> None:
    arrays, count = bench.feeds(NAME, 70)
    assert (len(arrays["0"]), count) == (70, 32)
    assert np.array_equal(arrays["0"][:6], arrays["0"][64:])


def test_every_sample_is_calibrated_on_once(bench: work.Bench) -> None:
    found = bench.calibration(NAME, VARIANTS["implicit"])
    (name,) = found[0]
    arrays, _ = bench.feeds(NAME, 32)
    assert [len(feed[name]) for feed in found] == [8] * 4
    assert np.array_equal(np.concatenate([feed[name] for feed in found]), arrays["0"])


def test_options_of_a_variant_are_laid_over_those_of_the_run(bench: work.Bench) -> None:
    common: dict[str, Any] = {"tactic_sources": ("jit_convolutions",)}
    spec = VARIANTS["fp32"].spec((8, 8, 8), common)
    assert (spec.remainder, spec.sparse_weights, spec.batch) == ("fp32", False, (8, 8, 8))
    assert spec.tactic_sources == ("jit_convolutions",)
    assert VARIANTS["sparse"].spec((1, 1, 1), {}).sparse_weights


def test_every_planned_engine_has_a_place_of_its_own(bench: work.Bench) -> None:
    builds = [cell for cell in plan(bench.models, (8, 6)) if cell.kind == "build"]
    assert len({bench.path(cell, VARIANTS[cell.variant]) for cell in builds}) == len(builds)


@pytest.mark.parametrize("got", [np.zeros((2, 3)), np.array([[np.nan, 0.0]])])
def test_an_output_of_another_shape_or_with_nan_is_an_error(got: Any) -> None:
    with pytest.raises(CheckFailed, match=r"an output of shape"):
        work.differences(np.zeros((1, 2)), got)
