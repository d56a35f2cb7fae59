"""A recipe's build options for TensorRT for RTX: what it takes, ignores, and lacks."""

from __future__ import annotations

from collections.abc import Mapping

from trt_qat.engine.aot.load import TITLE
from trt_qat.errors import InputError
from trt_qat.recipe.specs import BuildSpec

_LACKING: Mapping[str, tuple[object, str]] = {
    "strip_weights": (False, "plans without weights do not build there without a GPU"),
    "version_compatible": (False, "there is no lean runtime to put into the plan"),
    "exclude_lean_runtime": (False, "there is no lean runtime"),
    "timing_cache_only": (False, "nothing is timed when a plan is built"),
    "dla_core": (None, "it compiles for GPUs"),
    "tactic_sources": (None, "kernels are chosen on the GPU when the plan is loaded"),
}
_REFIT = "plans that can be refitted as a whole do not build there without a GPU; individual does"
_IGNORED = (
    "optimization_level", "avg_timing_iterations", "max_tactics", "max_aux_streams", "tiling",
    "hardware_compatibility",
)  # fmt: skip


def check(spec: BuildSpec) -> None:
    """Check that TensorRT for RTX has what a recipe asks for.

    Raises:
        InputError: it lacks an option.
    """
    for key, (default, reason) in _LACKING.items():
        if getattr(spec, key) != default:
            message = f"build.{key}: {TITLE} lacks it, for {reason}; leave it out"
            raise InputError(message)
    if spec.refit in ("all", "identical"):
        message = f"build.refit = {spec.refit!r}: {TITLE} lacks it: {_REFIT}"
        raise InputError(message)
    if spec.typing == "weak":
        message = f"build.typing = 'weak': {TITLE} has strong typing only; leave it out"
        raise InputError(message)


def ignored(spec: BuildSpec) -> list[str]:
    """Return the keys of a recipe that change nothing in a plan of TensorRT for RTX (1.7.1)."""
    fields = BuildSpec.model_fields
    return [f"build.{key}" for key in _IGNORED if getattr(spec, key) != fields[key].default]


def flags(spec: BuildSpec) -> tuple[list[str], list[str]]:
    """Return the ``BuilderFlag`` members to set and to clear.

    SPARSE_WEIGHTS changes no plan: which kernel runs is decided when it is loaded.
    """
    set_, cleared = [], []
    set_ += ["BuilderFlag.SPARSE_WEIGHTS"] if spec.sparse_weights else []
    set_ += ["BuilderFlag.STRICT_NANS"] if spec.strict_nans else []
    set_ += ["BuilderFlag.WEIGHT_STREAMING"] if spec.weight_streaming else []
    set_ += ["BuilderFlag.REFIT_INDIVIDUAL"] if spec.refit == "individual" else []
    cleared += [] if spec.tf32 else ["BuilderFlag.TF32"]
    return set_, cleared
