"""Costly channels written again in the room of channels that never say anything."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trt_qat as tq
from trt_qat.errors import RecipeError
from trt_qat.qat.permute import permute_channels
from trt_qat.qat.split import split_channels

SILENT = (3, 9, 14, 20)
LOUD = 5


def net(activation: type[nn.Module] = nn.ReLU6) -> nn.Sequential:
    """Return a stem, a depthwise layer and a pointwise one; four channels of the stem are silent.

    Of channel ``LOUD`` the layers behind make more than of all the others.
    """
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        activation(),
        nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False),
        nn.BatchNorm2d(32),
        activation(),
        nn.Conv2d(32, 8, 1),
    )
    stem, norm, point = (part(made, at) for at in (0, 1, 6))
    with torch.no_grad():
        stem.weight[list(SILENT)] = 0.0
        norm.bias[list(SILENT)] = -1.0
        norm.weight[LOUD] *= 0.7
        point.weight[:, LOUD] = torch.tensor([-2.0, 3.0, 2.5, -3.0, 2.0, 3.5, -2.5, 2.0])[
            :, None, None
        ]
    return made.eval()


def part(model: nn.Module, at: int | slice) -> Any:
    assert isinstance(model, nn.Sequential)
    return model[at]


def inputs(count: int = 16, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def layers(model: nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


def split(model: nn.Module) -> tuple[nn.Module, list[str]]:
    other = copy.deepcopy(model)
    return other, split_channels(other, [inputs()], layers(other))


def furthest(model: nn.Module, other: nn.Module, given: Tensor) -> float:
    with torch.no_grad():
        return float((model(given) - other(given)).abs().max())


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6])
def test_the_function_stays_and_silent_channels_speak(activation: type[nn.Module]) -> None:
    model = net(activation)
    other, moved = split(model)
    assert moved == ["0", "1", "3", "4"]
    assert furthest(model, other, inputs(seed=2)) < 1e-5
    stem = part(other, 0)
    copies = [place for place in SILENT if torch.equal(stem.weight[place], stem.weight[LOUD])]
    assert copies


def test_copies_are_of_other_sizes() -> None:
    other, _ = split(net())
    with torch.no_grad():
        found = part(other, slice(3))(inputs())
    stem = part(other, 0)
    same = [i for i in range(32) if torch.equal(stem.weight[i], stem.weight[LOUD])]
    sizes = [float(found[:, i].max()) for i in same]
    assert len(same) > 1
    assert len({round(size, 4) for size in sizes}) == len(sizes)


def test_int8_loses_less() -> None:
    model = net()

    def lost(**ptq: bool) -> float:
        spec = {"heads": "int8", "zero_point": "padded"}
        found = tq.quantize(copy.deepcopy(model), inputs(), spec=spec, ptq=ptq)
        with torch.no_grad():
            return float((found(inputs(seed=3)) - model(inputs(seed=3))).square().mean())

    assert lost(split=True) < 0.8 * lost()


def test_a_channel_that_spoke_or_could_is_not_written_over() -> None:
    model = net()
    with torch.no_grad():
        stem = part(model, 0)
        stem.weight[list(SILENT)] = 1e-3 * torch.randn(4, 3, 3, 3)  # negative behind the norm still
        behind = model[:3](inputs())[:, list(SILENT)]
    assert float(behind.max()) == 0.0
    other, moved = split(model)
    assert not moved
    assert furthest(model, other, inputs()) == 0.0


def test_a_channel_that_a_clip_cuts_off_has_no_smaller_copy() -> None:
    model = net()
    with torch.no_grad():
        norm = part(model, 1)
        norm.weight[LOUD] *= 20
    other, _ = split(model)
    stem = part(other, 0)
    assert not any(torch.equal(stem.weight[place], stem.weight[LOUD]) for place in SILENT)
    assert furthest(model, other, inputs(seed=2)) < 1e-5


def test_an_activation_that_is_not_straight_has_no_copies() -> None:
    other, moved = split(net(nn.SiLU))
    assert not moved
    assert furthest(net(nn.SiLU), other, inputs()) == 0.0


def test_layers_that_hold_masks_stay() -> None:
    model = tq.sparsify(net(), inputs(2), {"skip_first": False})
    assert not split_channels(model, [inputs()], layers(model))


def test_what_is_not_quantized_is_not_split() -> None:
    model = net()
    assert not split_channels(model, [inputs()], [])


def test_a_layer_norm_over_the_channels_keeps_them() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 8)).eval()
    with torch.no_grad():
        part(model, 0).weight[4] = 0.0
        part(model, 1).weight[4] = 0.0
        part(model, 1).bias[4] = -1.0
    other = copy.deepcopy(model)
    assert not split_channels(other, [torch.randn(64, 16)], ["0", "3"])


def features_lost(student: nn.Module, teacher: nn.Module) -> float:
    how = {"match": "none", "feature_weight": 1.0}
    with torch.no_grad(), tq.Distillation(student.eval(), teacher, how) as loss:
        return float(loss(inputs(), student(inputs())))


@pytest.mark.parametrize("ptq", [{"split": True}, {"equalize": True}], ids=str)
def test_inner_tensors_of_other_channels_are_not_compared(ptq: dict[str, bool]) -> None:
    teacher = net(nn.ReLU)
    last = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    teacher = nn.Sequential(*teacher, *last).eval()
    spec = {"heads": "int8"}
    student = tq.quantize(copy.deepcopy(teacher), inputs(), spec=spec, ptq=ptq)
    assert "1" in tq.report_of(student).moved
    plain = tq.quantize(copy.deepcopy(teacher), inputs(), spec=spec)
    assert features_lost(student, teacher) < 4 * features_lost(plain, teacher)


def test_channels_in_another_order_are_not_compared() -> None:
    teacher = net(nn.ReLU)
    last = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    teacher = nn.Sequential(*teacher, *last).eval()
    student = copy.deepcopy(teacher)
    moved = permute_channels(student, inputs(2), ["6"]).writers
    assert {"1", "4"} <= set(moved)
    assert features_lost(student, teacher) > 1e-3
    tq.report_of(student).moved = moved
    assert features_lost(student, teacher) < 1e-9


def test_features_that_are_all_of_other_channels_are_refused_by_name() -> None:
    teacher = net(nn.ReLU)
    student = tq.quantize(copy.deepcopy(teacher), inputs(), ptq={"split": True})
    with pytest.raises(RecipeError, match=r"what 1 write has other channels .* ptq\.split; name"):
        tq.Distillation(
            student, teacher, {"match": "none", "feature_weight": 1.0, "features": ["1"]}
        )


def test_layers_are_compared_where_all_norms_write_other_channels() -> None:
    teacher = net(nn.ReLU)
    student = copy.deepcopy(teacher)
    tq.report_of(student).moved = ("0", "1", "2", "3", "4", "5")
    assert features_lost(student, teacher) == 0.0  # of the last layer
