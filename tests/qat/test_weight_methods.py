"""How weights of four bits are chosen: GPTQ, AWQ and its clipped ranges, in each format."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from modelopt.torch.quantization.nn import TensorQuantizer
from onnx import numpy_helper
from torch import Tensor, nn

import trt_qat as tq
from tests.qat.test_placement_rules import net
from tests.qat.test_weight_only import WIDE, encoder, error, rows
from trt_qat.graph.qdq import Graph
from trt_qat.qat.clip import PARTS, clipped
from trt_qat.qat.equalize import even_out
from trt_qat.qat.gptq import gptq
from trt_qat.qat.layer_weights import weight_quantizers
from trt_qat.qat.moments import DAMPING, Moments
from trt_qat.qat.quantize import quantized
from trt_qat.qat.quantizers.formats import INT4, NVFP4, Format, block_scale
from trt_qat.qat.smooth import SmoothedLinear
from trt_qat.recipe.specs import PtqSpec, QuantizeSpec

E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
BLOCKS = {INT4: 64, NVFP4: 16}


def made(kind: Format, method: str, **more: Any) -> nn.Module:
    spec = {"format": kind.name, f"{kind.name}_method": method, "int4_block": 64, "heads": "int8"}
    ptq = more.pop("ptq", {})
    return tq.quantize(encoder(), list(torch.split(rows(), 16)), spec=spec | more, ptq=ptq)


def moments_of(inputs: Tensor) -> Moments:
    columns = inputs.shape[1]
    found = Moments(torch.zeros(1, columns, columns), torch.zeros(1, columns))
    found.add(inputs.T[None])
    return found


def wide_weight(outputs: int = 6, columns: int = 64) -> tuple[Tensor, Tensor]:
    """A weight with some far larger elements, and inputs whose columns go together."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(outputs, columns, generator=generator)
    weight[torch.rand(weight.shape, generator=generator) > 0.97] *= 4
    mixed = torch.randn(200, 24, generator=generator)
    return weight, mixed @ torch.randn(24, columns, generator=generator)


@pytest.fixture(scope="module", params=[INT4, NVFP4], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Format:
    return cast("Format", request.param)


@pytest.fixture(scope="module")
def nearest(kind: Format) -> nn.Module:
    return made(kind, "round-to-nearest")


@pytest.fixture(scope="module")
def by_gptq(kind: Format) -> nn.Module:
    return made(kind, "gptq")


@pytest.fixture(scope="module")
def by_awq(kind: Format) -> nn.Module:
    return made(kind, "awq")


def test_each_method_loses_less_than_rounding_to_the_nearest(
    nearest: nn.Module, by_gptq: nn.Module, by_awq: nn.Module
) -> None:
    assert error(by_gptq) < 0.7 * error(nearest)
    assert error(by_awq) < 0.85 * error(nearest)
    assert any(isinstance(module, SmoothedLinear) for module in by_awq.modules())


def test_what_gptq_wrote_is_what_is_rounded_to_and_stored(
    kind: Format, by_gptq: nn.Module, tmp_path: Path
) -> None:
    """Bit for bit: by the quantizer, on the plain grid, and read out of the file."""
    path = tq.export(by_gptq, rows(4), tmp_path / "model.onnx")
    graph = Graph.from_file(path)
    stored = {t.name: t for t in onnx.load(path).graph.initializer}
    for name, layer, quantizer in weight_quantizers(by_gptq):
        weight = cast("Tensor", layer.weight).detach()
        assert torch.equal(quantizer(weight), weight)
        (node,) = [node for node in graph.nodes if node.name == name]
        found = graph.weight(node)
        assert found is not None
        assert found.dequantize is not None
        codes = numpy_helper.to_array(stored[found.initializer]).astype(np.float32)
        if kind is NVFP4:
            assert np.isin(np.abs(codes), E2M1.numpy()).all()
            maker = graph.producer(found.dequantize.input(1))
            assert maker is not None
            blocks, whole = (numpy_helper.to_array(stored[maker.input(i)]) for i in (0, 1))
            scale = blocks.astype(np.float32) * whole
        else:
            scale = numpy_helper.to_array(stored[found.dequantize.input(1)])
        decoded = codes * scale.repeat(BLOCKS[kind], 0)  # a product of rank 3: outputs come last
        assert np.array_equal(decoded.T, weight.numpy())


def by_plain_gptq(weight: Tensor, inputs: Tensor, mask: Tensor, kind: Format) -> Any:
    """OBQ's updates of the rest of a row by the whole inverse, in double, with no Cholesky."""
    block, values = BLOCKS[kind], weight.double().numpy().copy()
    second = (inputs.double().T @ inputs.double() / len(inputs)).numpy()
    second += np.eye(len(second)) * DAMPING * np.trace(second) / len(second)
    inverse, widest = np.linalg.inv(second), weight.abs().max()
    first = weight.reshape(len(weight), -1, block).abs().amax(2)
    for at in range(weight.shape[1]):
        if at % block == 0:
            kept = torch.from_numpy(values[:, at : at + block]) * mask[:, at : at + block]
            amax = kept.abs().amax(1).float()
            if kind is NVFP4:  # E4M3 times one number, at whose top the widest block is
                amax = torch.where(first[:, at // block] == widest, widest, amax.minimum(widest))
                whole = widest / 6 / 448
                scale = (amax / 6 / whole).to(torch.float8_e4m3fn).float() * whole
            else:
                scale = amax / 7
        quotient = torch.from_numpy(values[:, at]) / scale
        if kind is NVFP4:
            code = E2M1[(quotient.abs()[:, None] - E2M1).abs().argmin(1)] * quotient.sign()
        else:
            code = quotient.round().clamp(-7, 7)
        new = (code * scale * mask[:, at]).numpy()
        lost = (values[:, at] - new) / inverse[at, at]
        values[:, at:] -= lost[:, None] * inverse[at, at:]
        values[:, at] = new
        inverse = inverse - np.outer(inverse[:, at], inverse[at]) / inverse[at, at]
    return values


@pytest.mark.parametrize("sparse", [False, True])
def test_gptq_is_the_plain_walk(kind: Format, sparse: bool) -> None:
    weight, inputs = wide_weight()
    mask = (torch.arange(64) % 4 < 2).float().expand(6, 64) if sparse else torch.ones(6, 64)
    weight = weight * mask
    given = mask if sparse else None
    values, amax = gptq(weight, moments_of(inputs), given, BLOCKS[kind], kind)
    wanted = by_plain_gptq(weight, inputs, mask, kind)
    same = np.isclose(values.numpy(), wanted, atol=1e-5).mean()
    assert same > 0.97, "but for ties of float32, and what follows from one"
    assert not bool((values * (1 - mask)).any())
    scale = block_scale(kind, amax).repeat_interleave(BLOCKS[kind], 1)
    assert torch.equal(kind.rounded(values / scale, of_weight=True) * scale, values)


def output_error(row: Tensor, inputs: Tensor, ends: Tensor, kind: Format, widest: Tensor) -> float:
    """Of one output channel, by the outputs themselves and in double, dampened as in the search."""
    scale = block_scale(kind, ends, widest).repeat_interleave(len(row) // len(ends))
    lost = (kind.rounded(row / scale, of_weight=True) * scale - row).double()
    power = inputs.double().square().mean()
    return float((inputs.double() @ lost).square().mean() + DAMPING * power * lost.square().sum())


def test_no_other_range_of_those_tried_would_be_better(kind: Format) -> None:
    weight, inputs = wide_weight()
    amax = weight.reshape(6, 4, 16).abs().amax(2)
    widest, gained = amax.max(), 0
    found = clipped(weight, moments_of(inputs), amax, kind)
    for row, ends, chosen in zip(weight, amax, found, strict=True):
        error = output_error(row, inputs, chosen, kind, widest)
        gained += error < output_error(row, inputs, ends, kind, widest)
        for at, part in itertools.product(range(4), PARTS):
            other = chosen.clone()
            other[at] = ends[at] * part
            if kind is NVFP4 and ends[at] == widest:
                assert chosen[at] == widest
            else:
                assert output_error(row, inputs, other, kind, widest) > error * (1 - 1e-5)
    assert gained >= 5


def test_ranges_do_not_depend_on_how_many_rows_are_searched_at_once(
    kind: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, inputs = wide_weight(7)
    amax = weight.reshape(7, -1, 16).abs().amax(2)
    whole = clipped(weight, moments_of(inputs), amax, kind)
    monkeypatch.setattr("trt_qat.qat.clip.AT_ONCE", 2 * 64)
    assert torch.equal(clipped(weight, moments_of(inputs), amax, kind), whole)


def test_awq_ends_ranges_before_the_largest_weight_and_trains_them(
    kind: Format, by_awq: nn.Module
) -> None:
    spec = QuantizeSpec.model_validate(
        {
            **{"format": kind.name, "int4_block": 64, "heads": "int8"},
            **{"int4_method": "awq", "nvfp4_method": "awq"},
        }
    )
    scaled = encoder()
    even_out(
        scaled, list(torch.split(rows(), 16)), spec.model_copy(update={"heads": "int8"}), PtqSpec()
    )
    model = copy.deepcopy(by_awq)
    weights = {id(p): (n, p) for n, p in model.named_parameters()}
    clips = 0
    for quantizer, weight in all_weights(model):
        name, parameter = weights[id(weight)]
        before = scaled.get_parameter(name).reshape(len(weight), -1, BLOCKS[kind]).abs().amax(2)
        amax = cast("Tensor", quantizer.amax)
        assert bool((amax <= before * (1 + 1e-6)).all())
        clips += int((amax < 0.99 * before).sum())
        found = parameter.reshape(len(weight), -1, BLOCKS[kind]).abs().amax(2)
        assert bool((found <= 1.07 * amax).all()), "a scale in E4M3 may be 1/16 longer"
        out = quantizer(parameter)
        (gradient,) = torch.autograd.grad(out.sum(), parameter)
        assert bool((gradient == 1).all()), "none is out of range, where it would stand still"
    assert clips > 20


def all_weights(model: nn.Module) -> list[tuple[TensorQuantizer, nn.Parameter]]:
    """Quantizers and parameters of modules and of layers that a traced program calls."""
    ours = [(q, cast("nn.Parameter", m.weight)) for _, m, q in weight_quantizers(model)]
    placed = quantized(model).placed.functional_weights.values()
    return ours + [(cast("TensorQuantizer", q), cast("nn.Parameter", s)) for q, s, _ in placed]


def test_learned_rounding_takes_the_ranges_of_awq(kind: Format, by_awq: nn.Module) -> None:
    assert error(made(kind, "awq", ptq={"rounding": "learned"})) < error(by_awq)


def test_a_method_is_of_its_own_format() -> None:
    both = {"format": "nvfp4", "layers": {"up": "int4"}, "heads": "int8"}
    batches = list(torch.split(rows(), 16))

    def weights(**keys: str) -> dict[str, Tensor]:
        found = tq.quantize(encoder(), batches, spec=both | keys)
        return {name: cast("Tensor", m.weight) for name, m, _ in weight_quantizers(found)}

    floats = {name: encoder().get_parameter(f"{name}.weight") for name in ("up", "down", "head")}
    found = weights(int4_method="gptq")
    assert {name for name, w in found.items() if not torch.equal(w, floats[name])} == {"up"}
    found = weights(nvfp4_method="gptq")
    assert {n for n, w in found.items() if not torch.equal(w, floats[n])} == {"down", "head"}
    assert QuantizeSpec(int4_method="gptq").methods == {}, "of a format that is not used"
    asked = QuantizeSpec(format="nvfp4", nvfp4_method="awq")
    assert asked.methods == {"nvfp4": "awq"}
    assert asked.as_placed().methods == {}


def test_readers_of_one_tensor_in_two_formats_share_the_factors_of_awq() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.norm(x) * m.gain
        return torch.cat([m.a(x), m.b(x)], -1)

    torch.manual_seed(0)
    model = net(forward, norm=nn.LayerNorm(WIDE), a=nn.Linear(WIDE, 64), b=nn.Linear(WIDE, 64))
    model.register_buffer("gain", 1 + 10 * (torch.arange(WIDE) < 8).float())
    spec = {"format": "nvfp4", "layers": {"a": "int4"}, "heads": "int8"}
    with torch.no_grad():
        wanted = model(rows(seed=1))
        losses = []
        for method in ("round-to-nearest", "awq"):
            keys = {"int4_method": method, "nvfp4_method": method}
            made = tq.quantize(copy.deepcopy(model), [rows()], spec=spec | keys)
            losses.append(float((made(rows(seed=1)) - wanted).square().mean()))
    assert losses[1] < 0.9 * losses[0]
