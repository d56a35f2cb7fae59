"""Engines are code: nothing is loaded that its sidecar does not vouch for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trt_qat import backends
from trt_qat.artifact import write_sidecar
from trt_qat.engine import machine
from trt_qat.engine.evidence.trust import check_home, read_plan
from trt_qat.engine.loading import why_not_loaded
from trt_qat.errors import BackendUnavailable, InputError
from trt_qat.runners.open import runner

NO_TENSORRT = machine.why_no_engines() is not None


def sealed(folder: Path, plan: bytes = b"plan") -> Path:
    engine = folder / "model.engine"
    engine.write_bytes(plan)
    write_sidecar(engine, fingerprint="f", parents={}, spec={}, metrics={}, seconds=0)
    return engine


def test_a_plan_that_its_sidecar_vouches_for_is_read(tmp_path: Path) -> None:
    assert read_plan(sealed(tmp_path)) == b"plan"


def test_a_plan_without_a_sidecar_is_refused_and_trust_is_explicit(tmp_path: Path) -> None:
    engine = tmp_path / "foreign.engine"
    engine.write_bytes(b"plan")
    with pytest.raises(InputError, match=r"no sidecar foreign\.engine\.json vouches.*--trust"):
        read_plan(engine)
    assert read_plan(engine, trust=True) == b"plan"


def test_one_changed_byte_is_refused(tmp_path: Path) -> None:
    engine = sealed(tmp_path)
    engine.write_bytes(b"plam")
    with pytest.raises(InputError, match="changed or damaged"):
        read_plan(engine)


def test_a_damaged_sidecar_vouches_for_nothing(tmp_path: Path) -> None:
    engine = sealed(tmp_path)
    engine.with_name("model.engine.json").write_text("{}")
    with pytest.raises(InputError, match="no sidecar"):
        read_plan(engine)


@pytest.mark.parametrize("trust", [False, True])
def test_what_is_no_file_or_empty_is_refused(tmp_path: Path, trust: bool) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_plan(tmp_path / "none.engine", trust=trust)
    (tmp_path / "empty.engine").touch()
    with pytest.raises(InputError, match="an empty file"):
        read_plan(tmp_path / "empty.engine", trust=trust)


def test_trust_is_judged_before_tensorrt_is_looked_for(tmp_path: Path) -> None:
    engine = tmp_path / "foreign.engine"
    engine.write_bytes(b"plan")
    with pytest.raises(InputError, match="no sidecar"):
        runner(f"trt:{engine}")


@pytest.mark.skipif(not NO_TENSORRT, reason="TensorRT and a GPU are here")
@pytest.mark.parametrize("kind", ["trt", "trt-trusted"])
def test_a_trusted_plan_needs_tensorrt_and_a_gpu(tmp_path: Path, kind: str) -> None:
    with pytest.raises(BackendUnavailable, match=r"no GPU|not installed") as caught:
        runner(f"{kind}:{sealed(tmp_path)}")
    assert "preflight, compare with ort:" in str(caught.value)
    assert backends.why_no_tensorrt()


def built_by(folder: Path, version: str, sm: tuple[int, int], **spec: Any) -> Path:
    engine = folder / "model.engine"
    engine.write_bytes(b"plan")
    metrics = {"tensorrt": version, "sm": list(sm)}
    write_sidecar(engine, fingerprint="f", parents={}, spec=spec, metrics=metrics, seconds=0)
    return engine


def test_an_engine_of_another_version_is_told_before_it_is_loaded(tmp_path: Path) -> None:
    engine = built_by(tmp_path, "10.3.0", (8, 9))
    check_home(engine, "10.3.0.post1", (8, 9))
    with pytest.raises(InputError, match=r"TensorRT 10\.3\.0 built it and this is 10\.3\.1"):
        check_home(engine, "10.3.1", (8, 9))
    check_home(built_by(tmp_path, "10.3.0", (8, 9), version_compatible=True), "10.16.1", (8, 9))


def test_an_engine_of_another_gpu_is_told_before_it_is_loaded(tmp_path: Path) -> None:
    engine = built_by(tmp_path, "10.3.0", (8, 9), hardware_compatibility="none")
    with pytest.raises(InputError, match=r"capability 8\.9 and this GPU has 9\.0"):
        check_home(engine, "10.3.0", (9, 0))
    portable = built_by(tmp_path, "10.3.0", (8, 9), hardware_compatibility="ampere_plus")
    check_home(portable, "10.3.0", (9, 0))
    with pytest.raises(InputError, match=r"this GPU has 7\.5"):
        check_home(portable, "10.3.0", (7, 5))


def test_of_an_engine_without_a_sidecar_nothing_is_known(tmp_path: Path) -> None:
    check_home(tmp_path / "foreign.engine", "10.3.0", (8, 9))


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        # Recorded in public logs of TensorRT 8.6 to 10.14.
        ("[E] 6: The engine plan file is not compatible with this version of TensorRT, expecting "
         "library version 8.6.1.6 got 8.6.0.12, please rebuild.", "another version of TensorRT"),
        ("[E] IRuntime::deserializeCudaEngine: Error Code 6: API Usage Error (The engine plan file "
         "is not compatible with this version of TensorRT, expecting library version 10.14.1.48",
         "another version of TensorRT"),
        ("[E] 1: [stdArchiveReader.cpp::StdArchiveReader::32] Error Code 1: Serialization "
         "(Serialization assertion magicTagRead == kMAGIC_TAG failed.Magic tag does not match)",
         "no engine, or its bytes are damaged"),
        ("[E] Serialization assertion plan->header.magicTag == rt::kPLAN_MAGIC_TAG failed",
         "no engine, or its bytes are damaged"),
        ("[E] engine plan file generated on incompatible device", "built for another GPU"),
    ],
)  # fmt: skip
def test_a_plan_that_tensorrt_refuses_is_explained(line: str, meaning: str) -> None:
    said = why_not_loaded(Path("m.engine"), ["[V] nothing", line], "10.3.0")
    assert said.startswith("m.engine: TensorRT 10.3.0 does not load it")
    assert meaning in said


def test_a_refusal_that_is_not_known_is_quoted() -> None:
    assert why_not_loaded(Path("m"), ["[E] Novel error"], "11.0.0").endswith("Novel error")
    assert why_not_loaded(Path("m"), [], "11.0.0").endswith("it said nothing")
