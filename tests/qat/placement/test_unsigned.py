"""Which tensors may have a folded zero point: what a layer writes behind a ReLU, for layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.qat.placement.planned import Planned, net


def unsigned(model: nn.Module, zero_point: str = "folded", **spec: Any) -> str:
    plan = Planned(model, zero_point=zero_point, **spec).plan
    return " ".join(sorted(v.node.name for v in plan.unsigned))


def layers(**padding: Any) -> dict[str, nn.Module]:
    first, second = (nn.Conv2d(16, 16, 1) for _ in range(2))
    return {"a": first, "b": second, "c": nn.Conv2d(16, 16, 3, **padding)}


RECTIFIED: dict[str, Any] = {
    "relu": lambda y: y.relu(),
    "relu6": F.relu6,
    "hardtanh": lambda y: F.hardtanh(y, 0.0, 4.0),
    "clamp": lambda y: y.clamp(0, 3),
    "clamp_min": lambda y: torch.clamp(y, min=0),
}


@pytest.mark.parametrize("name", RECTIFIED)
def test_every_way_to_write_a_relu(name: str) -> None:
    rectify = RECTIFIED[name]
    model = net(lambda self, x: self.b(rectify(self.a(self.c(x)))), **layers(padding=1))
    assert len(unsigned(model).split()) == 1


@pytest.mark.parametrize(
    "rectify",
    [
        lambda y: y.clamp(-1, 3),
        lambda y: y.clamp(max=3),
        lambda y: y.sigmoid(),
        lambda y: F.leaky_relu(y),
        lambda y: y.relu() * 2,
    ],
)
def test_anything_else_is_none(rectify: Any) -> None:
    model = net(lambda self, x: self.b(rectify(self.a(self.c(x)))), **layers(padding=1))
    assert unsigned(model, "padded") == ""


@pytest.mark.parametrize(("zero_point", "found"), [("zero", 0), ("folded", 0), ("padded", 1)])
def test_a_reader_that_pads_has_to_be_asked_for(zero_point: str, found: int) -> None:
    model = net(lambda self, x: self.c(self.a(x).relu()), **layers(padding=1))
    assert len(unsigned(model, zero_point).split()) == found


def test_a_reader_without_padding_and_one_with_are_one_reader_that_pads() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        return self.b(y) + self.c(y)  # type: ignore[no-any-return]

    model = net(forward, **layers(padding=1))
    assert unsigned(model) == ""
    assert unsigned(model, "padded") == "relu"


@pytest.mark.parametrize(
    ("zero_point", "pad"), [("folded", (1, 1, 1, 1)), ("padded", (1, 1, 1, 1))]
)
def test_a_pad_of_its_own_is_a_padding(zero_point: str, pad: tuple[int, ...]) -> None:
    model = net(lambda self, x: self.c(F.pad(self.a(x).relu(), pad)), **layers())
    assert (unsigned(model, zero_point) != "") is (zero_point == "padded")


@pytest.mark.parametrize("padding_mode", ["reflect", "replicate", "circular"])
def test_a_padding_that_repeats_values_is_a_node_between_and_stays_symmetric(
    padding_mode: str,
) -> None:
    parts = layers(padding=1, padding_mode=padding_mode)
    assert unsigned(net(lambda self, x: self.c(self.a(x).relu()), **parts), "padded") == ""


def test_a_layer_that_is_kept_float_reads_the_float_tensor() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        return self.b(y) + self.c(y)  # type: ignore[no-any-return]

    model = net(forward, **layers(padding=1))
    assert unsigned(model, "padded", exclude=("c",)) == ""


def test_what_a_transposed_layer_writes_or_reads_stays_symmetric() -> None:
    up = nn.ConvTranspose2d(16, 16, 2, stride=2)
    writes = net(lambda self, x: self.b(self.up(x).relu()), up=up, **layers())
    reads = net(lambda self, x: self.up(self.a(x).relu()), up=up, **layers())
    assert (unsigned(writes, "padded"), unsigned(reads, "padded")) == ("", "")
