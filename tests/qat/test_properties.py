"""What holds for any numbers: Q/DQ arithmetic, masks, histograms, scales behind a norm, pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("hypothesis", reason="hypothesis is not installed: pip install -e '.[dev]'")
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.qat.quantizers.test_fake_quant import quantize_linear
from trt_qat.qat.histogram import Histogram
from trt_qat.qat.quantizers.fake_quant import (
    activation_quantizer,
    fake_quantize,
    scale_of,
    weight_quantizer,
)
from trt_qat.qat.quantizers.folded_grid import factor_of, set_folded
from trt_qat.qat.sparsify import sparsify
from trt_qat.qat.step_feed import Part, pieces_of

EXAMPLES = settings(max_examples=30, deadline=None, derandomize=True)
FLOATS = st.floats(-(2.0**20), 2.0**20, width=32, allow_subnormal=False)
AMAX = st.floats(2.0**-20, 2.0**20, width=32)


def tensor_of(*shape: int) -> st.SearchStrategy[torch.Tensor]:
    return arrays.arrays(np.float32, shape, elements=FLOATS).map(torch.from_numpy)


@EXAMPLES
@given(tensor_of(3, 8), AMAX, st.booleans())
def test_fake_quantization_is_that_of_the_operators_to_the_last_bit(
    x: torch.Tensor, amax: float, of_weight: bool
) -> None:
    quantizer: Any = weight_quantizer(None) if of_weight else activation_quantizer()
    quantizer.amax = torch.tensor(amax)
    made = fake_quantize(x.clone(), quantizer)
    scale = scale_of(quantizer)
    codes = torch.round(made / scale)
    assert float(codes.min()) >= (-127 if of_weight else -128)
    assert float(codes.max()) <= 127
    if not of_weight:  # what clips at -127 is stored as its codes, and quantized by no operator
        torch.testing.assert_close(made, quantize_linear(x, scale, None), rtol=0, atol=0)
    torch.testing.assert_close(fake_quantize(made.clone(), quantizer), made, rtol=0, atol=0)
    trained = x.clone().requires_grad_()
    torch.testing.assert_close(fake_quantize(trained, quantizer).detach(), made, rtol=0, atol=0)


@EXAMPLES
@given(tensor_of(8, 32))
def test_a_mask_keeps_the_two_largest_of_every_four(weight: torch.Tensor) -> None:
    layer = nn.Linear(32, 8)
    layer.weight.data = weight.clone()
    model: Any = sparsify(nn.Sequential(layer), spec={"skip_first": False})
    kept = model[0].weight.detach().reshape(-1, 4).abs()
    largest = weight.reshape(-1, 4).abs().topk(2).values.sum(1)
    assert int((kept != 0).sum(1).max()) <= 2
    torch.testing.assert_close(kept.sum(1), largest)


@EXAMPLES
@given(st.lists(tensor_of(7), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_no_order_of_batches_changes_a_histogram(batches: list[torch.Tensor], draw: Any) -> None:
    one, other, whole = Histogram(), Histogram(), Histogram()
    for batch in batches:
        one.add(batch)
    for batch in draw.sample(batches, len(batches)):
        other.add(batch)
    whole.add(torch.cat(batches))
    for found in (other, whole):
        assert torch.equal(found.counts, one.counts)
        assert (found.amax, found.end) == (one.amax, one.end)
    assert int(one.counts.sum()) == 7 * len(batches)


@EXAMPLES
@given(tensor_of(4, 6), arrays.arrays(np.float32, (2, 4), elements=st.floats(0.125, 8, width=32)))
def test_codes_behind_a_norm_are_those_of_the_folded_weight(
    weight: torch.Tensor, statistics: np.ndarray
) -> None:
    assume(float(weight.abs().max()) > 2.0**-10)
    norm = nn.BatchNorm1d(4)
    norm.running_var = torch.from_numpy(statistics[0].copy())
    norm.weight.data = torch.from_numpy(statistics[1]) * torch.tensor([1.0, -1.0, 1.0, -1.0])
    quantizer: Any = weight_quantizer(None)
    quantizer.amax = set_folded(quantizer, weight, norm)
    factor = factor_of(quantizer)
    assert factor is not None
    step = float(quantizer.amax) / 127
    exact = weight.double() * factor.double()[:, None] / step
    codes = torch.round(weight.double() / scale_of(quantizer).double()[:, None])
    away_from_ties = (exact - exact.floor() - 0.5).abs() > 1e-3
    assert torch.equal(codes[away_from_ties], exact.round()[away_from_ties])
    assert float(codes.abs().max()) == 127


@EXAMPLES
@given(st.integers(1, 40), st.integers(1, 50))
def test_pieces_of_a_batch_are_even_and_lose_nothing(samples: int, count: int) -> None:
    numbers = torch.arange(samples)
    pieces = pieces_of(Part({"x": numbers}, numbers, samples), count)
    assert len(pieces) == min(count, samples)
    assert torch.equal(torch.cat([piece.inputs["x"] for piece in pieces]), numbers)
    assert torch.equal(torch.cat([piece.targets for piece in pieces]), numbers)
    assert max(p.count for p in pieces) - min(p.count for p in pieces) <= 1
