"""One protocol, whatever runs the model; feeds that do not fit are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from trt_qat.errors import (
    DataError,
    GraphError,
    InputError,
    ModelError,
    RecipeError,
)
from trt_qat.qat.runner import TorchRunner
from trt_qat.runners.open import runner
from trt_qat.runners.ort import OrtRunner, open_session
from trt_qat.runners.protocol import Runner


def linear_onnx(folder: Path) -> Path:
    """A Q/DQ pair and a matrix product, ``(batch, 4)`` to ``(batch, 3)``."""
    weight = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
            helper.make_node("MatMul", ["d", "weight"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [
            onnx.numpy_helper.from_array(np.float32(0.1), "scale"),
            onnx.numpy_helper.from_array(np.int8(0), "zero"),
            onnx.numpy_helper.from_array(weight, "weight"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "linear.onnx")
    return folder / "linear.onnx"


class Linear(nn.Module):
    """What `linear_onnx` computes, in torch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


class Otherwise(Linear):
    """The same with weights by which the first output is the largest; there it is the last."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[1.0] * 4, [0.0] * 4, [0.0] * 4]))


@pytest.fixture(params=["ort", "ort-int8", "torch"])
def any_runner(request: pytest.FixtureRequest, tmp_path: Path) -> Runner:
    makers: dict[str, Callable[[], Runner]] = {
        "ort": lambda: OrtRunner(linear_onnx(tmp_path)),
        "ort-int8": lambda: OrtRunner(linear_onnx(tmp_path), fused=True),
        "torch": lambda: TorchRunner(Linear()),
    }
    return makers[request.param]()


def feed(count: int = 2) -> dict[str, Any]:
    return {"x": np.linspace(-1, 1, count * 4, dtype=np.float32).reshape(count, 4)}


def test_every_runner_keeps_the_batch_and_names_its_outputs(any_runner: Runner) -> None:
    with any_runner as opened:
        (output,) = opened.infer(feed(5)).values()
    assert output.shape == (5, 3)
    assert output.dtype == np.float32


def test_the_same_feed_gives_the_same_answer_twice(any_runner: Runner) -> None:
    with any_runner as opened:
        first, second = opened.infer(feed()), opened.infer(feed())
    assert all((first[name] == second[name]).all() for name in first)


def test_inputs_of_an_onnx_are_described(tmp_path: Path) -> None:
    spec = OrtRunner(linear_onnx(tmp_path)).inputs["x"]
    assert (spec.shape, spec.dtype) == (("batch", 4), "float32")


def test_the_reference_session_runs_q_and_dq_as_floats(tmp_path: Path) -> None:
    path = linear_onnx(tmp_path)
    assert OrtRunner(path).session_entries == {"session.disable_quant_qdq": "1"}
    assert OrtRunner(path, fused=True).session_entries == {}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"y": np.zeros((1, 4), np.float32)}, r"fed \['y'\]; its inputs are \['x'\]"),
        ({"x": np.zeros((1, 5), np.float32)}, r"got float32 \(1, 5\); allowed: float32 \(batch, 4"),
        ({"x": np.zeros((1, 4), np.float64)}, r"got float64 \(1, 4\); allowed: float32"),
        ({"x": np.zeros(4, np.float32)}, r"got float32 \(4,\); allowed: float32 \(batch, 4\)"),
    ],
)
def test_a_feed_that_does_not_fit_is_refused(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    with OrtRunner(linear_onnx(tmp_path)) as opened, pytest.raises(DataError, match=message):
        opened.infer(wrong)


def test_a_missing_onnx_is_named(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"none.onnx: no such file"):
        OrtRunner(tmp_path / "none.onnx")


def test_a_damaged_onnx_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"no protobuf at all")
    with pytest.raises(GraphError, match=r"bad.onnx: onnxruntime cannot load it"):
        OrtRunner(path)


def test_a_torch_model_is_run_in_evaluation_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.9))
    model.train()
    with TorchRunner(model) as opened:
        first, second = opened.infer(feed()), opened.infer(feed())
    assert (first["output"] == second["output"]).all()


def test_torch_takes_inputs_by_position_where_names_differ() -> None:
    with TorchRunner(Linear()) as opened:
        by_name, by_position = opened.infer(feed()), opened.infer({"images": feed()["x"]})
    assert (by_name["output"] == by_position["output"]).all()


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1, x + 2


class Mapping(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"logits": x, "cache": None}


class Text(nn.Module):
    def forward(self, x: Tensor) -> str:
        return "logits"


def test_several_outputs_of_torch_are_numbered_or_named() -> None:
    assert list(TorchRunner(Pair()).infer(feed())) == ["output_0", "output_1"]
    assert list(TorchRunner(Mapping()).infer(feed())) == ["logits"]


def test_a_torch_model_that_returns_no_tensor_is_refused() -> None:
    with pytest.raises(ModelError, match=r"torch returned str; allowed: tensors, or a dict"):
        TorchRunner(Text()).infer(feed())


def test_too_many_inputs_for_torch_are_refused() -> None:
    with pytest.raises(DataError, match=r"fed \['a', 'b'\], but forward takes x"):
        TorchRunner(Linear()).infer({"a": feed()["x"], "b": feed()["x"]})


def make_text() -> str:
    return "no model"


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("model.txt", InputError, r"'model.txt' is no SPEC .*; a SPEC is FILE.onnx or ort:"),
        ("model.onnx", InputError, r"model.onnx: no such file"),
        ("pytorch:module:function", InputError, r"nearest kind: 'torch'"),
        ("ort:", InputError, r"'ort:' is no SPEC"),
        ("ort:none.onnx", GraphError, r"none.onnx: no such file"),
        ("trt:model.engine", InputError, r"model.engine: cannot be read"),
        ("torch:tests.runners.test_ort:nothing", RecipeError, r"has no 'nothing'"),
        (
            "torch:tests.runners.test_ort:make_text",
            ModelError,
            r"returned str; it must return a torch",
        ),
    ],
)
def test_a_spec_that_names_no_runner_is_refused(
    spec: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        runner(spec)


def test_a_spec_names_a_runner(tmp_path: Path) -> None:
    path = linear_onnx(tmp_path)
    names = [runner(spec).name for spec in (f"ort:{path}", f"ort-int8:{path}")]
    assert names == ["ort", "ort-int8"]
    assert runner("torch:tests.runners.test_ort:Linear").name == "torch"


def test_a_node_that_does_not_take_its_input_is_a_sentence(tmp_path: Path) -> None:
    """Shapes that no check of the file can see."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "reshaped",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.array([-1, 3], np.int64), "shape")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    with (
        OrtRunner(tmp_path / "m.onnx") as runner,
        pytest.raises(DataError, match=r"m\.onnx: onnxruntime cannot run x \("),
    ):
        runner.infer({"x": np.zeros((1, 4), np.float32)})


def test_what_is_refused_with_its_fp4_weights_decoded_too_is_one_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trt_qat.runners.ort.without_fp4", lambda _: b"nor this")
    with pytest.raises(GraphError, match="mine: onnxruntime cannot load it"):
        open_session(b"no model", "mine", {})
