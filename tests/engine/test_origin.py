"""What an engine was built from and for, whether a build or a run wrote its sidecar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trt_qat.artifact import write_sidecar
from trt_qat.engine.evidence.trust import check_home, check_rtx_home
from trt_qat.engine.origin import IMPLICIT, origin_of
from trt_qat.errors import InputError
from trt_qat.recipe.specs import BuildSpec

PARENTS = {"model.onnx": "1" * 64, "model.typed.onnx": "2" * 64}
HOME: dict[str, Any] = {"tensorrt": "10.3.0", "gpu": "an Orin", "sm": [8, 7]}


def sealed(folder: Path, spec: dict[str, Any], metrics: dict[str, Any]) -> Path:
    engine = folder / "model.engine"
    engine.write_bytes(b"plan")
    write_sidecar(engine, fingerprint="f", parents=PARENTS, spec=spec, metrics=metrics, seconds=1.0)
    return engine


def of_a_build(folder: Path, spec: BuildSpec) -> Path:
    return sealed(folder, spec.model_dump(mode="json"), HOME)


def of_a_run(folder: Path, spec: BuildSpec) -> Path:
    tables = {"build": spec.model_dump(mode="json"), "target": None}
    return sealed(folder, tables, {"engine": {"build_seconds": 1.0, "source": HOME}})


@pytest.mark.parametrize("write", [of_a_build, of_a_run])
def test_both_sidecars_tell_the_same(write: Any, tmp_path: Path) -> None:
    spec = BuildSpec(optimization_level=2, keep_fp32=("head",))
    origin = origin_of(write(tmp_path, spec))
    assert origin is not None
    assert origin.spec == spec
    assert origin.parents == PARENTS
    assert (origin.tensorrt, origin.sm) == ("10.3.0", (8, 7))


@pytest.mark.parametrize("write", [of_a_build, of_a_run])
def test_an_engine_is_refused_away_from_home_whoever_built_it(write: Any, tmp_path: Path) -> None:
    engine = write(tmp_path, BuildSpec())
    check_home(engine, "10.3.0", (8, 7))
    with pytest.raises(InputError, match=r"TensorRT 10\.3\.0 built it and this is 11\.0\.0"):
        check_home(engine, "11.0.0", (8, 7))
    with pytest.raises(InputError, match=r"built for compute capability 8\.7 .* has 9\.0"):
        check_home(engine, "10.3.0", (9, 0))


@pytest.mark.parametrize("write", [of_a_build, of_a_run])
def test_a_portable_engine_is_at_home_elsewhere(write: Any, tmp_path: Path) -> None:
    spec = BuildSpec(version_compatible=True, hardware_compatibility="ampere_plus")
    check_home(write(tmp_path, spec), "10.9.0", (9, 0))


@pytest.mark.parametrize("told", [{}, {IMPLICIT: True}])
def test_an_engine_that_tensorrt_calibrated_says_so(tmp_path: Path, told: dict[str, Any]) -> None:
    engine = sealed(tmp_path, BuildSpec().model_dump(mode="json"), HOME | told)
    origin = origin_of(engine)
    assert origin is not None
    assert origin.implicit == bool(told)
    if not told:
        origin.check_rebuildable(engine)
        return
    with pytest.raises(InputError, match=r"cannot be built again: .*\(implicit INT8\), on batches"):
        origin.check_rebuildable(engine)


def test_without_a_sidecar_nothing_is_known(tmp_path: Path) -> None:
    assert origin_of(tmp_path / "none.engine") is None


def test_a_sidecar_of_something_else_is_refused(tmp_path: Path) -> None:
    engine = sealed(tmp_path, {"sparsity": {}, "layers": 3}, {})
    with pytest.raises(InputError, match=r"holds no options of a build \(2 of them are not known"):
        origin_of(engine)


def test_what_tensorrt_for_rtx_compiled_is_refused_by_name(tmp_path: Path) -> None:
    engine = sealed(tmp_path, BuildSpec().model_dump(mode="json"), {"rtx": "1.7.1.116"})
    with pytest.raises(InputError, match=r"TensorRT for RTX 1\.7\.1\.116 compiled it.* trt-rtx:FI"):
        check_home(engine, "10.3.0", (8, 7))
    bare = tmp_path / "bare.engine"
    bare.write_bytes(b"plan")
    check_home(bare, "10.3.0", (8, 7))  # of which nothing is known
    check_rtx_home(bare, (8, 7))
