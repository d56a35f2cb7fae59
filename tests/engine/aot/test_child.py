"""Whatever happens in the compiler's process is one error here, and no file is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import onnx
import pytest

from tests.engine.aot.rtx import needs_rtx
from tests.graph.build import Builder, int8_chain
from trt_qat.engine.aot.answer import Job
from trt_qat.engine.aot.child import Compiler
from trt_qat.engine.build.rtx import shapes_of
from trt_qat.errors import CompilerDied
from trt_qat.recipe.specs import ShapeRange

pytestmark = needs_rtx
DETAILED = {"profiling_verbosity": "ProfilingVerbosity.DETAILED"}


def saved(folder: Path, model: onnx.ModelProto, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def chain(folder: Path) -> Path:
    return saved(folder, int8_chain().model("out_dq_out"))


def job(folder: Path, onnx_file: Path, **more: object) -> Job:
    batch = ShapeRange(min=(4, 16, 8, 8), opt=(4, 16, 8, 8), max=(4, 16, 8, 8))
    fields = {
        "onnx": onnx_file,
        "plan": folder / "plan",
        "log": folder / "log",
        "capabilities": ["SM89"],
        "profiles": [shapes_of({"x": batch})],
        "values": DETAILED,
    }
    return Job(**fields | more)  # type: ignore[arg-type]


def test_a_network_is_parsed_and_built_and_the_same_bytes_come_out_twice(tmp_path: Path) -> None:
    model = chain(tmp_path)
    said: list[str] = []
    with Compiler() as compiler:
        assert compiler.parse(model).parsed
        first = compiler.build(job(tmp_path, model), say=said.append)
        second = compiler.build(job(tmp_path, model))
    assert first.built
    assert first.sha256 == second.sha256
    assert first.size == (tmp_path / "plan").stat().st_size
    assert any("Building" in line for line in said)
    assert "[V] Layers:" in (tmp_path / "log").read_text()


def test_a_refusal_names_node_operator_and_source(tmp_path: Path) -> None:
    b = int8_chain()
    model = saved(tmp_path, b.model(b.node("Det", "out_dq_out", name="determinant")))
    with Compiler() as compiler:
        answer = compiler.parse(model)
        assert compiler.parse(chain(tmp_path)).parsed  # the process goes on
    (refusal,) = answer.refusals
    assert not answer.parsed
    assert (refusal.node, refusal.operator) == ("determinant", "Det")
    assert refusal.source
    assert "determinant" in str(refusal)


def crashing() -> onnx.ModelProto:
    """Nodes without a tensor between them: the parser of 1.7.1 ends its process."""
    return onnx.load(Path(__file__).parents[2] / "recordings" / "rtx" / "crash.onnx")


def test_a_crash_is_one_error_and_the_next_network_gets_a_new_process(tmp_path: Path) -> None:
    model = saved(tmp_path, crashing(), "crash.onnx")
    with Compiler() as compiler:
        with pytest.raises(CompilerDied, match=r"crash\.onnx: .*parsing, ended with SIGSEGV"):
            compiler.parse(model)
        assert compiler.parse(chain(tmp_path)).parsed


def test_a_process_that_is_killed_is_one_error_and_leaves_no_plan(tmp_path: Path) -> None:
    with Compiler() as compiler:
        compiler.parse(chain(tmp_path))
        assert compiler._process is not None
        os.kill(compiler._process.pid, signal.SIGKILL)
        time.sleep(0.2)
        compiler._start = lambda: None  # type: ignore[method-assign]  # dies after it was asked
        with pytest.raises(CompilerDied, match=r"SIGKILL.*out of memory, or was killed for it"):
            compiler.build(job(tmp_path, chain(tmp_path)))
    assert not (tmp_path / "plan").exists()


def test_a_time_out_is_one_error_and_the_process_is_gone(tmp_path: Path) -> None:
    with Compiler() as compiler:
        compiler.parse(chain(tmp_path))
        assert compiler._process is not None
        pid = compiler._process.pid
        with pytest.raises(CompilerDied, match="building, was stopped after 0 s"):
            compiler.build(job(tmp_path, chain(tmp_path)), timeout_s=0.01)
    assert not (tmp_path / "plan").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_out_of_memory_is_one_error(tmp_path: Path) -> None:
    b = Builder()
    x = b.node("MatMul", b.input("x", [1, 4096]), b.float_weight("w", (4096, 4096)), name="mm")
    model = saved(tmp_path, b.model(x))
    with Compiler(memory_mib=600) as compiler, pytest.raises(CompilerDied, match="out of memory"):
        compiler.build(job(tmp_path, model, profiles=[]))
    assert not (tmp_path / "plan").exists()


def test_ctrl_c_stops_a_build_and_leaves_no_plan(tmp_path: Path) -> None:
    b = Builder()
    x = b.input("x", [1, 64, 128, 128])
    for at in range(40):
        x = b.conv(x, (64, 64), f"c{at}", quantized=False)
    model = saved(tmp_path, b.model(x))
    threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    compiler = Compiler()

    def build_on() -> None:
        while True:
            compiler.build(job(tmp_path, model, profiles=[]))
            (tmp_path / "plan").unlink()

    with pytest.raises(KeyboardInterrupt):
        build_on()
    assert compiler._process is None
    assert not (tmp_path / "plan").exists()


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    """A parent that is killed says no goodbye; the end of its pipe must do."""
    code = f"""
import sys, json
from pathlib import Path
from trt_qat.engine.aot.child import Compiler
c = Compiler(); c.parse(Path({str(chain(tmp_path))!r}))
print(c._process.pid, flush=True); sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path[:] = {json.dumps(sys.path)}\n{code}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    until = time.monotonic() + 10
    while time.monotonic() < until and Path(f"/proc/{child}").exists():
        state = Path(f"/proc/{child}/stat").read_text().split()[2]
        if state == "Z":
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{child}").exists()
