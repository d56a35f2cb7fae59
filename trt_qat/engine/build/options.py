"""A `BuildSpec` as TensorRT names: what is set on the builder's config, decided without TensorRT.

Because names and versions are data here, every option is checked against the Python surface of
each supported release in the tests, on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trt_qat.engine import compat
from trt_qat.errors import InputError
from trt_qat.recipe.specs import BuildSpec, ShapeRange
from trt_qat.runners.protocol import TensorSpec

MIB = 1 << 20
_REFIT = {"all": "REFIT", "identical": "REFIT_IDENTICAL", "individual": "REFIT_INDIVIDUAL"}


@dataclass
class Options:
    """What a config is given.

    Attributes:
        strong: whether the network is strongly typed.
        flags: ``BuilderFlag`` names to set.
        cleared: ``BuilderFlag`` names to clear.
        values: attributes of ``IBuilderConfig``; a value that begins with a class of TensorRT, such
            as ``ProfilingVerbosity.DETAILED``, names a member of it.
        pools: limits of ``MemoryPoolType`` members, in bytes.
        sources: ``TacticSource`` names; None: TensorRT's default.
        dla_core: the accelerator that layers go to by default; None: the GPU.
    """

    strong: bool
    flags: list[str] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)
    values: dict[str, int | str] = field(default_factory=dict)
    pools: dict[str, int] = field(default_factory=dict)
    sources: tuple[str, ...] | None = None
    dla_core: int | None = None

    def names(self) -> list[str]:
        """Return every name of TensorRT that these options use."""
        members = [value for value in self.values.values() if isinstance(value, str)]
        config = [f"IBuilderConfig.{name}" for name in self.values]
        flag = "STRONGLY_TYPED" if self.strong else "EXPLICIT_BATCH"
        flags = [f"NetworkDefinitionCreationFlag.{flag}", *self.flags, *self.cleared]
        return [*flags, *members, *config, *self.pools, *(self.sources or ())]


def resolve(
    spec: BuildSpec, version: compat.Version, *, quantized: bool, dla_core: int | None = None
) -> Options:
    """Return the options of a spec for a version of TensorRT.

    Args:
        spec: what the recipe asks for.
        version: ``(major, minor)`` of TensorRT.
        quantized: the network has Q/DQ pairs.
        dla_core: the accelerator that the target asks for, unless the spec does.

    Raises:
        InputError: the version lacks an option, or two options exclude each other.
    """
    made = Options(strong=compat.is_strong(spec.typing, version))
    _precisions(made, spec, quantized)
    _modes(made, spec)
    _tuning(made, spec)
    core = spec.dla_core if spec.dla_core is not None else dla_core
    if core is not None:
        made.dla_core = core
        made.flags += ["BuilderFlag.GPU_FALLBACK"] if spec.gpu_fallback else []
        made.values |= {"default_device_type": "DeviceType.DLA", "DLA_core": core}
    for name in made.names():
        compat.require(name, version)
    return made


def _precisions(made: Options, spec: BuildSpec, quantized: bool) -> None:
    if not made.strong:
        made.flags += ["BuilderFlag.INT8"] if quantized else []
        made.flags += ["BuilderFlag.FP16"] if spec.remainder == "fp16" else []
        if spec.keep_fp32 and spec.remainder == "fp16":
            made.flags.append("BuilderFlag.OBEY_PRECISION_CONSTRAINTS")
    made.flags += ["BuilderFlag.SPARSE_WEIGHTS"] if spec.sparse_weights else []
    made.flags += ["BuilderFlag.STRICT_NANS"] if spec.strict_nans else []
    made.cleared += [] if spec.tf32 else ["BuilderFlag.TF32"]


def _modes(made: Options, spec: BuildSpec) -> None:
    if spec.exclude_lean_runtime and not spec.version_compatible:
        message = "build.exclude_lean_runtime belongs to build.version_compatible = true"
        raise InputError(message)
    if spec.strip_weights and spec.refit == "none":
        message = (
            "build.strip_weights leaves a plan that only refitting makes usable; set build.refit "
            "to 'identical' as well"
        )
        raise InputError(message)
    made.flags += ["BuilderFlag.VERSION_COMPATIBLE"] if spec.version_compatible else []
    made.flags += ["BuilderFlag.EXCLUDE_LEAN_RUNTIME"] if spec.exclude_lean_runtime else []
    made.flags += [f"BuilderFlag.{_REFIT[spec.refit]}"] if spec.refit != "none" else []
    made.flags += ["BuilderFlag.STRIP_PLAN"] if spec.strip_weights else []
    made.flags += ["BuilderFlag.WEIGHT_STREAMING"] if spec.weight_streaming else []
    if spec.hardware_compatibility != "none":
        level = spec.hardware_compatibility.upper()
        made.values["hardware_compatibility_level"] = f"HardwareCompatibilityLevel.{level}"


def _tuning(made: Options, spec: BuildSpec) -> None:
    made.values["profiling_verbosity"] = f"ProfilingVerbosity.{spec.verbosity.upper()}"
    numbers = {
        "builder_optimization_level": spec.optimization_level,
        "avg_timing_iterations": spec.avg_timing_iterations,
        "max_num_tactics": spec.max_tactics,
        "max_aux_streams": spec.max_aux_streams,
    }
    made.values |= {name: value for name, value in numbers.items() if value is not None}
    if spec.tiling is not None:
        level = f"TilingOptimizationLevel.{spec.tiling.upper()}"
        made.values["tiling_optimization_level"] = level
    if spec.workspace_mib is not None:
        made.pools["MemoryPoolType.WORKSPACE"] = spec.workspace_mib * MIB
    if spec.tactic_sources is not None:
        made.sources = tuple(f"TacticSource.{name.upper()}" for name in spec.tactic_sources)
    if spec.timing_cache_only:
        made.flags.append("BuilderFlag.ERROR_ON_TIMING_CACHE_MISS")


Profile = Mapping[str, ShapeRange]


def profiles(spec: BuildSpec, inputs: Mapping[str, TensorSpec]) -> list[Profile]:
    """Return the optimization profiles for the inputs of a network; none if all are static.

    Raises:
        InputError: a profile names no input, lacks one, or contradicts a fixed dimension; or a
            dimension other than the first is dynamic and no profile says its range.
    """
    dynamic = {n: s for n, s in inputs.items() if any(isinstance(d, str) for d in s.shape)}
    if spec.profiles:
        return [_checked(profile, index, inputs) for index, profile in enumerate(spec.profiles)]
    if not dynamic:
        return []
    return [{name: _by_batch(tensor, spec.batch) for name, tensor in dynamic.items()}]


def _by_batch(tensor: TensorSpec, batch: Sequence[int]) -> ShapeRange:
    first, *rest = tensor.shape
    if any(isinstance(size, str) for size in rest) or isinstance(first, int):
        shape = ", ".join(map(str, tensor.shape))
        message = (
            f"input {tensor.name!r} is ({shape}): build.batch sets a dynamic first dimension only; "
            f"say what the others may be in [[build.profiles]], {tensor.name} = "
            "{ min = [..], opt = [..], max = [..] }"
        )
        raise InputError(message)
    sizes = tuple(size for size in rest if isinstance(size, int))
    low, mid, high = ((size, *sizes) for size in batch)
    return ShapeRange(min=low, opt=mid, max=high)


def _checked(profile: Profile, index: int, inputs: Mapping[str, TensorSpec]) -> Profile:
    where = f"build.profiles[{index}]"
    if unknown := sorted(set(profile) - set(inputs)):
        message = f"{where}: the network has no input {unknown[0]!r}; it has {sorted(inputs)}"
        raise InputError(message)
    for name, tensor in inputs.items():
        fixed = {at: size for at, size in enumerate(tensor.shape) if isinstance(size, int)}
        if name not in profile:
            if len(fixed) == len(tensor.shape):
                continue
            message = f"{where}: the dynamic input {name!r} has no range there"
            raise InputError(message)
        given = profile[name]
        for shape in (given.min, given.opt, given.max):
            fits = len(shape) == len(tensor.shape)
            if not fits or any(shape[at] != size for at, size in fixed.items()):
                allowed = ", ".join(map(str, tensor.shape))
                message = f"{where}.{name}: {list(shape)} does not fit the input's ({allowed})"
                raise InputError(message)
    return profile
