"""torch's own attention and transformer layers: their projections are layers like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trt_qat as tq
from tests.qat.agreement import worst_error
from trt_qat.qat.layer_weights import functional_weights
from trt_qat.qat.quantize import quantized

WIDTH = 32
TOKENS = torch.randn(3, 6, WIDTH, generator=torch.Generator().manual_seed(0))


class Attends(nn.Module):
    """One attention between linear layers, called as ``call`` says."""

    def __init__(self, call: str, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.call = call
        self.attn = nn.MultiheadAttention(WIDTH, 4, **{"batch_first": True} | options)
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.call == "cross":
            y = self.attn(y, x, x, need_weights=False)[0]
        elif self.call == "weights":
            y, weights = self.attn(y, y, y)
            y = y + weights.mean()
        elif self.call == "causal":
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
            y = self.attn(y, y, y, attn_mask=mask, is_causal=True, need_weights=False)[0]
        elif self.call == "padding":
            hidden = torch.zeros(x.shape[:2], dtype=torch.bool)
            y = self.attn(y, y, y, key_padding_mask=hidden, need_weights=False)[0]
        else:
            y = self.attn(y, y, y, need_weights=False)[0]
        return self.head(torch.relu(self.last(y)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("call", "options"),
    [
        ("self", {}),
        ("cross", {}),
        pytest.param(
            "cross", {"kdim": WIDTH, "vdim": WIDTH, "bias": False}, marks=pytest.mark.slow
        ),
        pytest.param("self", {"batch_first": False}, marks=pytest.mark.slow),
        ("weights", {"add_bias_kv": True, "add_zero_attn": True}),
        pytest.param("causal", {}, marks=pytest.mark.slow),
        ("padding", {}),
    ],
)
def test_projections_are_int8_however_attention_is_called(
    call: str, options: dict[str, Any], tmp_path: Path
) -> None:
    net = Attends(call, **options).eval()
    want = net(TOKENS)
    model = tq.quantize(net, [TOKENS])
    report = tq.report_of(model)
    assert report.untraced == ()
    names = {note.name for note in report.quantized}
    assert {"first", "attn.out_proj", "last"} <= names
    assert any(name.startswith("attn.") and name != "attn.out_proj" for name in names)
    assert float((model(TOKENS) - want).abs().max()) < 0.1 * float(want.abs().max())
    path = tq.export(model, TOKENS, tmp_path / "model.onnx")
    assert worst_error(model, TOKENS, path) <= 1e-3
    assert [layer.precision for layer in tq.preflight(path).layers].count("int8") == len(names)


def test_a_whole_encoder_of_torch_is_placed_and_trains() -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, 4, 64, dropout=0.1, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    net = nn.Sequential(nn.Linear(WIDTH, WIDTH), encoder, nn.Linear(WIDTH, WIDTH)).eval()
    model = tq.quantize(net.append(nn.Linear(WIDTH, 8)), [TOKENS])
    names = [note.name for note in tq.report_of(model).quantized]
    assert len(names) == 2 + 2 * 4
    assert "1.layers.1.self_attn.in_proj" in names
    model.train()
    model(TOKENS).sum().backward()
    for quantizer, weight, _ in functional_weights(model, quantized(model).placed):
        assert quantizer.is_enabled
        assert weight.shape[1] == WIDTH
    assert all(p.grad is not None for p in model.parameters())


def test_training_that_takes_its_own_way_runs_attention_through_the_same_quantizers() -> None:
    class TwoWays(Attends):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y if self.training else y.softmax(-1)

    model = tq.quantize(TwoWays("self").eval(), [TOKENS])
    seen: list[str] = []
    for name, module in model.named_modules():
        if type(module).__name__ == "TensorQuantizer" and name.startswith("qdq."):
            module.register_forward_hook(lambda *_, name=name: seen.append(name))
    in_evaluation = (model(TOKENS), sorted(set(seen)))[1]
    seen.clear()
    model.train()(TOKENS).sum().backward()
    assert sorted(set(seen)) == in_evaluation
