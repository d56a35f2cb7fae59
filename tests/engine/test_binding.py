"""The real ``tensorrt`` module, where it is installed; no device is needed and none is touched.

``trt.Runtime`` and ``trt.Builder`` are never made here: without a GPU the one ends the process.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.api import ENGINE, calls
from tests.runs import own_process
from trt_qat.engine import compat, log, machine
from trt_qat.engine.build import configure
from trt_qat.engine.build.implicit import make_calibrator
from trt_qat.engine.build.options import resolve
from trt_qat.engine.execution.profiler import make_layer_profiler
from trt_qat.engine.interrupt import Interrupt
from trt_qat.errors import BackendUnavailable, InputError
from trt_qat.recipe.specs import BuildSpec

try:
    trt: Any = compat.import_module()
except BackendUnavailable as error:
    pytest.skip(f"the real binding: {error}", allow_module_level=True)
VERSION = compat.version(trt)
SPECS = (
    BuildSpec(),
    BuildSpec(remainder="fp32", keep_fp32=("Softmax",), sparse_weights=False, tf32=False),
    BuildSpec(tactic_sources=("edge_mask_convolutions", "jit_convolutions"), workspace_mib=64),
    BuildSpec(hardware_compatibility="ampere_plus", version_compatible=True, refit="all"),
    BuildSpec(dla_core=0, optimization_level=5, avg_timing_iterations=2, max_aux_streams=1),
)


class Memory:
    """Addresses that nobody reads."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}

    def allocate(self, size: int) -> int:
        address = 256 * (len(self.held) + 1)
        self.held[address] = size
        return address

    def free(self, address: int) -> None:
        del self.held[address]


class HostMemory(Memory):
    """A device that only counts."""

    def pinned(self, shape: tuple[int, ...], dtype: str) -> Any:
        return np.zeros(shape, dtype)

    def to_device(self, address: int, array: Any) -> None: ...

    def synchronize(self) -> None: ...


def test_every_guarded_name_is_there_when_the_table_says_so() -> None:
    names = compat.GUARDED
    assert [n for n in names if compat.has(trt, n) != (VERSION in names[n])] == []


@pytest.mark.parametrize("spec", SPECS)
def test_every_option_is_a_member_of_its_enumeration(spec: BuildSpec) -> None:
    made = resolve(spec, VERSION, quantized=True)
    values = (value for value in made.values.values() if isinstance(value, str))
    for name in (*made.flags, *made.cleared, *made.pools, *(made.sources or ()), *values):
        found = configure.member(trt, name)
        assert type(found).__name__ == name.partition(".")[0]
        assert found.name == name.partition(".")[2]
    for name in made.values:
        assert getattr(trt.IBuilderConfig, name).fset is not None, name
    assert isinstance(compat.network_flags(trt, made.strong), int)


def has(name: str) -> bool:
    kind, _, member = name.partition(".")
    return hasattr(getattr(trt, kind, None), member)


def signatures(name: str) -> list[tuple[int, int]]:
    """Least and most arguments of a method, without ``self``, one pair for each overload."""
    kind, _, method = name.partition(".")
    text = getattr(getattr(trt, kind), method).__doc__ or ""
    found = re.findall(rf"^(?:\d+\. )?{method}\((.*)\) -> ", text, re.MULTILINE)
    names = [re.findall(r"(\w+): [^=,]*(= )?", given) for given in found]
    return [(sum(not default for _, default in each) - 1, len(each) - 1) for each in names]


@pytest.mark.parametrize("path", sorted(ENGINE.rglob("*.py")), ids=lambda path: path.stem)
def test_every_call_has_as_many_arguments_as_the_method_takes(path: Path) -> None:
    for name, count in calls(path):
        taken = signatures(name) if has(name) else []  # that it exists is test_compat's affair
        assert not taken or any(low <= count <= high for low, high in taken), (name, count, taken)


@pytest.mark.parametrize(
    "name",
    [
        "EngineInspector.execution_context",
        "Runtime.engine_host_code_allowed",
        "ILayer.precision",
        "IBuilderConfig.int8_calibrator",
        "IBuilderConfig.progress_monitor",
    ],
)
def test_what_the_package_assigns_can_be_assigned(name: str) -> None:
    if not has(name):
        assert name in compat.GUARDED
        return
    kind, _, member = name.partition(".")
    assert getattr(getattr(trt, kind), member).fset is not None


def test_the_signatures_are_read() -> None:
    assert signatures("IBuilderConfig.set_timing_cache") == [(2, 2)]
    assert signatures("IOptimizationProfile.set_shape") == [(4, 4)]
    assert sum(len([*calls(path)]) for path in ENGINE.rglob("*.py")) > 30


def test_types_have_the_numpy_types_that_tensorrt_gives_them() -> None:
    for name, dtype in compat.numpy_names().items():
        if name in trt.DataType.__members__:
            member = trt.DataType.__members__[name]
            assert np.dtype(trt.nptype(member)) == np.dtype(dtype) == compat.numpy_dtype(member)


def test_the_logger_hears_the_library() -> None:
    """Registering the plugins logs a line for each of them, from C++."""
    said = log.make_log(trt)
    said.log(trt.ILogger.WARNING, "a warning")
    assert said.lines == ["[W] a warning"]
    trt.init_libnvinfer_plugins(said, "")
    assert any(line.startswith("[V] ") for line in said.lines[1:])


def test_the_profiler_is_one_of_tensorrts_and_sums_up() -> None:
    profiler = make_layer_profiler(trt)
    assert isinstance(profiler, trt.IProfiler)
    for milliseconds in (0.25, 0.5):
        profiler.report_layer_time("loop", milliseconds)
    assert profiler.times_ms == {"loop": 0.75}


def test_the_output_allocator_is_one_of_tensorrts() -> None:
    memory = Memory()
    allocator = compat.make_output_allocator(trt, memory)
    assert isinstance(allocator, trt.IOutputAllocator)
    first = allocator.reallocate_output("y", 0, 100, 256)
    assert allocator.reallocate_output("y", first, 50, 256) == first
    assert allocator.reallocate_output_async("y", first, 500, 256, 0) == allocator.address
    assert list(memory.held.values()) == [500]
    allocator.notify_shape("y", trt.Dims((2, 3)))
    assert allocator.shape == (2, 3)


@pytest.mark.skipif(VERSION >= compat.STRONG_ONLY, reason="11 has no implicit quantization")
def test_the_calibrator_is_one_of_tensorrts() -> None:
    memory: Any = HostMemory()
    batch = {"x": np.ones((2, 3), np.float32)}
    calibrator = make_calibrator(compat.calibrator_class(trt), memory, [batch])
    assert isinstance(calibrator, trt.IInt8EntropyCalibrator2)
    assert calibrator.get_batch_size() == 2
    assert len(calibrator.get_batch(["x"])) == 1
    assert calibrator.get_batch(["x"]) is None


def test_a_progress_monitor_stops_when_it_is_asked_to() -> None:
    interrupt = Interrupt()
    monitor: Any = log.make_progress(trt, lambda line: None, interrupt)
    if VERSION < compat.STRONG_SINCE:
        assert monitor is None
        return
    monitor.phase_start("build", None, 2)
    assert monitor.step_complete("build", 0)
    interrupt.asked = True
    assert not monitor.step_complete("build", 1)


def test_what_the_version_lacks_is_a_sentence() -> None:
    for name in compat.GUARDED:
        if not compat.has(trt, name):
            with pytest.raises(InputError, match=rf"TensorRT {trt.__version__} has no {name}"):
                compat.find(trt, name)


@pytest.mark.skipif(machine.why_no_engines() is None, reason="there is a GPU here")
@pytest.mark.parametrize("arguments", [("--trust",), ()])
def test_without_a_gpu_an_engine_ends_in_a_sentence_and_not_in_a_crash(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    version = bytes(int(part) for part in trt.__version__.split(".")[:4])
    (tmp_path / "x.engine").write_bytes(b"ftrt" + bytes(20) + version.ljust(4, b"\0") + bytes(99))
    done = own_process("inspect", tmp_path / "x.engine", *arguments)
    assert done.returncode == 0
    assert "there is no GPU" in done.stdout
