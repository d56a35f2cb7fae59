"""Channels that are free to be reordered or scaled: whatever is called free leaves the function."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trt_qat.qat.channels import NORMS, Purpose, Space, channel_spaces, own_weight

X = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
Step = Callable[[Tensor], Tensor]


class Between(nn.Module):
    """Two convolutions with something between them."""

    def __init__(self, step: Step, reads: int = 8, layer: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(4, 8, 3, padding=1)
        self.layer = layer
        self.last = nn.Conv2d(reads, 5, 1)
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x if self.layer is None else self.layer(x)
        made: Tensor = self.last(self.step(x))
        return made


class Headed(nn.Module):
    """A convolution, a path to vectors, and a linear layer."""

    def __init__(self, step: Step, reads: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(4, 8, 3, padding=1)
        self.last = nn.Linear(reads, 5)
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.last(self.step(self.first(x)))
        return made


def changed(model: nn.Module, space: Space, purpose: Purpose) -> nn.Module:
    """The model with the channels of a space in another order, or each scaled and read back."""
    made = copy.deepcopy(model)
    draw = torch.Generator().manual_seed(space.size)
    order = torch.randperm(space.size, generator=draw)
    factor = 0.5 + torch.rand(space.size, generator=draw)
    with torch.no_grad():
        for path in (*space.writers, *space.carried):
            layer = made.get_submodule(path)
            seen = isinstance(layer, NORMS) and purpose == "order"
            names = ("weight", "bias", *(("running_mean", "running_var") if seen else ()))
            for held in (getattr(layer, name, None) for name in names):
                if held is None:
                    continue
                by = factor.reshape(-1, *[1] * (held.dim() - 1))
                held.copy_(held[order] if purpose == "order" else held / by)
        for path in space.readers:
            weight = own_weight(made.get_submodule(path))
            by = factor.reshape(1, -1, *[1] * (weight.dim() - 2))
            by = by if weight.shape[1] > 1 else by.transpose(0, 1)  # depthwise
            weight.copy_(weight[:, order] if purpose == "order" else weight * by)
    return made


def between(model: nn.Module, purpose: Purpose = "order") -> bool:
    """Whether what the first layer writes is free for the last; that it is so is tried."""
    model.eval()
    spaces = channel_spaces(model, X, purpose)
    for space in spaces:
        torch.testing.assert_close(
            changed(model, space, purpose)(X), model(X), rtol=1e-4, atol=1e-5
        )
    return any("first" in space.writers and "last" in space.readers for space in spaces)


SAME: dict[str, Step] = {
    "nothing": lambda x: x,
    "relu": F.relu,
    "contiguous": lambda x: x.contiguous(),
    "clone": torch.clone,
    "padded rows": lambda x: F.pad(x, (1, 1, 1, 1)),
    "mean of rows": lambda x: x.mean(dim=(2, 3), keepdim=True),
    "mean of one axis": lambda x: x.mean(3, keepdim=True),
    "mean of the last": lambda x: x.mean(dim=-1, keepdim=True),
    "pool": lambda x: F.max_pool2d(x, 2),
}
MIXED: dict[str, tuple[Step, int]] = {
    "padded channels": (lambda x: F.pad(x, (0, 0, 0, 0, 1, 1)), 10),
    "mean of channels": (lambda x: x.mean(dim=1, keepdim=True), 1),
    "mean of samples": (lambda x: x.mean(dim=(0, 2), keepdim=True), 8),
    "a buffer's mean": (lambda x: x + torch.arange(8.0).reshape(1, 8, 1, 1), 8),
    "a part": (lambda x: x[:, :4], 4),
    "rolled": (lambda x: torch.roll(x, 1, 1), 8),
    "reshaped": (lambda x: x.reshape(x.shape[0], 4, 12, 6), 4),
    "softmax": (lambda x: torch.softmax(x, 1), 8),
}


@pytest.mark.parametrize("name", SAME)
def test_what_hands_each_channel_on_leaves_their_order_free(name: str) -> None:
    assert between(Between(SAME[name]))


@pytest.mark.parametrize("name", MIXED)
def test_what_mixes_channels_fixes_their_order(name: str) -> None:
    assert not between(Between(*MIXED[name]))


@pytest.mark.parametrize(
    ("step", "reads", "free"),
    [
        (lambda x: x.mean((2, 3)), 8, True),
        (lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1), 8, True),
        (lambda x: x.flatten(1), 8 * 36, False),
        (lambda x: x.mean((1, 2)), 6, False),
    ],
)
def test_channels_become_features_where_no_pixel_is_left(
    step: Step, reads: int, free: bool
) -> None:
    assert between(Headed(step, reads)) == free


LAYERS: dict[str, tuple[Callable[[], nn.Module], bool, bool]] = {
    "batch norm": (lambda: nn.BatchNorm2d(8), True, False),
    "batch norm of no weight": (lambda: nn.BatchNorm2d(8, affine=False), False, False),
    "norm of groups": (lambda: nn.GroupNorm(2, 8), False, False),
    "norm of pixels": (lambda: nn.LayerNorm((6, 6)), False, False),
    "one slope": (lambda: nn.PReLU(), True, False),
    "slopes": (lambda: nn.PReLU(8), False, False),
    "leaky": (lambda: nn.LeakyReLU(0.1), True, True),
    "dropout": (lambda: nn.Dropout(0.1), True, True),
    "gelu": (lambda: nn.GELU(), True, False),
    "depthwise": (lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8), True, False),
    "in groups": (lambda: nn.Conv2d(8, 8, 3, padding=1, groups=2), False, False),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_between_carry_fix_or_cut(name: str) -> None:
    make, ordered, scaled = LAYERS[name]
    for purpose, free in (("order", ordered), ("scale", scaled)):
        torch.manual_seed(zlib.crc32(name.encode()))
        assert between(Between(lambda x: x, layer=make()), purpose) == free, purpose  # type: ignore[arg-type]


class Shared(nn.Module):
    """A weight that two layers hold, or that one function reads by itself."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 6)
        if kind == "tied":
            self.last.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.kind == "function":
            x = F.linear(x, self.last.weight, self.last.bias)
        elif self.kind == "twice":
            x = F.linear(F.linear(x, self.last.weight), self.last.weight)
        else:
            x = self.last(x)
        return x.relu()


@pytest.mark.parametrize(("kind", "free"), [("function", True), ("twice", False), ("tied", False)])
def test_a_weight_that_is_read_twice_is_fixed(kind: str, free: bool) -> None:
    assert between(Shared(kind)) == free


class Gated(nn.Module):
    def __init__(self, *, pixels: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pixels = pixels
        self.first, self.last = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 5, 1)
        self.gate = nn.Conv2d(4, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        y = self.first(x)
        made: Tensor = self.last(y + gate.expand_as(y) if self.pixels else y * gate)
        return made


def test_a_gate_keeps_the_order_of_what_it_gates_and_no_factor() -> None:
    assert between(Gated(pixels=False))
    assert not between(Gated(pixels=False), "scale")
    assert not between(Gated(pixels=True), "scale")


class Careful(nn.Module):
    """Code that looks at numbers, around a part that is traced by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Between(F.relu)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.inner(x)
        return made if float(made.sum()) > 0 else -made


def test_a_model_that_holds_another_is_looked_into() -> None:
    model = Careful().eval()
    found = channel_spaces(model, X, "order")
    assert [(space.writers, space.readers) for space in found] == [
        (["inner.first"], ["inner.last"])
    ]
