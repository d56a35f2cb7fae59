"""``--fix`` writes nothing that computes something else than the model, beyond what was asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from tests.graph.build import Builder, int8_chain
from tests.lint.violations import CASES
from trt_qat.errors import CheckFailed, GraphError
from trt_qat.graph.qdq import Graph
from trt_qat.mend import fix as fixing
from trt_qat.mend import judge, mends, retype, trial
from trt_qat.mend.fix import Half, fix
from trt_qat.mend.judge import Gap
from trt_qat.mend.mends import Change


def saved(folder: Path, rule: str = "QDQ107") -> Path:
    path = folder / "model.onnx"
    model = next(case for case in CASES if case.rule == rule).bad()
    path.write_bytes(model.SerializeToString())
    return path


def spoil_weight(graph: Graph) -> list[Change]:
    """A mend that is wrong: it turns the sign of the first weight round, once."""
    layer, weight = graph.weighted_layers()[0]
    tensor = graph.initializers[weight.initializer]
    if tensor.doc_string == "spoilt":
        return []
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(-array, tensor.name))
    tensor.doc_string = "spoilt"
    return [Change("QDQ108", layer.name, "Read the codes before it instead.")]


def drop_output(graph: Graph) -> list[Change]:
    """A mend that is wrong: the file has an operator that nobody knows."""
    node = graph.nodes[-1].proto
    if node.op_type == "Nothing":
        return []
    node.op_type = "Nothing"
    return [Change("QDQ108", node.name, "Did harm.")]


def sabotage(monkeypatch: pytest.MonkeyPatch, mend: mends.Mend) -> None:
    monkeypatch.setattr(mends, "ALL", (*mends.ALL, mend))
    monkeypatch.setitem(fixing._RULES, mend, ("QDQ108",))


def test_a_mend_that_does_harm_is_refused_by_rule_and_node_and_an_older_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = saved(tmp_path), tmp_path / "mended.onnx"
    out.write_bytes(b"older")
    layer = Graph.from_file(path).weighted_layers()[0][0].name
    sabotage(monkeypatch, spoil_weight)
    said = rf"0\.01% is allowed; most of it is by QDQ108 at '{layer}' .*--ignore QDQ108.*nothing is"
    with pytest.raises(CheckFailed, match=said):
        fix(path, out)
    assert out.read_bytes() == b"older"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mended.onnx", "model.onnx"]


def test_a_mended_copy_that_does_not_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path)
    sabotage(monkeypatch, drop_output)
    with pytest.raises(CheckFailed, match="does not compute what the model does: onnxruntime can"):
        fix(path, tmp_path / "mended.onnx")
    assert not (tmp_path / "mended.onnx").exists()


def test_what_a_mend_rounds_otherwise_is_held_to_what_was_asked(tmp_path: Path) -> None:
    """Sharing the scale of a concat moves outputs by a few codes."""
    path, out = saved(tmp_path, "QDQ102"), tmp_path / "mended.onnx"
    assert fix(path, out).largest_difference
    out.unlink()
    with pytest.raises(CheckFailed, match=r"0\.00% is allowed; most of it is by QDQ102 at"):
        fix(path, out, tolerance=0.0)
    assert not out.exists()


def test_a_cast_to_fp16_that_is_too_coarse_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "model.onnx", tmp_path / "mended.onnx"
    b = int8_chain()
    b.inputs[0].type.tensor_type.shape.dim[0].dim_value = 1
    path.write_bytes(b.model(b.node("Sigmoid", "out_dq_out", name="last")).SerializeToString())
    assert fix(path, out, half=Half()).largest_difference is not None
    out.unlink()
    cast = retype.to_half

    def coarse(model: object, *rest: object, **options: object) -> object:
        made, changes = cast(model, *rest, **options)  # type: ignore[arg-type]
        (node,) = (node for node in made.graph.node if node.op_type == "Sigmoid")
        node.op_type = "Tanh"
        return made, changes

    monkeypatch.setattr(retype, "to_half", coarse)
    with pytest.raises(CheckFailed, match=r"10\.00% is allowed; most of it is by QDQ201 .*--fp32"):
        fix(path, out, half=Half())
    assert not out.exists()


def test_what_cannot_be_run_is_written_and_says_that_it_was_not_compared(tmp_path: Path) -> None:
    b = Builder()
    x = b.input("x", ["N", 16, "H", "W"])
    path = tmp_path / "model.onnx"
    path.write_bytes(
        b.model(b.qdq(b.conv(b.qdq(x, name="a"), (16, 16)), name="o")).SerializeToString()
    )
    assert "has a dynamic dimension" in fix(path, tmp_path / "mended.onnx").not_compared


def test_noise_of_the_inputs_excuses_as_much_as_it_makes() -> None:
    assert Gap(1.0, 100.0, 0.0).beyond(0.005)
    assert not Gap(1.0, 100.0, 0.0).beyond(0.01)
    assert not Gap(1.0, 100.0, 0.1).beyond(0.0)
    assert not Gap().beyond(0.0), "nothing was compared"


def test_only_mends_that_round_get_the_wider_tolerance() -> None:
    exact, rounds = Change("QDQ106", "a", ""), Change("QDQ102", "b", "")
    assert judge.allowed([exact], None) == judge.EXACT
    assert judge.allowed([exact, rounds], None) == judge.ROUNDED
    assert judge.allowed([exact, rounds], 0.5) == 0.5


def test_an_output_of_another_shape_is_a_difference() -> None:
    with pytest.raises(GraphError, match=r"an output of \(2, 3\) is \(2, 1\) now"):
        trial.difference([[np.zeros((2, 3))]], [[np.zeros((2, 1))]])


def test_the_yardstick_of_a_sound_graph_is_small() -> None:
    model = int8_chain().model("out_dq_out")
    feed = {"x": np.ones((1, 16, 8, 8), np.float32)}
    found = judge.compared(model, model, [feed], half=False)
    assert found.largest == 0.0
    assert found.rounding is not None
    assert found.output is not None
    assert found.rounding <= 0.1 * found.output
