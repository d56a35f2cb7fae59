"""Rebuilds: opened sessions of onnxruntime and called torch functions are rebuilds themselves."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trt_qat as tq
from tests.benching.runners import Counted, Recorder
from trt_qat.artifact import sidecar_path, write_sidecar
from trt_qat.backends import has_gpu
from trt_qat.benching import rebuilds, stats
from trt_qat.benching.result import Ratio
from trt_qat.benching.settings import Settings
from trt_qat.benching.stats import Interval
from trt_qat.engine.origin import IMPLICIT
from trt_qat.errors import BackendUnavailable, InputError
from trt_qat.recipe.specs import BuildSpec

Document = dict[str, Any]


@pytest.fixture(scope="module")
def rebuilt(linear: str) -> Document:
    settings = Settings(seconds=0.05, sessions=6, warmup_s=0.01, rebuilds=3, energy_s=0)
    return tq.bench([f"ort:{linear}", f"ort-int8:{linear}"], settings=settings).to_dict()


def test_every_build_has_its_median_and_its_ratio(rebuilt: Document) -> None:
    for run in rebuilt["runs"]:
        found = run["rebuilds"]
        assert len(found["p50_ms"]) == 3
        assert len(run["session_p50_ms"]) == 6, "two sessions of each"
        assert found["range"] == [min(found["p50_ms"]), max(found["p50_ms"])]
        assert found["spread"] == pytest.approx(max(found["p50_ms"]) / min(found["p50_ms"]) - 1)
    (ratio,) = rebuilt["ratios"]
    assert len(ratio["rebuilds"]["p50_ratio"]) == 3
    json.dumps(rebuilt, allow_nan=False)


def test_a_build_is_the_mean_of_its_sessions(rebuilt: Document) -> None:
    run = rebuilt["runs"][0]
    pairs = np.log(run["session_p50_ms"]).reshape(3, 2)
    assert run["rebuilds"]["p50_ms"] == pytest.approx(np.exp(pairs.mean(axis=1)))
    within = np.sqrt(pairs.var(axis=1, ddof=1).mean())
    assert run["rebuilds"]["deviation_within"] == pytest.approx(within)


def test_with_enough_builds_the_interval_is_over_builds(linear: str) -> None:
    settings = Settings(seconds=0.05, sessions=12, warmup_s=0.01, rebuilds=6, energy_s=0)
    found = tq.bench([f"ort:{linear}", f"ort:{linear}"], settings=settings)
    assert found.settings["intervals"] == "Wilcoxon signed-rank over builds"
    (ratio,) = found.ratios
    assert ratio.rebuilds is not None
    over = stats.signed_rank_interval(np.log(ratio.rebuilds.values)).exp()
    assert (ratio.ratio.low, ratio.ratio.high) == pytest.approx((over.low, over.high))


def test_a_torch_model_is_made_anew_for_every_session() -> None:
    Counted.made = 0
    data = {"x": np.zeros((4, 4), np.float32)}
    settings = Settings(seconds=0.02, sessions=6, warmup_s=0.01, rebuilds=2, energy_s=0)
    tq.bench("torch:tests.benching.runners:Counted", data=data, settings=settings)
    assert Counted.made == 1 + 6, "once to look at it, then once a session"


def test_the_build_that_was_looked_at_is_the_first_of_those_that_are_timed(
    linear: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines take minutes each."""
    built: list[str] = []

    @contextlib.contextmanager
    def workshop(sources: list[str], say: Any) -> Iterator[Callable[[], list[str]]]:
        def build() -> list[str]:
            built.append(sources[0])
            return list(sources)

        yield build

    monkeypatch.setattr(rebuilds, "workshop", workshop)
    settings = Settings(seconds=0.02, sessions=6, warmup_s=0.01, rebuilds=3, energy_s=0)
    tq.bench(f"ort:{linear}", batches=(1, 2), settings=settings)
    assert len(built) == 3


@pytest.mark.parametrize(
    ("values", "expected"),
    [((0.8, 0.9), "faster"), ((0.8, 1.01), "no difference shown"), ((1.2, 1.1), "slower")],
)
def test_builds_that_disagree_show_no_difference(values: tuple[float, ...], expected: str) -> None:
    """Although the interval over the sessions lies on one side of 1."""
    center = values[0]
    interval = Interval(center, center - 0.05, center + 0.05, 0.98)
    assert Ratio("a", "b", 1, interval, rebuilds.Spread(values, None)).verdict == expected
    assert Ratio("a", "b", 1, interval).verdict == stats.verdict(interval)


def test_what_is_open_already_cannot_be_rebuilt() -> None:
    with pytest.raises(InputError, match=r"a: is open already, so it cannot be rebuilt; give a SP"):
        tq.bench(Recorder("a"), settings=Settings(rebuilds=2))


@pytest.mark.parametrize("count", [1, -1])
def test_a_single_rebuild_has_no_spread(count: int) -> None:
    with pytest.raises(InputError, match=rf"bench: {count} rebuilds; allowed: 2 and more, or 0"):
        Settings(rebuilds=count)


# Engines, as far as they can be looked at without TensorRT


def sidecar(folder: Path, linear: str, spec: BuildSpec, name: str = "model.onnx") -> Path:
    """An engine beside the ONNX that its sidecar names; its bytes are of no importance here."""
    content = Path(linear).read_bytes()
    (folder / name).write_bytes(content)
    engine = folder / "model.engine"
    engine.write_bytes(b"plan")
    parents = {name: hashlib.sha256(content).hexdigest()}
    settings = spec.model_dump(mode="json")
    write_sidecar(engine, fingerprint="f", parents=parents, spec=settings, metrics={}, seconds=1.0)
    return engine


def test_an_engine_is_rebuilt_from_what_its_sidecar_says(linear: str, tmp_path: Path) -> None:
    engine = sidecar(tmp_path, linear, BuildSpec(optimization_level=2))
    recipe = rebuilds.recipe_of(f"trt-trusted:{engine}")
    assert recipe is not None
    assert recipe.onnx == tmp_path / "model.onnx"
    assert recipe.kind == "trt-trusted"
    assert recipe.spec == BuildSpec(optimization_level=2, timing_cache="none")


def test_a_network_with_its_casts_is_not_cast_again(linear: str, tmp_path: Path) -> None:
    engine = sidecar(tmp_path, linear, BuildSpec(remainder="fp16"), "model.typed.onnx")
    recipe = rebuilds.recipe_of(f"trt:{engine}")
    assert recipe is not None
    assert recipe.spec.remainder == "fp32"


def test_an_engine_of_implicit_int8_is_not_rebuilt_as_something_else(
    linear: str, tmp_path: Path
) -> None:
    engine = sidecar(tmp_path, linear, BuildSpec())
    document = json.loads(sidecar_path(engine).read_text())
    document["metrics"][IMPLICIT] = True
    sidecar_path(engine).write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"model\.engine: cannot be built again: TensorRT calib"):
        tq.bench(f"trt:{engine}", settings=Settings(rebuilds=2))


@pytest.mark.parametrize("change", ["onnx", "sidecar"])
def test_an_engine_whose_origin_is_gone_cannot_be_rebuilt(
    linear: str, tmp_path: Path, change: str
) -> None:
    engine = sidecar(tmp_path, linear, BuildSpec())
    if change == "onnx":
        (tmp_path / "model.onnx").write_bytes(b"another")
    else:
        (tmp_path / "model.engine.json").unlink()
    with pytest.raises(InputError, match=r"model\.engine: cannot be rebuilt: no sidecar names an"):
        rebuilds.recipe_of(f"trt:{engine}")


@pytest.mark.skipif(has_gpu(), reason="for machines without a GPU")
def test_without_a_gpu_an_engine_cannot_be_rebuilt(linear: str) -> None:
    with pytest.raises(BackendUnavailable):
        tq.bench(f"trt:{linear}", settings=Settings(rebuilds=2))
