"""Where channels must not be written again: inputs, clips, ties, own code."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trt_qat as tq
from trt_qat.errors import RecipeError
from trt_qat.qat.channels import channel_spaces
from trt_qat.qat.split import SMALLER, _left, split_channels

SILENT = [3, 9]
LOUD = 5


def silenced(layer: Any, bias: float = -1.0) -> Any:
    with torch.no_grad():
        layer.weight[SILENT] = 0.0
        if layer.bias is not None:
            layer.bias[SILENT] = bias
    return layer


def read(layer: Any) -> Any:
    with torch.no_grad():
        layer.weight[:, LOUD] *= 20.0
    return layer


class Net(nn.Module):
    """Layers by name, and a function that calls them."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def samples(seed: int, *, size: float = 1.0) -> Tensor:
    return size * torch.randn(8, 16, 6, 6, generator=torch.Generator().manual_seed(seed))


def rows(seed: int) -> Tensor:
    return torch.randn(8, 5, 16, generator=torch.Generator().manual_seed(seed))


def split(model: nn.Module, given: Tensor, unseen: Tensor) -> list[str]:
    """Split, and require that what no sample showed is answered as before."""
    other = copy.deepcopy(model.eval())
    names = [name for name, m in other.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    moved = split_channels(other, [given], names)
    with torch.no_grad():
        torch.testing.assert_close(other(unseen), model(unseen), rtol=1e-4, atol=1e-4)
    return moved


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def conv(size: int = 16, kernel: int = 1) -> Any:
    return nn.Conv2d(16, size, kernel)


def test_what_the_samples_leave_silent_may_wake() -> None:
    first = conv()
    with torch.no_grad():
        first.weight[SILENT, :15] = 0.0
        first.bias[SILENT] = -0.1
    given = samples(1)
    given[:, 15] = 0.0
    model = nn.Sequential(first, nn.ReLU(), read(conv(8)))
    assert not split(model, given, samples(2))
    assert not split(model, torch.zeros(8, 16, 6, 6), samples(2))


class Rectified(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


def test_a_layer_whose_own_code_rectifies_is_not_silent_by_that() -> None:
    first = Rectified(16, 16, 1)
    with torch.no_grad():
        assert first.bias is not None
        first.bias[SILENT] = -4.0
    model = nn.Sequential(first, read(conv(8)))
    assert not split(model, samples(1, size=0.3), samples(2, size=5.0))


def loud() -> Any:
    layer = silenced(conv())
    with torch.no_grad():
        layer.weight[LOUD] *= 15.0
        layer.bias[7] = 5.5
    return layer


def test_what_a_clip_cuts_off_is_seen_where_it_is_cut() -> None:
    pooled = nn.Sequential(
        loud(), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), read(nn.Linear(16, 8))
    )
    assert not split(pooled, samples(1), samples(2))
    added = Net(
        lambda net, x: net.last(F.relu6(net.a(x)) + F.relu6(net.b(x))),
        a=loud(),
        b=loud(),
        last=read(conv(8)),
    )
    assert not split(added, samples(1), samples(2))


def test_a_channel_is_cut_off_where_one_reader_is_behind_a_clip() -> None:
    first = loud()
    with torch.no_grad():
        first.bias[SILENT], first.bias[7] = 0.0, 200.0
    model = Net(
        lambda net, x: (lambda y: net.a(y) + net.b(F.relu6(y)))(net.first(x)),
        first=first,
        a=read(conv(8)),
        b=read(conv(8)),
    )
    split(model, samples(1), samples(2))


def test_tied_biases_stay() -> None:
    first, second = silenced(conv()), read(conv())
    second.bias = first.bias
    assert not split(
        nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), read(conv(8))), samples(1), samples(2)
    )
    one, other = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
    with torch.no_grad():
        one.bias[SILENT] = -1.0
    other.bias = one.bias
    model = nn.Sequential(
        silenced(conv()), one, nn.ReLU(), read(conv()), other, nn.ReLU(), read(conv(8))
    )
    assert not split(model, samples(1), samples(2))


def test_layers_called_by_name_are_split() -> None:
    model = Net(
        lambda net, x: net.last(input=net.first(input=x).relu()),
        first=silenced(conv()),
        last=read(conv(8)),
    )
    assert split(model, samples(1), samples(2)) == ["first"]
    ptq = {"split": True, "equalize": True}
    found = tq.quantize(model, samples(1), spec={"heads": "int8"}, ptq=ptq)
    assert "first" in tq.report_of(found).moved


class Gained(nn.Conv2d):
    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        return F.conv2d(x, self.weight, self.bias) * gain


def test_layers_with_more_than_one_argument_are_called_with_them() -> None:
    model = Net(
        lambda net, x: (lambda y: net.last(y, gain=3.0) + net.other(gain=0.5, x=y))(
            net.first(x).relu()
        ),
        first=silenced(conv()),
        last=read(Gained(16, 8, 1)),
        other=Gained(16, 8, 1),
    )
    assert split(model, samples(1), samples(2)) == ["first"]


def test_layers_whose_weights_a_function_reads_stay() -> None:
    model = Net(
        lambda net, x: F.linear(
            F.linear(x, net.first.weight, net.first.bias).relu(), net.last.weight, net.last.bias
        ),
        first=silenced(nn.Linear(16, 16)),
        last=read(nn.Linear(16, 16)),
    )
    assert not split(model, rows(1), rows(2))


class Clipping(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.relu6(x), self.weight, self.bias)


def test_a_layer_whose_own_code_clips_before_it_reads_stays() -> None:
    first = loud()
    with torch.no_grad():
        first.bias[SILENT], first.bias[7] = 0.0, 200.0
    assert not split(nn.Sequential(first, read(Clipping(16, 8, 1))), samples(1), samples(2))


def test_small_copies_have_more_noise() -> None:
    left = _left(20)
    assert float(left[1]) == 1.0
    assert float(left[2]) == pytest.approx((1 + SMALLER**-2) / 4)
    assert int(left[1:].argmin()) + 1 < 6
    first = nn.Conv2d(16, 16, 1)
    silent = [i for i in range(16) if i != LOUD]
    with torch.no_grad():
        first.weight[silent] = 0.0
        assert first.bias is not None
        first.bias[silent] = -1.0
    other = nn.Sequential(first, nn.ReLU(), conv(8)).eval()
    assert split_channels(other, [samples(1)], ["0", "2"])
    assert 1 < int((first.weight.flatten(1).abs().amax(1) > 0).sum()) < 6


def test_a_gradient_that_is_no_number_decides_nothing() -> None:
    model = Net(
        lambda net, x: net.last(net.first(x).relu()).relu().sqrt(),
        first=silenced(conv()),
        last=read(conv(8)),
    )
    assert split(model, samples(1), samples(2)) == ["first"]


def test_a_gate_of_one_for_all_channels_is_no_part_of_them() -> None:
    model = Net(
        lambda net, x: net.last(net.mid(net.first(x).relu()).relu() * net.gate(x).sigmoid()),
        first=silenced(nn.Linear(16, 16)),
        mid=silenced(nn.Linear(16, 16)),
        gate=nn.Linear(16, 1),
        last=read(nn.Linear(16, 16)),
    )
    assert split(model, rows(1), rows(2)) == ["first"]


@pytest.mark.parametrize("purpose", ["order", "scale"])
@pytest.mark.parametrize("pool", [nn.MaxPool1d(3, 1, 1), nn.AvgPool1d(3, 1, 1)], ids=str)
def test_a_pool_over_the_last_axis_mixes_the_channels_of_linear_layers(
    pool: nn.Module, purpose: Any
) -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), pool, nn.Linear(16, 16)).eval()
    assert not channel_spaces(model, rows(1), purpose)


def test_a_mean_over_the_last_axis_has_no_channels() -> None:
    model = Net(
        lambda net, x: net.last(net.first(x).mean(-1, keepdim=True)),
        first=nn.Linear(16, 16),
        last=nn.Linear(1, 16),
    )
    assert not channel_spaces(model.eval(), rows(1), "scale")


def test_images_without_a_batch_have_no_channels() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    assert not channel_spaces(model, torch.randn(3, 8, 8), "order")


def test_a_bias_of_another_layer_is_not_divided() -> None:
    model = Net(
        lambda net, x: net.last(F.linear(x, net.first.weight, net.other.bias)),
        first=nn.Linear(16, 16),
        other=nn.Linear(16, 16),
        last=nn.Linear(16, 16),
    )
    assert not channel_spaces(model.eval(), rows(1), "scale")


@pytest.mark.parametrize("ptq", [{"split": True}, {"equalize": True}], ids=str)
def test_blocks_and_activations_of_other_channels_are_not_compared(ptq: dict[str, bool]) -> None:
    norm = nn.BatchNorm2d(16)
    with torch.no_grad():
        norm.bias[SILENT] = -1.0
    block = nn.Sequential(silenced(conv()), norm)
    teacher = nn.Sequential(block, nn.ReLU(), read(conv()), nn.ReLU(), conv(8)).eval()
    student = tq.quantize(copy.deepcopy(teacher), samples(1), ptq=ptq)
    assert {"0", "0.1", "1"} <= set(tq.report_of(student).moved)
    for feature in ("0", "1"):
        with pytest.raises(RecipeError, match=rf"what {feature} write has other channels"):
            tq.Distillation(student, teacher, {"feature_weight": 1.0, "features": [feature]})


def test_what_permuting_passes_through_is_not_compared() -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(16, 32, 1), nn.BatchNorm2d(32)), nn.ReLU(), nn.Conv2d(32, 32, 1)
    ).eval()
    tq.sparsify(model, samples(1), {"permute": True, "skip_first": False})
    assert {"0", "0.1", "1"} <= set(tq.report_of(model).moved)
