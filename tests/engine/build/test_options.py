"""Every build option becomes names that the version has, or one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.api import VERSIONS, holds, short
from trt_qat.engine.build.options import profiles, resolve
from trt_qat.errors import InputError
from trt_qat.recipe.specs import BuildSpec, ShapeRange
from trt_qat.runners.protocol import TensorSpec

CHOICES: dict[str, tuple[Any, ...]] = {
    "remainder": ("fp16", "fp32"),
    "keep_fp32": (("Softmax",),),
    "typing": ("auto", "strong", "weak"),
    "sparse_weights": (True, False),
    "workspace_mib": (64,),
    "optimization_level": (0, 5),
    "avg_timing_iterations": (4,),
    "max_tactics": (8,),
    "tactic_sources": (("cublas",), ("cublas_lt",), ("cudnn",), ("jit_convolutions",),
                       ("edge_mask_convolutions",), ()),
    "max_aux_streams": (0,),
    "tiling": ("none", "fast", "moderate", "full"),
    "timing_cache_only": (True,),
    "hardware_compatibility": ("none", "ampere_plus", "same_compute_capability"),
    "version_compatible": (True,),
    "refit": ("all", "identical", "individual"),
    "weight_streaming": (True,),
    "tf32": (True, False),
    "strict_nans": (True,),
    "dla_core": (0,),
    "gpu_fallback": (False,),
    "verbosity": ("detailed", "layer_names_only", "none"),
}  # fmt: skip
PAIRED = {"strip_weights", "exclude_lean_runtime"}
NOT_A_NAME = {
    "batch",
    "compare_fp16",
    "profiles",
    "timing_cache",
    "backend",
    "more_targets",
    "timeout_s",
}
ALL = [(key, value) for key, values in CHOICES.items() for value in values]


def test_every_option_is_tried() -> None:
    assert set(CHOICES) | PAIRED | NOT_A_NAME == set(BuildSpec.model_fields)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("key", "value"), ALL, ids=str)
def test_an_option_uses_names_of_the_version_or_says_that_it_lacks_them(
    key: str, value: Any, version: str
) -> None:
    spec = BuildSpec(**{key: value})
    try:
        options = resolve(spec, short(version), quantized=True)
    except InputError as error:
        assert f"TensorRT {short(version)[0]}." in str(error)  # noqa: PT017
        assert (key, value) not in {("remainder", "fp16"), ("sparse_weights", True)}
    else:
        assert [name for name in options.names() if not holds(version, name)] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_the_defaults_build_on_every_version(version: str) -> None:
    options = resolve(BuildSpec(), short(version), quantized=True)
    assert "BuilderFlag.SPARSE_WEIGHTS" in options.flags
    assert options.values == {"profiling_verbosity": "ProfilingVerbosity.DETAILED"}
    assert options.strong == (short(version) >= (10, 0))


def test_weak_typing_sets_the_precisions_and_strong_typing_none() -> None:
    weak = resolve(BuildSpec(), (8, 6), quantized=True).flags
    assert {"BuilderFlag.INT8", "BuilderFlag.FP16"} <= set(weak)
    strong = resolve(BuildSpec(), (10, 3), quantized=True).flags
    assert not {"BuilderFlag.INT8", "BuilderFlag.FP16"} & set(strong)


def test_a_float_network_gets_no_int8_flag() -> None:
    assert "BuilderFlag.INT8" not in resolve(BuildSpec(), (8, 6), quantized=False).flags


def test_tf32_is_cleared_because_tensorrt_sets_it_by_default() -> None:
    assert resolve(BuildSpec(tf32=False), (11, 4), quantized=True).cleared == ["BuilderFlag.TF32"]


def test_the_workspace_is_in_bytes() -> None:
    pools = resolve(BuildSpec(workspace_mib=2), (10, 3), quantized=True).pools
    assert pools == {"MemoryPoolType.WORKSPACE": 2 << 20}


def test_a_target_on_the_accelerator_falls_back_to_the_gpu() -> None:
    made = resolve(BuildSpec(), (10, 3), quantized=False, dla_core=1)
    assert made.values["default_device_type"] == "DeviceType.DLA"
    assert made.values["DLA_core"] == 1
    assert "BuilderFlag.GPU_FALLBACK" in made.flags


@pytest.mark.parametrize(
    ("given", "version", "message"),
    [
        ({"strip_weights": True}, (10, 3), "set build.refit to 'identical'"),
        ({"exclude_lean_runtime": True}, (10, 3), "belongs to build.version_compatible"),
        ({"strip_weights": True, "refit": "all"}, (8, 6), "8.6 has no BuilderFlag.STRIP_PLAN"),
        ({"tiling": "fast"}, (10, 3), "10.3 has no TilingOptimizationLevel.FAST"),
        ({"tactic_sources": ("cudnn",)}, (11, 0), r"no TacticSource.CUDNN \(it is gone from 11"),
    ],
)
def test_options_that_cannot_be_are_refused(
    given: dict[str, Any], version: tuple[int, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        resolve(BuildSpec(**given), version, quantized=True)


def test_a_stripped_plan_and_an_excluded_runtime_are_flags() -> None:
    spec = BuildSpec(strip_weights=True, refit="identical", version_compatible=True,
                     exclude_lean_runtime=True)  # fmt: skip
    flags = resolve(spec, (11, 4), quantized=True).flags
    assert {"BuilderFlag.STRIP_PLAN", "BuilderFlag.REFIT_IDENTICAL",
            "BuilderFlag.EXCLUDE_LEAN_RUNTIME"} <= set(flags)  # fmt: skip


# profiles

DYNAMIC = {"x": TensorSpec("x", ("batch", 3, 32, 32), "float32")}


def test_a_dynamic_batch_becomes_one_profile() -> None:
    (profile,) = profiles(BuildSpec(batch=(1, 4, 16)), DYNAMIC)
    assert profile["x"] == ShapeRange(min=(1, 3, 32, 32), opt=(4, 3, 32, 32), max=(16, 3, 32, 32))


def test_a_static_network_needs_no_profile() -> None:
    assert profiles(BuildSpec(), {"x": TensorSpec("x", (1, 3, 8, 8), "float32")}) == []


def shape_range(*sizes: int) -> ShapeRange:
    return ShapeRange(min=sizes, opt=sizes, max=sizes)


@pytest.mark.parametrize(
    ("inputs", "given", "message"),
    [
        ({"x": TensorSpec("x", ("b", 3, "h", 32), "float32")}, (), r"say what the others may be"),
        (DYNAMIC, ({"y": shape_range(1, 3, 32, 32)},), r"profiles\[0\]: .* no input 'y'.*\['x'\]"),
        (DYNAMIC, ({},), "the dynamic input 'x' has no range"),
        (DYNAMIC, ({"x": shape_range(1, 4, 32, 32)},), r"\[1, 4, 32, 32\] does not fit"),
        (DYNAMIC, ({"x": shape_range(1, 3, 32)},), r"x: \[1, 3, 32\] does not fit"),
    ],
)
def test_a_profile_that_does_not_fit_names_the_input(
    inputs: dict[str, TensorSpec], given: tuple[dict[str, ShapeRange], ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        profiles(BuildSpec(profiles=given), inputs)


@pytest.mark.parametrize(
    "given",
    [{"batch": (4, 2, 8)}, {"batch": (0, 1, 2)}, {"optimization_level": 6}, {"workspace_mib": 0}],
)
def test_a_value_out_of_range_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"allowed is|less than|greater than"):
        BuildSpec(**given)


def test_a_shape_range_out_of_order_is_refused() -> None:
    with pytest.raises(ValueError, match="min <= opt <= max"):
        ShapeRange(min=(4,), opt=(2,), max=(8,))
