"""Weights alone in few bits: linear layers with a scale a block, whose inputs stay float."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

import trt_qat as tq
from tests.qat.test_placement_rules import conv, net
from trt_qat.errors import RecipeError
from trt_qat.graph.qdq import Graph
from trt_qat.measure.metrics import sqnr_db
from trt_qat.qat import checkpoint
from trt_qat.qat.gptq import gptq
from trt_qat.qat.moments import Moments
from trt_qat.qat.quantize import formats_in
from trt_qat.qat.quantizers.formats import INT4
from trt_qat.qat.smooth import SmoothedLinear

WIDE = 256


def rows(count: int = 64, seed: int = 0) -> Tensor:
    """Inputs whose channels go together, and of which some are far larger than the others."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(count, 5, 32, generator=generator)
    x = mixed @ torch.randn(32, WIDE, generator=torch.Generator().manual_seed(9))
    x[..., :8] *= 20
    return x / 10


def encoder() -> nn.Module:
    """A norm, two linear layers on tensors of rank 3, and a convolution in front."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(m.down(F.gelu(m.up(m.norm(x) * m.gain))))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    made = net(
        forward,
        norm=nn.LayerNorm(WIDE),
        up=nn.Linear(WIDE, 128),
        down=nn.Linear(128, WIDE),
        head=nn.Linear(WIDE, 32),
    )
    with torch.no_grad():
        for name in ("up", "down"):
            layer = made.get_submodule(name)
            assert isinstance(layer, nn.Linear)
            layer.weight[:, :64] *= 3  # blocks of which one needs a longer range
    made.register_buffer("gain", 1 + 10 * (torch.arange(WIDE) < 8).float())
    return made


def quantized(method: str = "round-to-nearest", block: int = 128, **arguments: Any) -> nn.Module:
    spec = {"format": "int4", "int4_method": method, "int4_block": block, "heads": "int8"}
    return tq.quantize(encoder(), list(torch.split(rows(), 16)), spec=spec, **arguments)


def error(model: nn.Module) -> float:
    reference = encoder()
    with torch.no_grad():
        wanted, found = reference(rows(seed=1)), model(rows(seed=1))
    return float((found - wanted).square().mean() / wanted.square().mean())


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    return quantized()


def test_weights_are_stored_in_four_bits_and_inputs_have_no_pair(
    plain: nn.Module, tmp_path: Path
) -> None:
    path = tq.export(plain, rows(4), tmp_path / "model.onnx")
    graph = Graph.from_file(path)
    assert graph.opset == 21
    assert not graph.pairs
    layers = [node for node in graph.nodes if node.name in ("up", "down", "head")]
    for node in layers:
        weight = graph.weight(node)
        assert weight is not None
        assert weight.scaling is not None
        assert (weight.scaling.code_type, weight.scaling.block_size) == (TensorProto.INT4, 128)
        inputs = weight.shape[0]  # a product of rank 3 has its output channels last
        assert weight.scaling.scale is not None
        assert weight.scaling.scale.shape[0] == inputs // 128
    with tq.runner(f"ort:{path}") as runner, torch.no_grad():
        (output,) = runner.infer({next(iter(runner.inputs)): rows(4).numpy()}).values()
        assert (sqnr_db(plain(rows(4)).numpy(), output) or 300.0) > 80
    stored = {t.name: t for t in onnx.load(path).graph.initializer}
    codes = next(t for name, t in stored.items() if name.startswith("up.codes.weight_tr"))
    assert len(codes.raw_data) == WIDE * 128 // 2


def test_the_report_names_format_and_reasons(plain: nn.Module) -> None:
    report = tq.report_of(plain)
    assert {note.name: note.why for note in report.quantized} == dict.fromkeys(
        ("up", "down", "head"), "INT4"
    )
    assert [kind.name for kind in formats_in(plain)] == ["int4"]


def test_convolutions_and_odd_widths_stay_float_with_their_reason() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        flat = m.c(x).flatten(1)
        return m.fits(flat[:, :128]), m.odd(flat[:, :20])

    model = net(forward, c=conv(), fits=nn.Linear(128, 16), odd=nn.Linear(20, 16))
    spec = {"format": "int4", "heads": "int8"}
    made = tq.quantize(model, [torch.randn(2, 16, 8, 8)], spec=spec)
    assert {note.name: note.why for note in tq.report_of(made).float_layers} == {
        "c": "weights alone: of linear layers only",
        "odd": "weights alone: 20 inputs, no multiple of a block of 128",
    }


def test_a_smaller_block_loses_less(plain: nn.Module) -> None:
    assert error(quantized(block=64)) < error(plain)


@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_methods_lose_less_than_rounding_to_the_nearest(
    method: str, plain: nn.Module, tmp_path: Path
) -> None:
    made = quantized(method)
    assert error(made) < 0.9 * error(plain)
    smoothed = any(isinstance(module, SmoothedLinear) for module in made.modules())
    assert smoothed is (method == "awq"), "where no norm can take the factors"
    path = tq.export(made, rows(4), tmp_path / "model.onnx")
    assert Graph.from_file(path).opset == 21


def test_learned_rounding_takes_blocks_too(plain: nn.Module) -> None:
    assert error(quantized(ptq={"rounding": "learned"})) < 0.9 * error(plain)


def test_gptq_hands_on_what_a_column_loses() -> None:
    """Two equal inputs: what one column rounds away, the other gives back."""
    weight = torch.tensor([[7.0, 0.4, 0.4, 0.0]])
    given = torch.tensor([[1.0, 1.0, 1.0, 1.0]]) * torch.linspace(1, 2, 50)[:, None]
    given[:, 0] = torch.linspace(2, 1, 50)
    moments = Moments(torch.zeros(1, 4, 4), torch.zeros(1, 4))
    moments.add(given.T[None])
    values, amax = gptq(weight, moments, None, 4, INT4)
    assert amax.tolist() == [[7.0]]
    assert values.sum() == 8.0, "rounded to the nearest both would be 0"


def test_training_moves_the_weights_under_their_grid(plain: nn.Module, tmp_path: Path) -> None:
    made = copy.deepcopy(plain)
    inputs = rows()
    targets = encoder()(inputs).detach()
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-4)
    before = float(F.mse_loss(made(inputs), targets))
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.mse_loss(made(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(loss) < 0.5 * before
    tq.export(made, inputs[:4], tmp_path / "model.onnx")
    checkpoint.save(made, tmp_path / "model.pt")
    again = checkpoint.load_into(quantized(), tmp_path / "model.pt")
    with torch.no_grad():
        assert torch.equal(again(inputs), made(inputs))


def test_layers_of_weights_alone_stand_beside_int8_ones(tmp_path: Path) -> None:
    spec = {"layers": {"up": "int4"}, "heads": "int8"}
    made = tq.quantize(encoder(), [rows()], spec=spec)
    path = tq.export(made, rows(4), tmp_path / "model.onnx")
    report = tq.preflight(str(path))
    assert {layer.name: (layer.precision, layer.weight_only) for layer in report.layers} == {
        "up": ("fp32", "int4"), "down": ("int8", ""), "head": ("int8", "")
    }  # fmt: skip
    assert report.headline.startswith("INT8 in 2 of 3 layers")
    assert "low-bit weights alone in 1 of 3 layers" in report.headline


@pytest.fixture(scope="module")
def nvfp4() -> nn.Module:
    return tq.quantize(encoder(), [rows()], spec={"format": "nvfp4", "heads": "int8"})


@pytest.fixture(scope="module")
def nvfp4_file(nvfp4: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tq.export(nvfp4, rows(4), tmp_path_factory.mktemp("nvfp4") / "model.onnx")


def test_nvfp4_is_e2m1_behind_scales_that_are_themselves_dequantized(nvfp4_file: Path) -> None:
    graph = Graph.from_file(nvfp4_file)
    assert graph.opset == 23
    for name in ("up", "down", "head"):
        (node,) = [node for node in graph.nodes if node.name == name]
        weight = graph.weight(node)
        assert weight is not None
        assert weight.dequantize is not None
        assert graph.element_type(weight.initializer) == TensorProto.FLOAT4E2M1
        assert weight.dequantize.integer("block_size", 0) == 16
        scale = graph.producer(weight.dequantize.input(1))
        assert scale is not None
        assert graph.element_type(scale.input(0)) == TensorProto.FLOAT8E4M3FN
        assert graph.constant_shape(scale.input(1)) == ()


def test_nvfp4_computes_what_the_model_does_by_onnx_itself_and_by_our_decoding(
    nvfp4: nn.Module, nvfp4_file: Path
) -> None:
    """onnxruntime has no kernel for it; onnx's reference evaluator dequantizes by its own code."""
    feed = {onnx.load(nvfp4_file).graph.input[0].name: rows(4).numpy()}
    with torch.no_grad():
        wanted = nvfp4(rows(4)).numpy()
    found, *_ = ReferenceEvaluator(str(nvfp4_file)).run(None, feed)
    assert isinstance(found, np.ndarray)
    assert (sqnr_db(wanted, found) or 300.0) > 80
    with tq.runner(f"ort:{nvfp4_file}") as runner:
        (output,) = runner.infer(feed).values()
    assert (sqnr_db(wanted, output) or 300.0) > 80
    assert error(nvfp4) > 0


def test_nvfp4_is_for_blackwell_and_its_scales_are_no_finding(nvfp4_file: Path) -> None:
    report = tq.preflight(str(nvfp4_file))
    assert report.passed(), str(report)
    assert {layer.weight_only for layer in report.layers} == {"float4e2m1"}
    ada = tq.preflight(str(nvfp4_file), "rtx-4090")
    assert [f.rule for f in ada.findings if f.severity == "error"] == ["QDQ310"]
    old = tq.preflight(str(nvfp4_file), tensorrt="10.7")
    assert "QDQ310" in {f.rule for f in old.findings if f.severity == "error"}


def test_nvfp4_weights_train_and_round_by_what_they_are_given(nvfp4: nn.Module) -> None:
    learned = tq.quantize(
        encoder(),
        [rows()],
        spec={"format": "nvfp4", "heads": "int8"},
        ptq={"rounding": "learned"},
    )
    assert error(learned) < 0.9 * error(nvfp4)
    made = copy.deepcopy(nvfp4)
    made(rows()).square().mean().backward()
    weight = made.get_submodule("up").weight
    assert isinstance(weight, nn.Parameter)
    assert weight.grad is not None
    assert bool(weight.grad.any())


def test_the_floor_counts_what_is_stored(plain: nn.Module, tmp_path: Path) -> None:
    def floor(model: nn.Module, name: str) -> float:
        path = tq.export(model, rows(4), tmp_path / name, dynamic_batch=False)
        found = tq.preflight(str(path), "rtx-4090").roofline
        assert found is not None
        return sum(row.cost.bytes for row in found.rows if row.cost is not None)

    spec = {"layers": {"up": "float"}, "heads": "int8"}
    floats = tq.quantize(encoder(), [rows()], spec=spec)
    assert floor(plain, "four.onnx") < floor(floats, "float.onnx")


def test_there_is_no_form_of_floats(plain: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"export.weights: 'fp32' has no form"):
        tq.export(plain, rows(4), tmp_path / "model.onnx", weights="fp32")
    assert not list(tmp_path.iterdir())
