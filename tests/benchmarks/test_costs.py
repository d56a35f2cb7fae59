"""The cost benchmarks: what they time runs, and what they make of the times is right."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import (
    cost_calibration,
    cost_export,
    cost_masks,
    cost_preflight,
    cost_startup,
    layers,
)
from benchmarks.shared.side_by_side import (
    Study,
    curve,
    growth,
    in_turns,
    memory,
    quiet,
    ratio,
    summary,
)
from tests.benchmarks.freed import prepared
from trt_qat.qat.sparsify import sparse_layers

SMALL: dict[str, tuple[Study, dict[str, int]]] = {
    "calibration": (cost_calibration.STUDY, {"layers": 2, "channels": 16, "samples": 32}),
    "masks": (cost_masks.STUDY, {"layers": 2, "channels": 16}),
    "export": (cost_export.STUDY, {"layers": 2, "channels": 16}),
    "preflight": (cost_preflight.STUDY, {"layers": 2, "side": 16}),
}


@pytest.mark.parametrize("name", SMALL)
def test_every_variant_of_a_study_runs(name: str) -> None:
    study, size = SMALL[name]
    made = study.variants(size)
    assert {name for pair in study.pairs for name in pair} <= set(made)
    assert set(study.curves) <= set(made)
    assert set(study.sweeps) <= set(study.base)
    for prepare in made.values():
        prepare()()


def test_many_layers_are_measured_step_by_step() -> None:
    found = layers.measure(2, ("float", *layers.STEPS))
    assert list(found) == ["float", "sparsify", "quantize", "export"]
    assert all(0 <= seconds < 600 for seconds in found.values())
    header, (row,) = layers.grown({"rows": [{"layers": 4, "all": 1.0, **found}]})
    assert len(header) == len(row)


def test_the_masks_that_are_compared_are_the_same_masks() -> None:
    """Or the time of one is not that of the other."""
    made = cost_masks.variants({"layers": 3, "channels": 32})
    ours = made["ours"]()()
    assert isinstance(ours, torch.nn.Module)
    alone = made["topk"]()()
    assert isinstance(alone, list)
    layers = [ours.get_submodule(name) for name in sparse_layers(ours)]
    assert len(layers) == len(alone) == 2
    for layer, groups in zip(layers, alone, strict=True):
        mask = torch.as_tensor(layer._weight_mask).float()
        assert torch.equal(mask.permute(0, 2, 3, 1).reshape(-1, 4), groups)


def test_startup_is_that_of_processes_that_end_well() -> None:
    assert cost_startup.process(("-c", "pass"))().returncode == 0
    assert set(cost_startup.STUDY.limits_s) <= set(cost_startup.COMMANDS)


def waits(seconds: float) -> Callable[[], Callable[[], None]]:
    return lambda: lambda: time.sleep(seconds)


def test_variants_take_turns_and_their_ratio_is_right() -> None:
    seconds = in_turns({"a": waits(0.02), "b": waits(0.06)}, rounds=6)
    found = summary(seconds, [("b", "a")])
    assert found["rounds"] == 6
    low, high = found["ratios"]["b/a"]["ci95"]
    assert low <= found["ratios"]["b/a"]["ratio"] <= high
    assert 1.5 < found["ratios"]["b/a"]["ratio"] < 4
    assert seconds["a"].min() >= 0.02
    assert seconds["b"].min() >= 0.06
    assert found["ratios"]["b/a"]["level"] >= 0.95


def test_preparing_is_not_timed() -> None:
    def prepare() -> Callable[[], None]:
        time.sleep(0.02)
        return lambda: None

    assert in_turns({"a": prepare}, rounds=2)["a"].min() < 0.01


def test_the_ratio_of_equal_times_is_1() -> None:
    times = np.random.default_rng(0).random(9) + 1
    found = ratio(times, times)
    assert found["ratio"] == 1
    assert found["ci95"] == [1, 1]


def test_the_exponent_of_a_power_is_found() -> None:
    sizes = (1, 2, 4, 8)
    found = curve(sizes, [3 * size**1.5 for size in sizes])
    assert found["exponent"] == pytest.approx(1.5)
    assert found["last_exponent"] == pytest.approx(1.5)
    assert found["standard_error"] == pytest.approx(0, abs=1e-9)


def test_a_fixed_cost_shows_in_the_last_exponent() -> None:
    sizes = (1, 2, 4, 8, 16)
    found = curve(sizes, [10 + size**2 for size in sizes])
    assert found["exponent"] < found["last_exponent"] < 2
    assert found["standard_error"] > 0.05


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_the_memory_of_a_variant_is_that_of_a_process_of_its_own() -> None:
    """The weights are 16 MiB, which loading reads and inferring shapes does not."""
    size = json.dumps({"layers": 4, "side": 1024})
    found = memory(cost_preflight.__file__, ["load", "shapes"], "--size", size)
    assert 14 < found["load"]["growth_mib"] < 40
    assert found["shapes"]["growth_mib"] < 10


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_growth_is_the_memory_of_the_call_and_not_of_its_preparation() -> None:
    """In a fresh process, as `memory` runs it: what other tests have left free would be used."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        found = pool.submit(growth, prepared).result()
    assert 30 < found["growth_mib"] < 40


def test_other_libraries_are_quiet_and_heard_again(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet():
        sys.stdout.write("noise")
    sys.stdout.write("said\n")
    assert capsys.readouterr().out == "said\n"
