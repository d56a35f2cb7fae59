"""Modules that do more than the class of torch they derive from, as users' libraries have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune


class BareConv(nn.Conv2d):
    """A subclass in name alone."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.note = "mine"


class SameConv(nn.Conv2d):
    """Pads by the size of its input, as EfficientNets ported from TensorFlow do."""

    def forward(self, x: Tensor) -> Tensor:
        size, stride, kernel = x.shape[-1], self.stride[0], self.kernel_size[0]
        missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        x = F.pad(x, [missing // 2, missing - missing // 2] * 2)
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class StandardizedConv(nn.Conv2d):
    """Convolves with a standardized weight, as NFNets and BiT do."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, w, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ScaledConv(nn.Conv2d):
    """Calls torch's forward and goes on."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 0.5 + 0.1


class LowRankLinear(nn.Linear):
    """A linear layer with a low-rank adapter beside it."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias)
        self.down, self.up = nn.Linear(inputs, 4, bias=False), nn.Linear(4, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x) + self.up(self.down(x))
        return y


class SquaredWeightLinear(nn.Linear):
    """Torch's forward on a weight that is computed."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = inputs, outputs
        self.raw = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.25)
        self.register_parameter("bias", nn.Parameter(torch.randn(outputs)) if bias else None)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """Return what the layer multiplies by."""
        return self.raw.square() - 0.1


class NormAct(nn.BatchNorm2d):
    """A BatchNorm that applies the activation too, as in nearly all of timm."""

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(super().forward(x), 0.1)


class BareNorm(nn.BatchNorm2d):
    """A subclass in name alone."""


class NormWithoutMean(nn.BatchNorm2d):
    """Ignores half of its statistics."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.running_var is not None
        scale = (self.weight * (self.running_var + self.eps).rsqrt()).reshape(1, -1, 1, 1)
        return x * scale + self.bias.reshape(1, -1, 1, 1)


class FrozenNorm(nn.Module):
    """BatchNorm as buffers, as torchvision's detectors have it."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, fill in (("weight", 1.0), ("bias", 0.0), ("mean", 0.0), ("var", 1.0)):
            self.register_buffer(name, torch.full((channels,), fill))

    def forward(self, x: Tensor) -> Tensor:
        scale = (self.weight * (self.var + 1e-5).rsqrt()).reshape(1, -1, 1, 1)
        return x * scale + (self.bias.reshape(1, -1, 1, 1) - self.mean.reshape(1, -1, 1, 1) * scale)


class FunctionalNorm(nn.BatchNorm2d):
    """Calls the function instead of its parent."""

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.1, self.eps) + 0.2


class ShiftedReLU(nn.ReLU):
    """Not zero at zero."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - 0.3


class Doubling(nn.Identity):
    """An Identity that is none."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1.7


class ScalingDropout(nn.Dropout):
    """A Dropout that does something in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else x * 0.8


class BlurPool(nn.MaxPool2d):
    """A pool that averages after its maximum."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(super().forward(x), 3, 1, 1)


class BiasedFlatten(nn.Flatten):
    """A Flatten that adds."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.25


class Halving(nn.Sequential):
    """A Sequential with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        for module in self:
            x = module(x) * 0.5
        return x


class ReadsWeight(nn.Module):
    """Reads attributes of its layer and uses its weight a second time."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x.to(self.conv.weight.dtype))
        return y + self.conv.weight.abs().mean() * self.conv.stride[0]


def doubled_output(module: nn.Module) -> nn.Module:
    """Let a hook change what comes out."""
    module.register_forward_hook(lambda _module, _inputs, output: output * 2 + 0.1)
    return module


def shifted_input(module: nn.Module) -> nn.Module:
    """Let a hook change what goes in."""
    module.register_forward_pre_hook(lambda _module, inputs: (inputs[0] * 0.7 - 0.1,))
    return module


def watched(module: nn.Module) -> nn.Module:
    """Let a hook look on."""
    module.register_forward_hook(lambda _module, _inputs, output: None)
    return module


def replaced_forward(module: nn.Module) -> nn.Module:
    """Set a forward on the instance."""
    inner: Callable[..., Tensor] = module.forward
    module.forward = lambda x: inner(x) * 1.5 - 0.2
    return module


def weight_normed(module: nn.Module) -> nn.Module:
    """Let a parametrization compute the weight."""
    normed: nn.Module = parametrizations.weight_norm(module)
    return normed


def pruned(module: nn.Module) -> nn.Module:
    """Let torch's own pruning compute the weight in a hook."""
    prune.l1_unstructured(module, "weight", 0.5)  # type: ignore[no-untyped-call]
    return module


WRAPPERS: tuple[Callable[[nn.Module], nn.Module], ...] = (
    doubled_output,
    shifted_input,
    watched,
    replaced_forward,
)
WEIGHT_WRAPPERS = (weight_normed, pruned)


class Asserting(nn.Module):
    """A model that asserts what its data is; here, for pytest rewrites assertions of its tests."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 32, 3, 1, 1), nn.Conv2d(32, 32, 3, 1, 1)
        self.head = nn.Conv2d(32, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        assert x.isfinite().all()
        y: Tensor = self.head(self.b(x.relu()))
        return y
