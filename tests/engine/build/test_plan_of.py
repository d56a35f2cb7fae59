"""What TensorRT's builder is asked, asked of TensorRT for RTX, which has its surface and no GPU.

In this process: what TensorRT itself would do differently is in `tests/engine/test_on_gpu.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.engine.aot.rtx import needs_rtx
from tests.graph.build import Builder, int8_chain
from trt_qat.engine import compat
from trt_qat.engine.aot import load
from trt_qat.engine.build import network_io
from trt_qat.engine.build.build import Job, plan_of
from trt_qat.engine.build.options import resolve
from trt_qat.engine.execution.profiler import make_layer_profiler
from trt_qat.engine.interrupt import Interrupt
from trt_qat.engine.loading import load_engine
from trt_qat.engine.log import EVERY_S, Heartbeat, make_log, make_progress
from trt_qat.engine.machine import Gpu
from trt_qat.errors import CheckFailed, GraphError, InputError
from trt_qat.recipe.specs import BuildSpec, ShapeRange

pytestmark = [needs_rtx, pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX")]
L4 = Gpu("NVIDIA L4", (8, 9), 23034, 58, (12, 4))
ROWS = ShapeRange(min=(1, 16, 8, 8), opt=(4, 16, 8, 8), max=(8, 16, 8, 8))


@pytest.fixture(scope="module")
def trt() -> Any:
    return load.import_module()


def job_of(folder: Path, model: onnx.ModelProto, *, cache: Path | None = None, **given: Any) -> Job:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    spec = BuildSpec.model_validate({"profiles": ({"x": ROWS},)} | given)
    options = resolve(spec, compat.rtx_surface(), quantized=True)
    return Job(path, path, spec, network_io.read(path), options, L4, cache)


def chain() -> onnx.ModelProto:
    return int8_chain().model("out_dq_out")


def for_l4(trt: Any) -> Callable[[Any, Any], None]:
    def adjust(builder: Any, config: Any) -> None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM89, 0)

    return adjust


def test_options_reach_the_builder_and_a_plan_comes_out(trt: Any, tmp_path: Path) -> None:
    cache = tmp_path / "kernels" / "l4.timing"
    cache.parent.mkdir()
    cache.write_bytes(b"no cache of timings")
    job = job_of(tmp_path, chain(), cache=cache, workspace_mib=64, tf32=False)
    said: list[str] = []
    asked: list[Any] = []

    def adjust(builder: Any, config: Any) -> None:
        for_l4(trt)(builder, config)
        asked.append(config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE))
        asked.append(config.get_flag(trt.BuilderFlag.TF32))
        asked.append(config.num_optimization_profiles)
        asked.append(config.profiling_verbosity)

    plan, log = plan_of(trt, job, said.append, adjust)
    assert len(plan) > 10_000
    assert asked == [64 << 20, False, 1, trt.ProfilingVerbosity.DETAILED]
    assert "  Building engine" in said
    assert any(line.startswith("[V]") for line in log.lines)
    with pytest.raises(InputError, match=r"model\.onnx: TensorRT 1\.7.* does not load it: "):
        load_engine(trt, plan[:64], job.onnx, log)


def test_a_network_that_the_parser_refuses_is_one_error(trt: Any, tmp_path: Path) -> None:
    b = int8_chain()
    job = job_of(tmp_path, b.model(b.node("Det", "out_dq_out", name="determinant")))
    with pytest.raises(GraphError, match=r"TensorRT 1\.7\S* cannot import it: .*determinant"):
        plan_of(trt, job, lambda line: None, for_l4(trt))


def test_a_network_that_the_builder_refuses_is_one_error(trt: Any, tmp_path: Path) -> None:
    """A second profile gives its dynamic input no range."""
    b = Builder()
    x = b.input("x", ["N", 16, 8, 8])
    w = b.store("w", b.draw.normal(size=(16, 16, 1, 1)))
    job = job_of(tmp_path, b.model(b.node("Conv", x, w, name="conv")))

    def too_little(builder: Any, config: Any) -> None:
        for_l4(trt)(builder, config)
        config.add_optimization_profile(builder.create_optimization_profile())

    with pytest.raises(CheckFailed, match=r"TensorRT 1\.7\S* cannot build it: \S+"):
        plan_of(trt, job, lambda line: None, too_little)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": ("TacticSource.JIT_CONVOLUTIONS",)}, None),
        ({"dla_core": 0}, r"build\.dla_core = 0: this machine has 0"),
        ({"strong": False}, r"no NetworkDefinitionCreationFlag\.EXPLICIT_BATCH \(it is gone"),
        ({"flags": ["BuilderFlag.INT8"]}, r"no BuilderFlag\.INT8"),
    ],
)
def test_what_the_builder_lacks_is_refused(
    trt: Any, tmp_path: Path, options: dict[str, Any], message: str | None
) -> None:
    job = job_of(tmp_path, chain())
    job = dataclasses.replace(job, options=dataclasses.replace(job.options, **options))
    if message is None:
        assert plan_of(trt, job, lambda line: None, for_l4(trt))[0]
        return
    with pytest.raises(InputError, match=message):
        plan_of(trt, job, lambda line: None, for_l4(trt))


def test_progress_is_told_and_an_interrupt_cancels(
    trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    asked = Interrupt()
    progress = make_progress(trt, said.append, asked)
    assert progress is not None
    monkeypatch.setattr("trt_qat.engine.log.EVERY_S", 0.0)
    progress.phase_start("Building engine", None, 5)
    progress.phase_start("Autotuning", "Building engine", 9)
    assert progress.step_complete("Autotuning", 3)
    progress.phase_finish("Autotuning")
    asked.asked = True
    assert not progress.step_complete("Building engine", 4)
    assert said == ["  Building engine", "  Autotuning: 3 of 9", "  Building engine: 4 of 5"]


def test_a_log_keeps_every_line_with_its_severity(trt: Any) -> None:
    log = make_log(trt)
    log.log(trt.ILogger.INTERNAL_ERROR, "fell")
    log.log(trt.ILogger.WARNING, "careful")
    assert log.lines == ["[F] fell", "[W] careful"]


def test_a_layers_times_add_up(trt: Any) -> None:
    profiler = make_layer_profiler(trt)
    for name, ms in (("conv", 1.0), ("add", 0.5), ("conv", 2.0)):
        profiler.report_layer_time(name, ms)
    assert profiler.times_ms == {"conv": 3.0, "add": 0.5}


class Memory:
    """A device of which only addresses are asked."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}

    def allocate(self, size: int) -> int:
        address = 256 * (1 + len(self.held)) + size
        self.held[address] = size
        return address

    def free(self, address: int) -> None:
        del self.held[address]


def test_an_output_that_grows_gets_more_memory_and_gives_the_old_back(trt: Any) -> None:
    memory = Memory()
    allocator = compat.make_output_allocator(trt, memory)
    first = allocator.reallocate_output("y", 0, 100, 256)
    assert allocator.reallocate_output("y", 0, 40, 256) == first
    second = allocator.reallocate_output_async("y", 0, 300, 256, 0)
    assert list(memory.held) == [second]
    allocator.notify_shape("y", [3, 4])
    assert allocator.shape == (3, 4)


def test_a_build_without_a_monitor_says_that_it_lives() -> None:
    now = [0.0]
    said: list[str] = []
    heartbeat = Heartbeat(said.append, lambda: now[0])
    heartbeat.hear("Tactic: 0x1 Time: 0.1")
    now[0] = EVERY_S + 1
    heartbeat.hear("Tactic: 0x2 Time: 0.1")
    heartbeat.hear("Tactic: 0x3 Time: 0.1")
    assert said == [f"  {EVERY_S + 1:.0f} s: 2 kernels timed"]
