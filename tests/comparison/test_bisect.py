"""The first fused group that differs is named, without inner tensors of the candidate at hand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import trt_qat as tq
from tests.faults import FAULTS, dropped_bias, replaced_layer, shifted_zero_point
from tests.runners.test_ort import linear_onnx
from trt_qat import artifact
from trt_qat.comparison.bisect import bisect
from trt_qat.comparison.rebuild import OrtRebuild, TrtRebuild
from trt_qat.errors import DataError, GraphError, InputError
from trt_qat.graph.cuts import cuts, suspects
from trt_qat.graph.load import load_graph
from trt_qat.graph.taps import Tap
from trt_qat.qat.models import REFERENCE_MODELS
from trt_qat.runners.ort import OrtRunner
from trt_qat.runners.ort_tapped import OrtTapped
from trt_qat.runners.protocol import Runner

BATCH = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
FEED = {"x": BATCH.numpy()}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = REFERENCE_MODELS["residual_cnn"](in_channels=1, num_classes=10, widths=(16, 32))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
    model = tq.quantize(model, [BATCH]).eval()
    return tq.export(model, BATCH, tmp_path_factory.mktemp("bisect") / "model.onnx")


def integer_chain(folder: Path, *, layers: int = 4, broken: int | None = None) -> Path:
    """Conv and Q in turns, with INT32 biases: what onnxruntime fuses to QLinearConv.

    ``broken`` is the layer whose bias is lost.
    """
    draw = np.random.default_rng(0)
    nodes, stored = [], []

    def store(name: str, array: Any) -> str:
        stored.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    scale, zero = store("s", np.float32(0.05)), store("z", np.uint8(128))
    nodes.append(helper.make_node("QuantizeLinear", ["x", scale, zero], ["q0"], name="q0"))
    for at in range(layers):
        weight = draw.integers(-60, 60, size=(4, 4, 3, 3)).astype(np.int8)
        bias = np.zeros(4, np.int32) if at == broken else np.array([900, -900, 600, 0], np.int32)
        store(f"w{at}", weight)
        store(f"b{at}", bias)
        nodes += [
            helper.make_node("DequantizeLinear", [f"q{at}", scale, zero], [f"d{at}"],
                             name=f"d{at}"),
            helper.make_node("DequantizeLinear", [f"w{at}", store(f"ws{at}", np.float32(0.01))],
                             [f"wd{at}"], name=f"wd{at}"),
            helper.make_node("DequantizeLinear", [f"b{at}", store(f"bs{at}", np.float32(0.0005))],
                             [f"bd{at}"], name=f"bd{at}"),
            helper.make_node("Conv", [f"d{at}", f"wd{at}", f"bd{at}"], [f"c{at}"], name=f"conv{at}",
                             pads=[1, 1, 1, 1]),
            helper.make_node("QuantizeLinear", [f"c{at}", scale, zero], [f"q{at + 1}"],
                             name=f"q{at + 1}"),
        ]  # fmt: skip
    last = f"q{layers}"
    nodes.append(helper.make_node("DequantizeLinear", [last, scale, zero], ["y"], name="last"))
    shape: list[str | int | None] = ["batch", 4, 8, 8]
    graph = helper.make_graph(
        nodes, "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        stored,
    )  # fmt: skip
    path = folder / f"chain-{broken}.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


CHAIN_FEED = {"x": np.random.default_rng(1).normal(size=(4, 4, 8, 8)).astype(np.float32)}


def optimized(path: Path, folder: Path) -> Counter[str]:
    """Return the operators that onnxruntime really runs."""
    code = """
import sys, onnxruntime as ort
options = ort.SessionOptions()
options.optimized_model_filepath, options.log_severity_level = sys.argv[2], 4
ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""
    out = folder / "optimized.onnx"
    subprocess.run([sys.executable, "-c", code, str(path), str(out)], check=True, timeout=60)
    return Counter(node.op_type for node in onnx.load(out).graph.node)


# Cuts


def test_cuts_lie_where_fused_layers_end(exported: Path) -> None:
    """A Conv, its residual Add and its Relu are one group, and what it writes are codes."""
    found = {cut.tensor: cut for cut in cuts(load_graph(exported))}
    kinds = {cut.tap.element_type for cut in found.values()}
    assert kinds == {TensorProto.INT8, TensorProto.FLOAT}
    (output,) = [cut for cut in found.values() if cut.tap.step is None]
    assert output.tap.op == "Gemm"
    operators = {node.name: node.op_type for node in load_graph(exported).graph.node}
    inside = [[operators[name] for name in cut.nodes] for cut in found.values()]
    assert any({"Conv", "Add", "Relu", "QuantizeLinear"} <= set(group) for group in inside)
    assert all(group.count("Conv") <= 2 for group in inside), "a shortcut at most besides"


def test_every_live_node_is_in_a_group(exported: Path) -> None:
    model = load_graph(exported)
    grouped = {name for cut in cuts(model) for name in cut.nodes}
    assert {node.name for node in model.graph.node} <= grouped


def test_suspects_are_the_cuts_between_a_tensor_and_the_marks_before_it(tmp_path: Path) -> None:
    found = cuts(load_graph(integer_chain(tmp_path)))
    assert [cut.tensor for cut in found] == ["q0", "q1", "q2", "q3", "q4", "y"]
    assert [cut.tensor for cut in suspects(found, "q4", ["q1"])] == ["q2", "q3"]
    assert suspects(found, "q2", ["q1"]) == []


# Bisection


@pytest.mark.parametrize(("marks", "seed"), [(1, 0), (2, 1), (16, 2)])
@pytest.mark.parametrize("make", FAULTS, ids=lambda make: make.__name__)
def test_the_group_at_fault_is_named(
    exported: Path, tmp_path: Path, make: Any, seed: int, marks: int
) -> None:
    fault = make(onnx.load(exported), np.random.default_rng(seed))
    onnx.save(fault.model, tmp_path / "faulty.onnx")
    with OrtRunner(tmp_path / "faulty.onnx", fused=True) as runner:
        found = bisect(OrtTapped(exported), OrtRebuild(runner, exported), [FEED], marks=marks)
    assert found.first_divergence is not None
    # A pair whose Q and DQ have the wrong scale is found where its codes are made.
    nodes = {cut.tensor: cut.nodes for cut in cuts(load_graph(exported))}
    quantize = fault.node.replace("DequantizeLinear", "QuantizeLinear")
    at = next(t for t, inside in nodes.items() if {fault.node, quantize} & set(inside))
    if make is shifted_zero_point:
        at = next(t for t, inside in nodes.items() if fault.node in inside)
    assert found.first_divergence.cand_tensor == at
    assert found.nodes == nodes[at]


def test_nothing_is_named_in_the_model_itself(exported: Path) -> None:
    with OrtRunner(exported, fused=True) as runner:
        found = bisect(OrtTapped(exported), OrtRebuild(runner, exported), [FEED])
    assert found.first_divergence is None
    assert (found.builds, found.nodes) == (1, ())


@pytest.mark.parametrize("broken", [0, 2, 3])
def test_a_fault_between_integer_kernels_is_named(tmp_path: Path, broken: int) -> None:
    sound, faulty = integer_chain(tmp_path), integer_chain(tmp_path, broken=broken)
    assert optimized(faulty, tmp_path)["QLinearConv"] == 4, "the kernels are really fused"
    found = tq.compare(f"ort:{sound}", f"ort-int8:{faulty}", CHAIN_FEED, bisect=True)
    assert found.first_divergence is not None
    assert found.first_divergence.name == f"conv{broken}"
    assert found.bisection is not None
    assert set(found.bisection.nodes) >= {f"d{broken}", f"conv{broken}", f"q{broken + 1}"}


class Watched(OrtRebuild):
    """Remembers what was marked."""

    def __init__(self, runner: OrtRunner, reference: Path) -> None:
        super().__init__(runner, reference)
        self.marked: list[list[str]] = []

    def with_outputs(self, taps: Sequence[Tap]) -> Runner:
        self.marked.append([tap.tensor for tap in taps])
        return super().with_outputs(taps)


def test_halves_are_built_and_not_every_layer(tmp_path: Path) -> None:
    """First the outputs alone, then the middle, then the half that differs first."""
    sound = integer_chain(tmp_path, layers=16)
    faulty = integer_chain(tmp_path, layers=16, broken=2)
    with OrtRunner(faulty, fused=True) as runner:
        watched = Watched(runner, sound)
        found = bisect(OrtTapped(sound), watched, [CHAIN_FEED], marks=1)
    assert found.first_divergence is not None
    assert found.first_divergence.name == "conv2"
    assert watched.marked[:2] == [[], ["q9"]]
    assert len(watched.marked) <= 7
    assert all(set(b) >= set(a) for a, b in zip(watched.marked, watched.marked[1:], strict=False))


class Fragile(Watched):
    """A compiler whose fusions, and with them the outputs, change with more than two marks."""

    def build(self, onnx_path: Path) -> Runner:
        runner = super().build(onnx_path)
        if len(self.marked[-1]) > 2:
            original = runner.infer
            runner.infer = lambda feed: {  # type: ignore[method-assign]
                name: array + np.float32(1e-3) if name == "y" else array
                for name, array in original(feed).items()
            }
        return runner


def test_fewer_are_marked_where_marks_change_the_outputs(tmp_path: Path) -> None:
    sound, faulty = integer_chain(tmp_path), integer_chain(tmp_path, broken=1)
    with OrtRunner(faulty, fused=True) as runner:
        fragile = Fragile(runner, sound)
        found = bisect(OrtTapped(sound), fragile, [CHAIN_FEED], marks=4)
    assert len(fragile.marked[1]) > 2
    assert len(fragile.marked[2]) <= 2, "halved"
    assert found.first_divergence is not None
    assert found.first_divergence.name == "conv1"


def test_changed_outputs_are_told(tmp_path: Path) -> None:
    class Broken(Fragile):
        def build(self, onnx_path: Path) -> Runner:
            self.marked[-1] = [*self.marked[-1], "", "", ""] if self.marked[-1] else []
            return super().build(onnx_path)

    sound = integer_chain(tmp_path)
    with OrtRunner(sound, fused=True) as runner:
        found = bisect(OrtTapped(sound), Broken(runner, sound), [CHAIN_FEED], marks=2)
    assert not found.outputs_kept


def test_the_json_tells_of_the_bisection(exported: Path, tmp_path: Path) -> None:
    fault = replaced_layer(onnx.load(exported), np.random.default_rng(0))
    assert fault is not None
    onnx.save(fault.model, tmp_path / "faulty.onnx")
    faulty = f"ort-int8:{tmp_path / 'faulty.onnx'}"
    document = tq.compare(f"ort:{exported}", faulty, FEED, bisect=True).to_dict()
    assert set(document["bisection"]) == {"builds", "marked", "cuts", "outputs_kept", "nodes"}
    assert fault.node in document["bisection"]["nodes"]
    assert document["first_divergence"]["steps"] is not None
    json.dumps(document, allow_nan=False)


# What cannot be bisected


def test_networks_of_other_tensors_are_refused(exported: Path, tmp_path: Path) -> None:
    other = linear_onnx(tmp_path)
    with OrtRunner(other, fused=True) as runner, pytest.raises(GraphError, match="has no tensor"):
        OrtRebuild(runner, exported).with_outputs([cuts(load_graph(exported))[0].tap])


def test_torch_cannot_be_built_again(exported: Path) -> None:
    with pytest.raises(InputError, match=r"torch is not built from an ONNX; give ort-int8: or trt"):
        tq.compare(f"ort:{exported}", "torch:tests.runners.test_ort:Linear", FEED, bisect=True)
    with pytest.raises(InputError, match=r"the reference is ort-int8; it must be ort:FILE.onnx"):
        tq.compare(f"ort-int8:{exported}", f"ort-int8:{exported}", FEED, bisect=True)


def test_no_feeds_are_refused(exported: Path) -> None:
    with OrtRunner(exported, fused=True) as runner, pytest.raises(DataError, match="no feeds"):
        bisect(OrtTapped(exported), OrtRebuild(runner, exported), [])


def test_an_engine_must_come_from_the_reference(exported: Path, tmp_path: Path) -> None:
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"plan")
    with pytest.raises(InputError, match=r"model.engine: no sidecar says how it was built"):
        TrtRebuild(engine, exported)
    artifact.write_sidecar(
        engine, fingerprint="", parents={"other.onnx": "0" * 64}, spec={}, metrics={}, seconds=0.0
    )
    with pytest.raises(InputError, match=r"built from other.onnx, not from this"):
        TrtRebuild(engine, exported)
    parents = {exported.name: artifact.sha256_file(exported)}
    artifact.write_sidecar(
        engine, fingerprint="", parents=parents, spec={}, metrics={}, seconds=0.0
    )
    assert TrtRebuild(engine, exported).onnx == exported
    artifact.write_sidecar(
        engine,
        fingerprint="",
        parents=parents,
        spec={},
        metrics={"implicit_int8": True},
        seconds=0.0,
    )
    with pytest.raises(InputError, match=r"cannot be built again: .*implicit INT8"):
        TrtRebuild(engine, exported)


def test_dropped_bias_is_found_through_the_command_line(exported: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from trt_qat.cli.app import app

    fault = dropped_bias(onnx.load(exported), np.random.default_rng(3))
    assert fault is not None
    onnx.save(fault.model, tmp_path / "faulty.onnx")
    np.savez(tmp_path / "x.npz", x=FEED["x"])
    command = ["compare", "--ref", f"ort:{exported}", "--cand", f"ort-int8:{tmp_path}/faulty.onnx"]
    done = CliRunner().invoke(app, [*command, "--data", f"{tmp_path}/x.npz", "--bisect"])
    assert f"first divergence: Conv '{fault.node}'" in done.stdout.replace("\n", " ")
    assert "nodes of the group:" in done.stdout
