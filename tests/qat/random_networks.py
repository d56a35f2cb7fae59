"""Random networks of ordinary parts and of parts that only look ordinary.

`random_case` draws a network, a batch and the ways to quantize and export it, all by a seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.qat import own_code as own
from trt_qat.recipe.specs import ExportSpec, QuantizeSpec

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)
Unary = Callable[[Tensor], Tensor]


class Draw:
    """Choices by a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def pick(self, options: Sequence[T]) -> T:
        return self.random.choice(options)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability


class Lambda(nn.Module):
    """A function of one tensor as a module whose code is traced."""

    def __init__(self, function: Unary) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU, lambda: nn.ReLU(inplace=True), nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish,
    nn.Sigmoid, nn.Tanh, nn.ELU, nn.PReLU, nn.Mish, nn.Softplus, own.ShiftedReLU,
    lambda: Lambda(F.relu), lambda: Lambda(lambda x: x * torch.sigmoid(x)),
    lambda: Lambda(lambda x: x.clamp(-1, 2)), lambda: Lambda(lambda x: F.relu(x, inplace=True)),
    lambda: Lambda(lambda x: x + 1), lambda: Lambda(lambda x: 2 * x),
)  # fmt: skip
UNARY: tuple[Callable[[], nn.Module], ...] = (
    nn.Identity, own.Doubling, nn.Dropout, own.ScalingDropout, lambda: nn.Dropout2d(0.1),
    lambda: own.doubled_output(nn.Identity()), lambda: own.watched(nn.Identity()),
    lambda: own.doubled_output(nn.ReLU()), lambda: Lambda(lambda x: x.flip(3)),
    lambda: Lambda(lambda x: F.pad(x, (1, 1, 1, 1))[:, :, 1:-1, 1:-1]),
    lambda: nn.ChannelShuffle(2), lambda: Lambda(lambda x: x.transpose(2, 3).contiguous()),
    lambda: Lambda(lambda x: F.dropout(x, 0.1, training=False)),
    lambda: Lambda(lambda x: F.pad(x, (0, 1, 0, 0), value=1.0)[..., 1:]),
)  # fmt: skip
POOLS: tuple[Callable[[], nn.Module], ...] = (
    lambda: nn.MaxPool2d(2), lambda: nn.MaxPool2d(3, 2, 1), lambda: nn.AvgPool2d(2),
    lambda: nn.MaxPool2d(3, 2, ceil_mode=True), lambda: nn.AvgPool2d(3, 2, 1),
    lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), lambda: own.BlurPool(2),
    lambda: nn.AdaptiveAvgPool2d(4), lambda: nn.AdaptiveMaxPool2d(4),
    lambda: nn.AvgPool2d(3, 2, ceil_mode=True), lambda: own.doubled_output(nn.MaxPool2d(2)),
    lambda: Lambda(lambda x: F.max_pool2d(x, 2)), lambda: own.replaced_forward(nn.MaxPool2d(2)),
)  # fmt: skip
UPSAMPLES: tuple[Callable[[], nn.Module], ...] = (
    lambda: nn.Upsample(scale_factor=2), lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    lambda: Lambda(lambda x: F.interpolate(x, scale_factor=2.0)),
)  # fmt: skip


def norm(draw: Draw, channels: int) -> nn.Module:
    """Draw what may stand behind a convolution: most often a BatchNorm."""
    kinds: list[Callable[[], nn.Module]] = [
        *[lambda: nn.BatchNorm2d(channels)] * 8,
        lambda: nn.BatchNorm2d(channels, affine=False),
        lambda: nn.BatchNorm2d(channels, eps=0.1),
        lambda: nn.BatchNorm2d(channels, track_running_stats=False),
        lambda: own.NormAct(channels),
        lambda: own.NormAct(channels),
        lambda: own.BareNorm(channels),
        lambda: own.NormWithoutMean(channels),
        lambda: own.FrozenNorm(channels),
        lambda: own.FunctionalNorm(channels),
        lambda: nn.GroupNorm(4, channels),
        lambda: nn.InstanceNorm2d(channels, affine=True, track_running_stats=True),
        lambda: nn.Identity(),
    ]
    made = draw.pick(kinds)()
    return draw.pick(own.WRAPPERS)(made) if draw.chance(0.1) else made


def conv(draw: Draw, inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """Draw a convolution that keeps the size, or divides it by the stride."""
    kernel, bias = draw.pick((1, 3, 3, 3)), draw.chance(0.5)
    groups = draw.pick((1, 1, 1, 1, 8, inputs)) if outputs % inputs == 0 else 1
    dilation = 2 if draw.chance(0.1) and kernel == 3 and stride == 1 else 1
    options: dict[str, Any] = {
        "stride": stride,
        "groups": groups,
        "bias": bias,
        "dilation": dilation,
    }
    padding = dilation * (kernel // 2)
    kinds: list[Any] = [nn.Conv2d] * 10 + [
        own.BareConv,
        own.SameConv,
        own.StandardizedConv,
        own.ScaledConv,
    ]
    kind = draw.pick(kinds)
    made: nn.Module
    if kind is own.SameConv:
        made = kind(inputs, outputs, kernel, **options | {"dilation": 1})
    elif kind is nn.Conv2d and draw.chance(0.1) and stride == 1 and groups == 1:
        made = nn.ConvTranspose2d(inputs, outputs, 3, padding=1, bias=bias)
    else:
        mode: Any = draw.pick(("zeros", "zeros", "zeros", "reflect", "circular"))
        made = kind(inputs, outputs, kernel, padding=padding, padding_mode=mode, **options)
    if draw.chance(0.15):
        return draw.pick((*own.WRAPPERS, *own.WEIGHT_WRAPPERS))(made)
    return own.ReadsWeight(made) if draw.chance(0.05) and isinstance(made, nn.Conv2d) else made


def unit(draw: Draw, inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Draw convolution, norm and activation; some left out."""
    parts = [conv(draw, inputs, outputs, stride)]
    if draw.chance(0.85):
        parts.append(norm(draw, outputs))
    if draw.chance(0.15):
        parts.append(draw.pick(UNARY)())
    if draw.chance(0.8):
        parts.append(draw.pick(ACTIVATIONS)())
    return own.Halving(*parts) if draw.chance(0.05) else nn.Sequential(*parts)


class Residual(nn.Module):
    """``x + f(x)``, ``f`` perhaps twice, an activation perhaps behind it."""

    def __init__(self, draw: Draw, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(draw, channels, channels), unit(draw, channels, channels))
        self.twice = draw.chance(0.3)
        self.late = draw.pick(ACTIVATIONS)() if draw.chance(0.5) else nn.Identity()
        self.scale = nn.Parameter(torch.rand(channels, 1, 1) + 0.5) if draw.chance(0.2) else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        if self.twice:
            y = self.body(y)
        if self.scale is not None:
            y = y * self.scale
        made: Tensor = self.late(x + y)
        return made


class Concat(nn.Module):
    """Branches side by side; one may be the input itself or a pool of it."""

    def __init__(self, draw: Draw, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.left, self.right = unit(draw, channels, half), unit(draw, channels, half)
        self.with_input = draw.chance(0.4)
        self.pool = nn.MaxPool2d(3, 1, 1) if draw.chance(0.5) else nn.Identity()
        self.out = unit(draw, 2 * channels if self.with_input else channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.left(x), self.right(x)]
        if self.with_input:
            parts.append(self.pool(x))
        made: Tensor = self.out(torch.cat(parts, 1))
        return made


class Split(nn.Module):
    """Halves of the channels, of which one goes through a layer."""

    def __init__(self, draw: Draw, channels: int) -> None:
        super().__init__()
        self.body = unit(draw, channels // 2, channels // 2)
        self.how = draw.pick(("chunk", "split", "slice"))
        self.add = draw.chance(0.3)

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        if self.how == "chunk":
            a, b = x.chunk(2, 1)
        elif self.how == "split":
            a, b = torch.split(x, half, 1)
        else:
            a, b = x[:, :half], x[:, half:]
        b = self.body(b)
        return torch.cat([b, a + b if self.add else a], 1)


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, draw: Draw, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.a, self.b = nn.Conv2d(channels, 16, 1), nn.Conv2d(16, channels, 1)
        self.act = draw.pick(ACTIVATIONS)()

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.b(self.act(self.a(self.pool(x)))))


class Shared(nn.Module):
    """One convolution for two inputs, one norm behind two convolutions."""

    def __init__(self, draw: Draw, channels: int) -> None:
        super().__init__()
        self.conv, self.other = conv(draw, channels, channels), conv(draw, channels, channels)
        self.norm, self.act = norm(draw, channels), draw.pick(ACTIVATIONS)()
        self.forked = draw.chance(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        z: Tensor = self.norm(self.conv(self.act(self.norm(y)))) + self.norm(self.other(x))
        return z + y if self.forked else z


class ByMode(nn.Module):
    """Asks for the mode, so that it stays Python."""

    def __init__(self, draw: Draw, channels: int) -> None:
        super().__init__()
        self.body = unit(draw, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.training else x + y * 0.5


def linear(draw: Draw, inputs: int, outputs: int) -> nn.Module:
    """Draw a linear layer."""
    kind = draw.pick([nn.Linear] * 8 + [own.LowRankLinear, own.SquaredWeightLinear])
    made = kind(inputs, outputs, bias=draw.chance(0.6))
    if draw.chance(0.15):
        return draw.pick((*own.WRAPPERS, *own.WEIGHT_WRAPPERS))(made) if kind is nn.Linear else made
    return made


class RandomNetwork(nn.Module):
    """A stem, random blocks, and a head of linear layers."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        width = draw.pick((16, 32))
        blocks: list[nn.Module] = [unit(draw, 3, width)]
        size = 8
        for _ in range(draw.random.randint(1, 4)):
            kind: Any = draw.pick((Residual, Concat, Split, Gate, Shared, ByMode, unit, unit))
            if kind is unit:
                wider = draw.pick((width, 2 * width)) if width < 64 else width
                blocks.append(unit(draw, width, wider))
                width = wider
            else:
                blocks.append(kind(draw, width))
            if draw.chance(0.3) and size == 8:
                blocks.append(draw.pick(POOLS)())
                size = 4
                if draw.chance(0.3):
                    blocks.append(draw.pick(UPSAMPLES)())
        self.blocks = nn.Sequential(*blocks)
        self.pool = draw.pick((nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)))
        self.flat = draw.pick((nn.Flatten, own.BiasedFlatten))()
        self.head = nn.Sequential(
            linear(draw, width, 32),
            nn.BatchNorm1d(32) if draw.chance(0.5) else nn.Identity(),
            draw.pick(ACTIVATIONS)(),
            linear(draw, 32, 32),
            draw.pick(ACTIVATIONS)(),
            nn.Linear(32, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.flat(self.pool(self.blocks(x))))
        return y


@dataclass
class Case:
    """A network and what is done with it."""

    seed: int
    model: nn.Module
    batch: Tensor
    sparse: bool
    trained: bool
    training_mode: bool
    quantize: QuantizeSpec = field(default_factory=QuantizeSpec)
    export: ExportSpec = field(default_factory=ExportSpec)


def randomize(model: M) -> M:
    """Give norms statistics and factors of both signs, as training may, and a dead channel."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            if module.running_mean is not None and module.running_var is not None:
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.normal_(module.weight, 0, 1)
                nn.init.normal_(module.bias, 0, 0.3)
                with torch.no_grad():
                    module.weight[0] = 0
    return model


def random_case(seed: int) -> Case:
    """Return the network of a seed, with statistics and factors of both signs."""
    draw = Draw(seed)
    torch.manual_seed(seed)
    model = randomize(RandomNetwork(draw))
    layers = [n for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    layers = [n for n in layers if n.rpartition(".")[0] not in layers]  # not an adapter's
    exclude = (draw.pick(layers),) if draw.chance(0.25) else ()
    spec = QuantizeSpec(
        exclude=exclude,
        learned_scales=draw.chance(0.1),
        weights=draw.pick(("per_channel", "per_channel", "per_channel", "per_tensor")),
        heads=draw.pick(("float", "float", "int8")),
    )
    export = ExportSpec(
        opset=draw.pick((17, 17, 18, 20)), weights=draw.pick(("int8", "int8", "int8", "fp32"))
    )
    batch = torch.randn(draw.pick((1, 3, 4)), 3, 8, 8)
    sparse, trained, mode = (draw.chance(p) for p in (0.3, 0.2, 0.3))
    zero_point = draw.pick(("zero", "zero", "folded", "padded"))
    spec = spec.model_copy(update={"zero_point": zero_point})
    return Case(seed, model, batch, sparse, trained, mode, spec, export)
