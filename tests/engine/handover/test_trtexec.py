"""The trtexec command of a build, version by version."""

from __future__ import annotations

from typing import Any

import pytest

from trt_qat.engine.build.network_io import Network
from trt_qat.engine.handover.trtexec import Command, command
from trt_qat.errors import InputError
from trt_qat.recipe.specs import BuildSpec, ShapeRange
from trt_qat.runners.protocol import TensorSpec

NETWORK = Network(
    inputs={"x": TensorSpec("x", ("batch", 3, 8, 8), "float32")},
    outputs={"y": TensorSpec("y", ("batch", 10), "float32")},
    nodes=(("q", "QuantizeLinear"), ("head", "MatMul"), ("soft", "Softmax")),
)


def made(version: tuple[int, int], **given: Any) -> Command:
    return command(BuildSpec(**given), version, NETWORK, onnx="m.onnx", engine="m.plan")


def test_the_shapes_are_those_of_the_profile() -> None:
    flags = made((10, 3), batch=(1, 4, 16)).arguments
    assert {"--minShapes=x:1x3x8x8", "--optShapes=x:4x3x8x8", "--maxShapes=x:16x3x8x8"} <= set(
        flags
    )


def test_each_version_gets_its_own_typing() -> None:
    assert {"--int8", "--fp16"} <= set(made((8, 6)).arguments)
    assert "--stronglyTyped" in made((10, 3)).arguments
    flags = set(made((11, 0)).arguments)
    assert not flags & {"--int8", "--fp16", "--stronglyTyped"}
    assert "--sparsity=enable" in flags


def test_nodes_that_stay_fp32_are_named_in_a_weakly_typed_build() -> None:
    flags = made((8, 6), keep_fp32=("Softmax", "hea*")).arguments
    assert "--layerPrecisions=head:fp32,soft:fp32" in flags
    assert "--precisionConstraints=obey" in flags


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"workspace_mib": 512}, "--memPoolSize=workspace:512"),
        ({"optimization_level": 5}, "--builderOptimizationLevel=5"),
        ({"tiling": "full"}, "--tilingOptimizationLevel=3"),
        ({"tf32": False}, "--noTF32"),
        ({"hardware_compatibility": "ampere_plus"}, "--hardwareCompatibilityLevel=ampere+"),
        ({"dla_core": 1}, "--useDLACore=1"),
        ({"timing_cache": "my.timing"}, "--timingCacheFile=my.timing"),
        ({"refit": "all"}, "--refit"),
        ({"tactic_sources": ("jit_convolutions",)},
         "--tacticSources=-CUBLAS,-CUBLAS_LT,-CUDNN,-EDGE_MASK_CONVOLUTIONS,+JIT_CONVOLUTIONS"),
    ],
)  # fmt: skip
def test_an_option_is_a_flag(given: dict[str, Any], flag: str) -> None:
    assert flag in made((10, 16), **given).arguments
    assert flag not in made((10, 16)).arguments


def test_several_profiles_are_numbered() -> None:
    low = ShapeRange(min=(1, 3, 8, 8), opt=(1, 3, 8, 8), max=(1, 3, 8, 8))
    flags = made((10, 3), profiles=({"x": low}, {"x": low})).arguments
    assert flags.index("--profile=0") < flags.index("--profile=1")


def test_the_trtexec_of_8_takes_one_profile() -> None:
    low = ShapeRange(min=(1, 3, 8, 8), opt=(1, 3, 8, 8), max=(1, 3, 8, 8))
    command = made((8, 6), profiles=({"x": low}, {"x": low}))
    assert not any(flag.startswith("--profile=") for flag in command.arguments)
    assert sum(flag.startswith("--minShapes=") for flag in command.arguments) == 1
    assert "profiles beyond the first" in command.lacking


def test_what_trtexec_lacks_is_said_in_the_script() -> None:
    made_command = made((11, 0), strict_nans=True)
    assert made_command.lacking == ("strict_nans",)
    assert "# trtexec has no flag for build.strict_nans" in made_command.script()
    assert made((11, 0), refit="identical", strip_weights=True).lacking == ()


def test_a_version_that_lacks_an_option_is_refused() -> None:
    with pytest.raises(InputError, match=r"8\.6 has no BuilderFlag\.STRIP_PLAN"):
        made((8, 6), strip_weights=True, refit="all")


def test_the_script_is_shell_whatever_a_tensor_is_called() -> None:
    network = Network(
        {"a b$": TensorSpec("a b$", ("n", 4), "float32")}, NETWORK.outputs, NETWORK.nodes
    )
    script = command(BuildSpec(), (10, 3), network, onnx="m.onnx", engine="m.plan").script()
    assert "'--minShapes=a b$:1x4'" in script
