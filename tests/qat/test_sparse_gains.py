"""``sparsity.where = "gains"``: dense where preflight expects nothing of 2:4, and why."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import trt_qat as tq
from trt_qat.errors import InputError
from trt_qat.qat.predicted import by_module, predict
from trt_qat.qat.sparsify import sparse_layers

BATCH = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
WIDE, NARROW = "2", "4"
GAINS = {"where": "gains"}


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(),
        nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(),
        nn.Conv2d(128, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    ).eval()  # fmt: skip


def why(model: nn.Module) -> dict[str, str]:
    return {note.name: note.why for note in tq.report_of(model).skipped}


@pytest.fixture(scope="module")
def gains() -> nn.Module:
    return tq.sparsify(net(), BATCH, GAINS, target="orin-agx")


def test_a_layer_stays_dense_where_no_sparse_kernel_is_expected(gains: nn.Module) -> None:
    assert sparse_layers(tq.sparsify(net(), BATCH, target="orin-agx")) == (WIDE, NARROW)
    assert sparse_layers(gains) == (WIDE,)
    expected = "no gain expected on orin-agx: 32 outputs a group, below 64"
    assert why(gains)[NARROW].startswith(expected)
    assert not hasattr(gains.get_submodule(NARROW), "_weight_mask")


def test_preflight_then_finds_no_layer_that_holds_2_4_for_nothing(gains: nn.Module) -> None:
    report = predict(tq.quantize(copy.deepcopy(gains), [BATCH]), BATCH, "orin-agx")
    assert report.summary["sparse_found"] == report.summary["sparse_likely"] == 1
    assert set(by_module(report, [WIDE, NARROW])) == {WIDE, NARROW}


def test_without_a_target_the_sizes_decide_alone() -> None:
    assert sparse_layers(tq.sparsify(net(), BATCH, GAINS)) == (WIDE,)


def test_on_a_device_without_sparse_cores_everything_stays_dense() -> None:
    model = tq.sparsify(net(), BATCH, GAINS, target="t4")
    assert sparse_layers(model) == ()
    assert "the target has no 2:4 tensor cores" in why(model)[WIDE]


def test_where_q_and_dq_go_has_a_say() -> None:
    placed = {"sparse_epilogue": False, "exclude": [NARROW]}  # so that the wide layer writes float
    model = tq.sparsify(net(), BATCH, GAINS, quantize=placed)
    assert "the epilogue is not INT8" in why(model)[WIDE]


@pytest.mark.slow
def test_a_layer_that_is_called_twice_is_judged_by_both_calls() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.again(self.again(self.first(x)).relu()).relu().mean((2, 3))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model = tq.sparsify(Twice().eval(), BATCH, GAINS)
    found = by_module(predict(tq.quantize(model, [BATCH]), BATCH, "l4"), ["again"])
    assert len(found["again"].fates) == len(found["again"].rows) == 2


@pytest.mark.slow
def test_a_batch_makes_the_floor_of_a_layer_higher(gains: nn.Module) -> None:
    one, many = (predict(gains, BATCH, "orin-agx", batch=size) for size in (1, 64))
    assert one.roofline is not None
    assert many.roofline is not None
    assert many.roofline.floor_us > 30 * one.roofline.floor_us


def test_what_it_needs_is_asked_for() -> None:
    with pytest.raises(InputError, match='where = "gains" needs example_inputs'):
        tq.sparsify(net(), None, GAINS)
    with pytest.raises(InputError, match="orin-agx"):
        tq.sparsify(net(), BATCH, GAINS, target="orin-axg")
