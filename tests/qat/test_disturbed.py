"""A network is its own measure of what a little may move: deep ones much, a wrong scale more."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import trt_qat as tq
from tests.models import REFERENCE, outputs_of
from tests.qat.disturbed import floors_of
from trt_qat.measure.metrics import sqnr_db
from trt_qat.qat.calibrate import set_amax
from trt_qat.qat.quantize import quantized, ranges_of


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("resnet18", 9.0, 17.0), ("yolo_dfl", 13.0, 22.0), ("vit", 30.0, 40.0), ("bert", 34.0, 46.0)],
)
def test_a_network_is_its_own_measure(name: str, low: float, high: float) -> None:
    reference = REFERENCE[name]
    inputs = reference.example_inputs(8)
    model = tq.quantize(reference.build(), [inputs])
    before = copy.deepcopy(model.state_dict())
    floors = floors_of(model, model, inputs)
    assert all(low < floor < high for floor in floors), floors
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    # What is wrong is below it: the range of one tensor that ends at an eighth.
    with torch.no_grad():
        wanted = outputs_of(model(*inputs))
        first, amax = next(iter(ranges_of(model).amax.items()))
        set_amax(quantized(model).placed.activations[first], amax / 8)
        got = outputs_of(model(*inputs))
    each = zip(wanted, got, floors, strict=True)
    assert all((sqnr_db(a.numpy(), b.numpy()) or np.inf) < floor - 1 for a, b, floor in each)
