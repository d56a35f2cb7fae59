"""What docs/engines.md calls unproven, tried one by one; each reports, none stops the rest.

A probe is a function of a scratch folder and the options of every build that returns what it saw.
It raises where the answer is no.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from benchmarks.gpu import forms, net
from benchmarks.gpu.work import differences
from trt_qat.engine import compat, machine
from trt_qat.engine.build.build import build
from trt_qat.engine.execution.runner import TrtRunner
from trt_qat.engine.loading import load_engine
from trt_qat.engine.log import make_log
from trt_qat.errors import TrtQatError
from trt_qat.recipe.specs import BuildSpec
from trt_qat.runners.ort import OrtRunner

ROOT = Path(__file__).parents[2]
Options = dict[str, Any]
Probe = Callable[[Path, Options], Any]
PROBES: dict[str, Probe] = {}


def _probe(function: Probe) -> Probe:
    PROBES[function.__name__] = function
    return function


def _spec(options: Options, **given: Any) -> BuildSpec:
    return BuildSpec.model_validate(options | {"batch": (1, 4, 16)} | given)


def _network(path: Path, **given: Any) -> Path:
    return net.write_for(compat.version(compat.load()), path, **given)


def _checked(onnx_file: Path, engine: Path, *, graph: bool = False) -> dict[str, Any]:
    """Run an engine at two batch sizes; return how far it is from onnxruntime at the larger."""
    found: dict[str, Any] = {}
    with OrtRunner(onnx_file) as reference, TrtRunner(engine, graph=graph) as candidate:
        for batch in (1, 16, 4):
            feed = net.feed(batch)
            want, got = reference.infer(feed)[net.OUTPUT], candidate.infer(feed)[net.OUTPUT]
            found[f"batch {batch}"] = differences(want, got)
    return found


@_probe
def small_network(folder: Path, options: Options) -> Any:
    """Build, run at three batch sizes, compare; the first thing that can go wrong."""
    path = _network(folder / "small.onnx")
    made = build(path, folder / "small.engine", spec=_spec(options))
    return {"census": made.layers["census"], "compare": _checked(path, made.path)}


@_probe
def cuda_graph(folder: Path, options: Options) -> Any:
    """The same through a captured graph, over changes of shape."""
    path = _network(folder / "small.onnx")
    made = build(path, folder / "small.engine", spec=_spec(options))
    return _checked(path, made.path, graph=True)


@_probe
def int8_initialisers(folder: Path, options: Options) -> Any:
    """INT8 constants behind DQ alone: undocumented for 8.6."""
    path = net.write(folder / "int8.onnx")
    made = build(path, folder / "int8.engine", spec=_spec(options))
    return {"census": made.layers["census"], "compare": _checked(path, made.path)}


@_probe
def fp32_weights(folder: Path, options: Options) -> Any:
    """FP32 constants behind Q and DQ, and whether 2:4 is found in them."""
    path = net.write(folder / "int8.onnx")
    onnx.save(forms.with_float_weights(onnx.load(path)), folder / "fp32.onnx")
    made = build(folder / "fp32.onnx", folder / "fp32.engine", spec=_spec(options))
    return {
        "census": made.layers["census"],
        "sparsity": made.layers["sparsity"],
        "compare": _checked(path, made.path),
    }


@_probe
def sparse_kernels(folder: Path, options: Options) -> Any:
    """2:4 at sizes where a sparse kernel should win: Found, Chose, and their names."""
    path = _network(folder / "wide.onnx", channels=512, size=14)
    made = build(path, folder / "wide.engine", spec=_spec(options, batch=(32, 32, 32)))
    layers = made.layers["layers"]
    return {
        "sparsity": made.layers["sparsity"],
        "kernels": [(each["name"], each["tactic"], each["sparse"]) for each in layers],
        "log": made.layers["log"],
    }


@_probe
def data_dependent_shape(folder: Path, options: Options) -> Any:
    """An output allocator gives memory for an output whose shape only values tell."""
    path = net.write_nonzero(folder / "nonzero.onnx")
    spec = _spec(options, remainder="fp32")
    made = build(path, folder / "nonzero.engine", spec=spec)
    feed = {net.INPUT: net.feed(3, channels=4, size=1)[net.INPUT].reshape(3, 4)}
    feed[net.INPUT][0] = 0
    with OrtRunner(path) as reference, TrtRunner(made.path) as candidate:
        want, got = reference.infer(feed)[net.OUTPUT], candidate.infer(feed)[net.OUTPUT]
    return {"shape": list(got.shape), "equal": bool((want == got).all())}


@_probe
def version_compatible(folder: Path, options: Options) -> Any:
    """An engine that other versions may load holds host code."""
    path = _network(folder / "small.onnx")
    spec = _spec(options, version_compatible=True)
    made = build(path, folder / "vc.engine", spec=spec)
    return {"bytes": made.path.stat().st_size, "compare": _checked(path, made.path)}


@_probe
def ampere_plus(folder: Path, options: Options) -> Any:
    """An engine for every GPU since Ampere."""
    path = _network(folder / "small.onnx")
    spec = _spec(options, hardware_compatibility="ampere_plus")
    return _checked(path, build(path, folder / "ampere.engine", spec=spec).path)


@_probe
def refit(folder: Path, options: Options) -> Any:
    """An engine whose weights may be exchanged."""
    path = _network(folder / "small.onnx")
    return _checked(path, build(path, folder / "r.engine", spec=_spec(options, refit="all")).path)


@_probe
def stripped(folder: Path, options: Options) -> Any:
    """A plan without weights: how much smaller, and what loading it says."""
    path = _network(folder / "small.onnx")
    spec = _spec(options, refit="identical", strip_weights=True)
    made = build(path, folder / "stripped.engine", spec=spec)
    return {"bytes": made.path.stat().st_size, "loading": _said(made.path)}


@_probe
def timing_cache(folder: Path, options: Options) -> Any:
    """A second build takes less time and the same kernels."""
    path, cache = _network(folder / "small.onnx"), folder / "a.timing"
    seconds, kernels = [], []
    for at in range(2):
        began = time.perf_counter()
        spec = _spec(options, timing_cache=str(cache))
        made = build(path, folder / f"{at}.engine", spec=spec)
        seconds.append(round(time.perf_counter() - began, 2))
        kernels.append([each["tactic"] for each in made.layers["layers"]])
    return {
        "seconds": seconds,
        "same_kernels": kernels[0] == kernels[1],
        "bytes": cache.stat().st_size,
    }


@_probe
def foreign_timing_cache(folder: Path, options: Options) -> Any:
    """A cache of garbage is replaced, not fatal."""
    path, cache = _network(folder / "small.onnx"), folder / "a.timing"
    cache.write_bytes(b"no cache at all" * 100)
    said: list[str] = []
    spec = _spec(options, timing_cache=str(cache))
    build(path, folder / "m.engine", spec=spec, say=said.append)
    return {"said": said, "bytes": cache.stat().st_size}


@_probe
def damaged_engine(folder: Path, options: Options) -> Any:
    """What is said of garbage, of a cut and of a changed plan; in a process that may die."""
    path = _network(folder / "small.onnx")
    plan = build(path, folder / "m.engine", spec=_spec(options)).path.read_bytes()
    half = len(plan) // 2
    changed = plan[:half] + bytes([plan[half] ^ 255]) + plan[half + 1 :]
    found = {}
    for name, content in (("garbage", b"garbage" * 99), ("cut", plan[:half]), ("changed", changed)):
        (folder / f"{name}.engine").write_bytes(content)
        code = (
            f"from trt_qat.runners.open import runner; runner('trt-trusted:{folder / name}.engine')"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        lines = done.stderr.strip().splitlines()
        found[name] = {"exit": done.returncode, "said": lines[-1] if lines else ""}
    return found


@_probe
def two_profiles(folder: Path, options: Options) -> Any:
    """Two ranges of batch sizes in one engine, the second of them used."""
    path = _network(folder / "small.onnx")
    shapes = [[batch, 64, 16, 16] for batch in (1, 16)]
    profiles = [{net.INPUT: {"min": s, "opt": s, "max": s}} for s in shapes]
    made = build(path, folder / "m.engine", spec=_spec(options, profiles=profiles))
    with OrtRunner(path) as reference, TrtRunner(made.path, profile=1) as candidate:
        feed = net.feed(16)
        return differences(reference.infer(feed)[net.OUTPUT], candidate.infer(feed)[net.OUTPUT])


@_probe
def keep_fp32(folder: Path, options: Options) -> Any:
    """A node that is kept in FP32 while FP16 computes the rest."""
    path = _network(folder / "small.onnx")
    made = build(path, folder / "m.engine", spec=_spec(options, keep_fp32=("add",)))
    return {"layers": made.layers["layers"], "compare": _checked(path, made.path)}


@_probe
def every_verbosity(folder: Path, options: Options) -> Any:
    """What the inspector tells at each verbosity, in its own words."""
    path, trt, found = _network(folder / "small.onnx"), compat.load(), {}
    from trt_qat.engine.evidence.inspect import inspector_text

    for verbosity in ("detailed", "layer_names_only", "none"):
        made = build(path, folder / f"{verbosity}.engine", spec=_spec(options, verbosity=verbosity))
        loaded = load_engine(trt, made.path.read_bytes(), made.path, make_log(trt))
        found[verbosity] = inspector_text(trt, loaded)
    return found


@_probe
def build_log(folder: Path, options: Options) -> Any:
    """Lines of the builder's log that the parser should know: sparsity, memory, warnings."""
    path = _network(folder / "wide.onnx", channels=256, size=14)
    made = build(path, folder / "m.engine", spec=_spec(options, timing_cache="none"))
    words = ("parsity", "memory", "[W]", "[E]", "Layer(", "Tactic Name")
    return [line[:400] for line in made.log if any(word in line for word in words)][:400]


@_probe
def default_tactic_sources(folder: Path, options: Options) -> Any:
    """TensorRT's own choice of libraries, which may not be there: in a process that may die."""
    _network(folder / "small.onnx")
    command = [sys.executable, "-m", "trt_qat", "build", str(folder / "small.onnx"), "-o"]
    done = subprocess.run(
        [*command, str(folder / "m.engine"), "--set", "timing_cache=none"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return {"exit": done.returncode, "said": done.stderr.strip().splitlines()[-5:]}


@_probe
def accelerator(folder: Path, options: Options) -> Any:
    """What is said of a deep learning accelerator that this machine has or lacks."""
    path = _network(folder / "small.onnx")
    try:
        made = build(path, folder / "m.engine", spec=_spec(options, dla_core=0))
    except TrtQatError as error:
        return {"refused": str(error)}
    return {"census": made.layers["census"]}


@_probe
def bindings(folder: Path, options: Options) -> Any:
    """The device layer by each binding that is installed."""
    from trt_qat.engine import device

    kinds = {"pycuda": device.PycudaDevice, "cuda-python": device.CudaPythonDevice}
    found = {}
    for name, kind in kinds.items():
        if machine.bindings()[name]:
            opened = kind()
            array = opened.pinned((4, 5), "float32")
            array[...] = 7
            address = opened.allocate(array.nbytes)
            opened.to_device(address, array)
            array[...] = 0
            began = opened.record()
            opened.to_host(array, address)
            spent = opened.elapsed_ms(began, opened.record())
            found[name] = {"copied": bool((array == 7).all()), "ms": spent}
            del array
            opened.close()
    return found


def _said(engine: Path) -> str:
    try:
        with TrtRunner(engine) as runner:
            runner.infer(net.feed(1))
    except TrtQatError as error:
        return str(error)
    return "it runs"
