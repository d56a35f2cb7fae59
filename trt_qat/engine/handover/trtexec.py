"""The ``trtexec`` command that builds the engine that a `BuildSpec` builds.

Flags are those of TensorRT's ``sampleOptions.cpp``. What trtexec has no flag for is said.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from trt_qat.engine import compat
from trt_qat.engine.build.configure import matching
from trt_qat.engine.build.network_io import Network
from trt_qat.engine.build.options import profiles, resolve
from trt_qat.recipe.specs import BuildSpec, ShapeRange

_HARDWARE = {"ampere_plus": "ampere+", "same_compute_capability": "sameComputeCapability"}
_SOURCES = ("CUBLAS", "CUBLAS_LT", "CUDNN", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
_TILING = ("none", "fast", "moderate", "full")
_NO_FLAG = {
    "refit": ("identical", "individual"),
    "strict_nans": (True,),
    "gpu_fallback": (False,),
}


@dataclass(frozen=True)
class Command:
    """A command line, and what it cannot express.

    Attributes:
        arguments: ``trtexec`` and its flags.
        lacking: options of the build that trtexec has no flag for.
    """

    arguments: tuple[str, ...]
    lacking: tuple[str, ...]

    def script(self) -> str:
        """Return it as a shell script."""
        notes = [f"# trtexec has no flag for build.{option}\n" for option in self.lacking]
        flags = " \\\n  ".join(shlex.quote(argument) for argument in self.arguments)
        return "#!/bin/sh\nset -e\n" + "".join(notes) + f"{flags}\n"


def command(
    spec: BuildSpec, version: compat.Version, network: Network, *, onnx: str, engine: str
) -> Command:
    """Return the command for a version of TensorRT.

    Args:
        spec: of the build.
        version: ``(major, minor)`` of the trtexec that runs it.
        network: what the ONNX looks like.
        onnx: the file to build from, as the script names it; with FP16 casts where typing is
            strong and the remainder FP16.
        engine: the file to write.

    Raises:
        InputError: the version lacks an option, or a profile does not fit.
    """
    resolve(spec, version, quantized=network.quantized)  # refuses what the version lacks
    flags = [f"--onnx={onnx}", f"--saveEngine={engine}", "--skipInference"]
    flags += _types(spec, version, network)
    flags += ["--sparsity=enable"] if spec.sparse_weights else []
    flags += [] if spec.tf32 else ["--noTF32"]
    made = profiles(spec, network.inputs)
    several = len(made) > 1
    if several and version < compat.STRONG_SINCE:  # --profile came with 10
        made = made[:1]
    for index, profile in enumerate(made):
        flags += [f"--profile={index}"] if len(made) > 1 else []
        flags += _shapes(profile)
    flags += [*_tuning(spec, version), *_modes(spec)]
    lacking = [key for key, values in _NO_FLAG.items() if getattr(spec, key) in values]
    lacking += ["profiles beyond the first"] if several and len(made) == 1 else []
    if spec.dla_core is None:
        lacking = [key for key in lacking if key != "gpu_fallback"]
    if spec.strip_weights and spec.refit == "identical":  # what --stripWeights does by itself
        lacking = [key for key in lacking if key != "refit"]
    return Command(("trtexec", *flags), tuple(lacking))


def _types(spec: BuildSpec, version: compat.Version, network: Network) -> Iterator[str]:
    if compat.is_strong(spec.typing, version):
        if version < compat.STRONG_ONLY:
            yield "--stronglyTyped"
        return
    if network.quantized:
        yield "--int8"
    if spec.remainder == "fp16":
        yield "--fp16"
        if names := sorted(matching(spec.keep_fp32, network)):
            yield "--precisionConstraints=obey"
            yield "--layerPrecisions=" + ",".join(f"{name}:fp32" for name in names)


def _shapes(profile: Mapping[str, ShapeRange]) -> Iterator[str]:
    for end in ("min", "opt", "max"):
        shapes = (
            f"{name}:{'x'.join(map(str, getattr(ranges, end)))}" for name, ranges in profile.items()
        )
        yield f"--{end}Shapes=" + ",".join(shapes)


def _tuning(spec: BuildSpec, version: compat.Version) -> Iterator[str]:
    numbers = {
        "builderOptimizationLevel": spec.optimization_level,
        "avgTiming": spec.avg_timing_iterations,
        "maxTactics": spec.max_tactics,
        "maxAuxStreams": spec.max_aux_streams,
        "tilingOptimizationLevel": None if spec.tiling is None else _TILING.index(spec.tiling),
    }
    yield from (f"--{flag}={value}" for flag, value in numbers.items() if value is not None)
    if spec.workspace_mib is not None:
        yield f"--memPoolSize=workspace:{spec.workspace_mib}"
    if spec.tactic_sources is not None:
        wanted = {name.upper() for name in spec.tactic_sources}
        known = [name for name in _SOURCES if _has_source(name, version)]
        signed = ",".join(f"{'+' if name in wanted else '-'}{name}" for name in known)
        yield f"--tacticSources={signed}"
    if spec.timing_cache not in ("auto", "none"):
        yield f"--timingCacheFile={spec.timing_cache}"
    if spec.timing_cache_only:
        yield "--errorOnTimingCacheMiss"
    yield f"--profilingVerbosity={spec.verbosity}"


def _has_source(name: str, version: compat.Version) -> bool:
    dotted = f"TacticSource.{name}"
    return dotted not in compat.GUARDED or version in compat.GUARDED[dotted]


def _modes(spec: BuildSpec) -> Iterator[str]:
    if spec.hardware_compatibility != "none":
        yield f"--hardwareCompatibilityLevel={_HARDWARE[spec.hardware_compatibility]}"
    chosen = {
        "--versionCompatible": spec.version_compatible,
        "--excludeLeanRuntime": spec.exclude_lean_runtime,
        "--refit": spec.refit == "all",
        "--stripWeights": spec.strip_weights,
        "--allowWeightStreaming": spec.weight_streaming,
    }
    yield from (flag for flag, wanted in chosen.items() if wanted)
    if spec.dla_core is not None:
        yield f"--useDLACore={spec.dla_core}"
        if spec.gpu_fallback:
            yield "--allowGPUFallback"
