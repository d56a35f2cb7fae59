"""``trt-qat build``: what is refused before TensorRT is asked, and what is said without it.

Building itself needs TensorRT and a GPU: `tests/engine/test_on_gpu.py`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
import pytest

from tests.runners.test_ort import linear_onnx
from tests.runs import command_line
from trt_qat import targets
from trt_qat.engine import log, machine
from trt_qat.engine.build import network_io
from trt_qat.engine.build.build import build, check_target
from trt_qat.engine.build.configure import matching
from trt_qat.engine.build.settings import build_settings
from trt_qat.engine.build.typed import typed_onnx
from trt_qat.engine.machine import Gpu
from trt_qat.errors import BackendUnavailable, GraphError, InputError, RecipeError
from trt_qat.recipe.specs import BuildSpec, ShapeRange

without_tensorrt = pytest.mark.skipif(
    machine.why_no_engines() is None, reason="TensorRT and a GPU are here"
)
L4 = Gpu("NVIDIA L4", (8, 9), 23034, 58, (12, 4))


@without_tensorrt
def test_without_tensorrt_the_command_exits_3_and_says_what_runs_instead(tmp_path: Path) -> None:
    to = ("-o", tmp_path / "m.engine", "--backend", "tensorrt")
    done = command_line("build", linear_onnx(tmp_path), *to)
    assert done.returncode == 3
    assert "pip install 'trt-qat[tensorrt]'" in done.stderr or "no GPU" in done.stderr
    assert "preflight, compare with ort:" in done.stderr
    assert done.stdout == ""


@without_tensorrt
def test_a_build_that_fails_leaves_no_file(tmp_path: Path) -> None:
    path = linear_onnx(tmp_path)
    with pytest.raises(BackendUnavailable):
        build(path, tmp_path / "m.engine", backend="tensorrt")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_bad_onnx_is_told_before_tensorrt_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no onnx")
    with pytest.raises(GraphError, match=r"bad\.onnx"):
        build(tmp_path / "bad.onnx", tmp_path / "m.engine")


# targets


def test_an_engine_is_built_on_the_device_that_is_meant() -> None:
    assert check_target("l4", L4, BuildSpec()) is None
    assert check_target(None, L4, BuildSpec()) is None
    message = r"--target a100 has compute capability 8\.0, this machine's NVIDIA L4 8\.9.*ampere_pl"
    with pytest.raises(InputError, match=message):
        check_target("a100", L4, BuildSpec())


def test_a_portable_engine_may_be_built_for_a_newer_device() -> None:
    portable = BuildSpec(hardware_compatibility="ampere_plus")
    assert check_target("h100", L4, portable) is None
    with pytest.raises(InputError, match="compute capability 7"):
        check_target("t4", L4, portable)


def test_a_target_on_the_accelerator_asks_for_its_first_core() -> None:
    orin = dataclasses.replace(L4, name="Orin", sm=(8, 7))
    assert check_target("orin-agx-dla", orin, BuildSpec()) == 0
    assert check_target("orin-agx", orin, BuildSpec()) is None


def test_a_product_name_is_recognised_as_a_target() -> None:
    for name, sm, target in (
        ("NVIDIA L4", (8, 9), "l4"),
        ("NVIDIA L40S", (8, 9), "l40s"),
        ("NVIDIA H200", (9, 0), "h200"),
        ("NVIDIA GeForce RTX 3090", (8, 6), "rtx-3090"),
        ("NVIDIA A100-SXM4-80GB", (8, 0), "a100"),
        ("Something else", (8, 9), None),
    ):
        assert machine.likely_target(dataclasses.replace(L4, name=name, sm=sm)) == target
    assert {"l4", "l40s"} <= set(targets.TARGETS)


def test_a_target_or_a_pattern_that_cannot_be_is_told_before_tensorrt_is_looked_for(
    tmp_path: Path,
) -> None:
    path = linear_onnx(tmp_path)
    with pytest.raises(InputError, match="nope"):
        build(path, tmp_path / "m.engine", target="nope")
    with pytest.raises(InputError, match="'Convv' matches no node"):
        build(path, tmp_path / "m.engine", spec=BuildSpec(keep_fp32=("Convv",)))
    shapes = ShapeRange(min=(1, 4), opt=(1, 4), max=(1, 4))
    with pytest.raises(InputError, match=r"profiles\[0\]: the network has no input 'z'"):
        build(path, tmp_path / "m.engine", spec=BuildSpec(profiles=({"z": shapes},)))


# settings


def test_settings_are_laid_over_the_defaults() -> None:
    spec, target = build_settings(None, ["build.workspace_mib=64", "sparse_weights=false"])
    assert (spec.workspace_mib, spec.sparse_weights, target) == (64, False, None)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "build.workspce_mib=64",
            r"workspce_mib: unknown key; did you mean 'build.workspace_mib'",
        ),
        ("optimization_level=9", r"build\.optimization_level: got 9"),
        ("profiles.x=1", r"give build\.profiles whole"),
        ("nonsense", "allowed is key=value"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_settings(None, [setting])


def test_a_recipe_says_how_and_for_what(tmp_path: Path) -> None:
    file = tmp_path / "engine.toml"
    file.write_text(
        'name = "x"\ntarget = "l4"\n[model]\nfactory = "residual_cnn"\n[data]\nsource = "digits"\n'
        "[build]\nbatch = [1, 2, 4]\n"
    )
    spec, target = build_settings(file, ["build.tf32=false"])
    assert (spec.batch, spec.tf32, target) == ((1, 2, 4), False, "l4")


# the network


def test_inputs_and_outputs_are_read_from_the_onnx(tmp_path: Path) -> None:
    network = network_io.read(linear_onnx(tmp_path))
    assert network.quantized
    assert network.inputs["x"].shape == ("batch", 4)
    assert network.outputs["logits"].dtype == "float32"


def test_patterns_mean_nodes_by_name_or_operator(tmp_path: Path) -> None:
    path = linear_onnx(tmp_path)
    model = onnx.load(path)
    for at, node in enumerate(model.graph.node):
        node.name = f"node{at}"
    onnx.save(model, path)
    network = network_io.read(path)
    assert matching(("MatMul",), network) == {"node2"}
    assert matching(("node[01]",), network) == {"node0", "node1"}
    with pytest.raises(InputError, match=r"keep_fp32: 'MatMull' matches no node; nearest: MatMul"):
        matching(("MatMull",), network)


def test_the_typed_onnx_computes_in_fp16_and_keeps_its_ends(tmp_path: Path) -> None:
    path = typed_onnx(linear_onnx(tmp_path), tmp_path / "m.typed.onnx", ())
    network = network_io.read(path)
    assert network.inputs["x"].dtype == network.outputs["logits"].dtype == "float32"
    weights = {tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in weights


def test_what_is_kept_stays_fp32(tmp_path: Path) -> None:
    path = typed_onnx(linear_onnx(tmp_path), tmp_path / "m.typed.onnx", ("MatMul",))
    weights = {t.name: t.data_type for t in onnx.load(path).graph.initializer}
    assert weights["weight"] == onnx.TensorProto.FLOAT


# the log


def test_a_long_build_says_that_it_is_alive() -> None:
    said: list[str] = []
    now = [0.0]
    heart = log.Heartbeat(said.append, lambda: now[0])
    for _ in range(3):
        heart.hear("Tactic: 0x00000000000003e8 Time: 0.0038503")
    assert said == []
    now[0] = 25.0
    heart.hear("anything")
    assert said == ["  25 s: 3 kernels timed"]


def test_errors_of_a_log_are_told_once() -> None:
    lines = ["[E] a", "[W] b", "[E] a", "[F] c", "[V] [E] d"]
    assert log.errors(lines) == ["a", "c"]
