"""Engines built on a machine without a GPU: plan, evidence, sidecar, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

from tests.engine.aot.rtx import needs_rtx
from tests.graph.build import int8_chain
from tests.runs import command_line
from trt_qat import artifact
from trt_qat.engine import machine
from trt_qat.engine.aot import load
from trt_qat.engine.build.backend import checked, chosen, why_not
from trt_qat.engine.build.build import build
from trt_qat.engine.evidence.trust import check_home, inspect_file
from trt_qat.engine.origin import origin_of
from trt_qat.errors import BackendUnavailable, CheckFailed, CompilerDied, GraphError, InputError
from trt_qat.recipe.specs import BuildSpec, ShapeRange

no_gpu = pytest.mark.skipif(machine.why_no_engines() is None, reason="TensorRT and a GPU are here")
STATIC = BuildSpec(batch=(4, 4, 4))


def saved(folder: Path, model: ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def chain(folder: Path) -> Path:
    return saved(folder, int8_chain().model("out_dq_out"))


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "model.onnx")


# Which compiler


@no_gpu
def test_without_a_gpu_auto_is_rtx_where_it_knows_the_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "why_not", lambda: None)
    assert chosen("auto", "rtx-4090") == "rtx"
    assert chosen("auto", None) == "rtx"
    with pytest.raises(BackendUnavailable, match=r"no GPU.*Nor .*: orin-agx: .* 8\.7"):
        chosen("auto", "orin-agx")
    assert why_not("auto", "rtx-4090") is None
    assert "8.7" in (why_not("auto", "orin-agx") or "")


def test_with_a_gpu_auto_is_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "why_no_engines", lambda: None)
    assert chosen("auto", "rtx-4090") == "tensorrt"


@no_gpu
def test_without_either_both_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "why_not", lambda: "TensorRT for RTX is not installed: do so")
    with pytest.raises(BackendUnavailable, match=r"TensorRT is not installed.*Nor can.*do so"):
        chosen("auto", None)


def test_a_backend_that_there_is_not_names_those_there_are() -> None:
    with pytest.raises(InputError, match=r"'rxt': allowed are auto, tensorrt, rtx; .*'rtx'"):
        checked("rxt")


# What it lacks, before anything is compiled


@needs_rtx
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refit": "all"}, "build.refit = 'all'.*lacks it"),
        ({"refit": "identical", "strip_weights": True}, "build.strip_weights.*lacks it"),
        ({"version_compatible": True}, "build.version_compatible.*no lean runtime"),
        ({"dla_core": 0}, "build.dla_core.*compiles for GPUs"),
        ({"typing": "weak"}, "build.typing = 'weak'.*strong typing only"),
        ({"timing_cache_only": True}, "build.timing_cache_only.*nothing is timed"),
        ({"more_targets": ("t4",)}, "t4 cannot share a plan"),
        ({"more_targets": ("h100",)}, r"h100: .*no compute capability 9\.0"),
    ],
)
def test_what_it_lacks_is_a_sentence_and_leaves_no_file(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    spec = BuildSpec.model_validate(options)
    with pytest.raises(InputError, match=message):
        build(chain(tmp_path), tmp_path / "m.engine", target="l4", spec=spec, backend="rtx")
    assert left(tmp_path) == []


@needs_rtx
def test_a_key_that_changes_nothing_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    spec = STATIC.model_copy(update={"optimization_level": 5, "remainder": "fp32"})
    build(chain(tmp_path), tmp_path / "m.engine", spec=spec, backend="rtx", say=said.append)
    assert any(line.startswith("build.optimization_level changes nothing") for line in said)


# What it builds


@needs_rtx
def test_an_engine_has_its_evidence_and_a_sidecar_that_vouches_for_it(tmp_path: Path) -> None:
    engine = tmp_path / "m.engine"
    made = build(chain(tmp_path), engine, target="rtx-4090", backend="rtx")
    assert left(tmp_path) == ["m.engine", "m.engine.json", "m.layers.json", "m.typed.onnx"]
    source = made.layers["source"]
    assert source["compute_capabilities"] == ["SM89"]
    assert source["sha256"] == artifact.sha256_file(engine)
    assert source["shapes"] == {"x": [8, 16, 8, 8]}
    assert made.layers["agreement"]["precision"] == made.layers["agreement"]["layers"] == 2
    assert "not what TensorRT 8 to 11 build" in made.layers["scope"]
    assert made.layers["traffic"]["bytes_written"] > 0
    origin = origin_of(engine)
    assert origin is not None
    assert origin.rtx == load.version()
    assert set(origin.parents) == {"model.onnx", "m.typed.onnx"}
    assert inspect_file(engine) == made.layers
    with pytest.raises(InputError, match=r"TensorRT for RTX .* compiled it, and TensorRT cannot"):
        check_home(engine, "11.4.0", (8, 9))


@needs_rtx
def test_several_targets_share_one_plan_with_a_profile_each(tmp_path: Path) -> None:
    ranges = {"x": ShapeRange(min=(1, 16, 8, 8), opt=(2, 16, 8, 8), max=(4, 16, 8, 8))}
    spec = BuildSpec(
        more_targets=("rtx-5090",), profiles=(ranges, ranges), weight_streaming=True,
        workspace_mib=256,
    )  # fmt: skip
    made = build(chain(tmp_path), tmp_path / "m.engine", target="l4", spec=spec, backend="rtx")
    assert made.layers["source"]["compute_capabilities"] == ["SM89", "SM120"]


@needs_rtx
def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = {
        build(chain(tmp_path), tmp_path / name, spec=STATIC, backend="rtx").layers["source"][
            "sha256"
        ]
        for name in ("a.engine", "b.engine")
    }
    assert len(digests) == 1


# What fails leaves nothing


@needs_rtx
def test_what_the_parser_refuses_is_an_error_with_its_words(tmp_path: Path) -> None:
    b = int8_chain()
    model = saved(tmp_path, b.model(b.node("Det", "out_dq_out", name="determinant")))
    with pytest.raises(CheckFailed, match="QDQ011 at determinant"):
        build(model, tmp_path / "m.engine", backend="rtx")
    spec = BuildSpec(remainder="fp32")
    with pytest.raises(GraphError, match=r"cannot import it: .*determinant"):
        build(model, tmp_path / "m.engine", spec=spec, backend="rtx", preflight=False)
    assert left(tmp_path) == []


@needs_rtx
def test_what_the_builder_refuses_is_an_error_with_its_words(tmp_path: Path) -> None:
    b = int8_chain()
    codes = b.node("Identity", b.store("codes", np.ones(16, np.int8).reshape(16, 1, 1)))
    model = saved(tmp_path, b.model(b.node("Add", "out_dq_out", b.dequantize(codes), name="add")))
    spec = BuildSpec(remainder="fp32")
    with pytest.raises(CheckFailed, match=r"cannot build it: .*Quantized constant .* only allowed"):
        build(model, tmp_path / "m.engine", spec=spec, backend="rtx", preflight=False)
    assert left(tmp_path) == []


@needs_rtx
def test_a_time_out_leaves_no_file_and_keeps_the_old_engine(tmp_path: Path) -> None:
    (tmp_path / "m.engine").write_bytes(b"the old one")
    spec = BuildSpec(timeout_s=0.001)
    with pytest.raises(CompilerDied, match="stopped after"):
        build(chain(tmp_path), tmp_path / "m.engine", spec=spec, backend="rtx")
    assert left(tmp_path) == ["m.engine"]
    assert (tmp_path / "m.engine").read_bytes() == b"the old one"


# The command


@needs_rtx
def test_the_command_prints_the_census_or_the_document(tmp_path: Path) -> None:
    to = ("-o", tmp_path / "m.engine", "--backend", "rtx", "--target", "rtx-4090")
    done = command_line("build", chain(tmp_path), *to)
    assert done.returncode == 0, done.stderr
    assert "preflight predicted the precision of 2 of 2 weighted layers right" in done.stdout
    assert "not what TensorRT 8 to 11 build" in done.stderr
    document = json.loads(command_line("build", chain(tmp_path), *to, "--json").stdout)
    assert document["source"]["backend"] == "rtx"


def test_a_target_it_does_not_know_is_exit_code_2(tmp_path: Path) -> None:
    to = ("-o", tmp_path / "m.engine", "--backend", "rtx", "--target", "orin-agx")
    done = command_line("build", chain(tmp_path), *to)
    assert done.returncode == (2 if load.why_not() is None else 3)
    assert left(tmp_path) == []
