"""Which weights 2:4 keeps by each method, and channels put in the order that keeps most."""

from __future__ import annotations

import copy
import itertools
from typing import Any, cast

import pytest
import torch
from modelopt.torch.sparsity.weight_sparsity.magnitude import create_asp_mask
from torch import Tensor, nn

import trt_qat as tq
from trt_qat.errors import InputError
from trt_qat.qat.masked import masked_layers
from trt_qat.qat.masks import as_rows, magnitude_mask, mask_of
from trt_qat.qat.models import residual_cnn
from trt_qat.qat.permute import best_order, permute_channels


def net() -> nn.Module:
    torch.manual_seed(0)
    return residual_cnn(num_classes=8, widths=(32, 64)).eval()


def batches() -> list[Tensor]:
    """Inputs whose neighbours are alike, as those of pictures are."""
    noise = torch.randn(32, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    return list(torch.split(nn.functional.avg_pool2d(noise, 3, 1, 1), 16))


def pruned(model: nn.Module, **spec: Any) -> nn.Module:
    return tq.sparsify(copy.deepcopy(model), batches()[0][:2], spec, calibration_batches=batches())


def error(model: nn.Module, reference: nn.Module) -> float:
    given = torch.cat(batches())
    with torch.no_grad():
        return float((model(given) - reference(given)).square().mean())


@pytest.mark.parametrize("shape", [(16, 32), (8, 16, 3, 3)])
def test_masks_by_magnitude_are_those_of_modelopt(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(magnitude_mask(weight), create_asp_mask(weight, "2:4 sparsity").bool())


def test_two_of_four_stay_whatever_is_equal() -> None:
    scores = torch.randint(0, 3, (4096, 4), generator=torch.Generator().manual_seed(0))
    kept = mask_of(scores)
    assert torch.equal(kept.sum(1), torch.full((4096,), 2))
    assert torch.equal((scores * kept).sum(1), scores.topk(2, 1).values.sum(1))


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_a_method_that_looks_at_inputs_loses_less_of_the_output(method: str) -> None:
    model = net()
    with torch.no_grad():  # channels whose sizes differ, which magnitudes do not see
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.weight.mul_(torch.logspace(-1, 1, len(norm.weight)))
    found, plain = pruned(model, method=method), pruned(model)
    assert error(found, model) < 0.7 * error(plain, model)
    for layer in masked_layers(found).values():
        mask: Any = layer._weight_mask
        assert int(as_rows(mask).reshape(-1, 4).sum(1).max()) == 2


def test_a_method_that_looks_at_inputs_needs_them() -> None:
    with pytest.raises(InputError, match=r"method = 'wanda' .* give calibration_batches"):
        tq.sparsify(net(), batches()[0], {"method": "wanda"})
    with pytest.raises(InputError, match="permute needs example_inputs"):
        tq.sparsify(net(), None, {"permute": True})


def test_an_order_of_channels_keeps_more_and_is_a_permutation() -> None:
    weight = torch.randn(128, 64, generator=torch.Generator().manual_seed(0)).abs()
    order = best_order(weight)
    assert torch.equal(order.sort().values, torch.arange(64))

    def kept(values: Tensor) -> float:
        return float((values * mask_of(values)).sum())

    free = float(weight.topk(32, 1).values.sum())  # two of four anywhere in the row
    assert kept(weight[:, order]) - kept(weight) > 0.3 * (free - kept(weight))


@pytest.mark.parametrize("groups", [2, 5, 6])
def test_every_pair_of_groups_meets_in_one_sweep(groups: int) -> None:
    """Four columns that are large in one group belong two by two into both."""
    sweep = groups - 1 + groups % 2
    for one, other in itertools.combinations(range(groups), 2):
        weight = torch.zeros(1, 4 * groups)
        weight[0, 4 * one : 4 * one + 4] = 1.0
        weight += 2.0 * (torch.arange(4 * groups) // 4 != one) * (torch.arange(4 * groups) % 4 < 2)
        weight[0, 4 * other : 4 * other + 2] = 0.0  # the one group with room
        order = best_order(weight, rounds=sweep)
        assert float((weight[:, order] * mask_of(weight[:, order])).sum()) == weight.sum()


class Mixed(nn.Module):
    """Depthwise and gated layers, a residual sum, and a concatenation that fixes an order."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU6())
        self.depth = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.SiLU())
        self.point = nn.Conv2d(32, 32, 1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 32, 1), nn.Sigmoid())
        self.after = nn.Conv2d(64, 32, 1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.point(self.depth(x))
        x = x * self.gate(x)
        found: Tensor = self.head(self.after(torch.cat([x, x], 1)))
        return found


@pytest.mark.parametrize("make", [net, lambda: Mixed().eval()])
def test_another_order_of_channels_is_the_same_function(make: Any) -> None:
    model = make()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
    given = torch.randn(2, 1 if make is net else 3, 16, 16)
    layers = [n for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    other = copy.deepcopy(model)
    moved = permute_channels(other, given, layers).readers
    assert moved
    with torch.no_grad():
        wanted, got = model(given), other(given)
    assert float((got - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


def test_channels_that_a_concatenation_fixes_stay_where_they_are() -> None:
    model = Mixed().eval()
    moved = permute_channels(model, torch.randn(2, 3, 16, 16), ["after", "point", "head.2"]).readers
    assert "after" not in moved
    assert "head.2" in moved


def test_permuting_before_pruning_keeps_more_and_is_reported() -> None:
    model = net()
    found = pruned(model, permute=True)
    assert tq.report_of(found).permuted
    assert tq.report_of(pruned(model)).permuted == ()

    def kept(sparse: nn.Module) -> float:
        each = masked_layers(sparse).values()
        weights = [cast("torch.Tensor", layer.weight).detach() for layer in each]
        return float(sum(weight.abs().sum() for weight in weights))

    assert kept(found) > 1.005 * kept(pruned(model))
