"""Small nets, each built around one thing that placement can get wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def lively(model: nn.Module) -> nn.Module:
    """He initialisation without biases: in a shallow net the default biases drown the input."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


class TwoInputs(nn.Module):
    """An image and a vector fused by concatenation; a dict of class logits and a regression."""

    def __init__(self, in_channels: int, features: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.image_net = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(2),
        )
        self.reduce = nn.AdaptiveAvgPool2d(1)
        self.vector_net = nn.Sequential(nn.Linear(features, width), nn.ReLU())
        self.trunk = nn.Linear(2 * width, width)
        self.classifier = nn.Linear(width, num_classes)
        self.regressor = nn.Linear(width, 1)

    def forward(self, image: Tensor, vector: Tensor) -> dict[str, Tensor]:
        seen = self.reduce(self.image_net(image)).flatten(1)
        joined = torch.cat([seen, self.vector_net(vector)], dim=1)
        trunk = F.relu(self.trunk(joined))
        return {"logits": self.classifier(trunk), "score": self.regressor(trunk)}


class SharedLayers(nn.Module):
    """One Conv, one BatchNorm and one Linear called twice on different tensors."""

    def __init__(self, in_channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 3, 2, 1)
        self.shared_conv = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.shared_bn = nn.BatchNorm2d(width)
        self.shared_fc = nn.Linear(width, width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for _ in range(2):
            x = F.relu(self.shared_bn(self.shared_conv(x)))
        x = x.mean(dim=(2, 3))
        x = F.relu(self.shared_fc(x))
        x = F.relu(self.shared_fc(x))
        return self.head(x)  # type: ignore[no-any-return]


class TiedWeights(nn.Module):
    """Token ids ``(N, L)`` to next-token logits; the output layer owns the embedding's weight."""

    def __init__(self, vocabulary: int, dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.up = nn.Linear(dim, 2 * dim)
        self.down = nn.Linear(2 * dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.lm_head = nn.Linear(dim, vocabulary, bias=False)
        self.lm_head.weight = self.embed.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        x = self.norm(x + self.down(F.gelu(self.up(x))))
        return self.lm_head(x)  # type: ignore[no-any-return]


class Functional(nn.Module):
    """No layer modules at all: functional conv, linear, matmul, pool, resize, dropout, concat."""

    def __init__(self, in_channels: int, num_classes: int, width: int) -> None:
        super().__init__()

        def weight(*shape: int) -> nn.Parameter:
            return nn.Parameter(nn.init.kaiming_uniform_(torch.empty(*shape)))

        self.stem_weight = weight(width, in_channels, 3, 3)
        self.left_weight = weight(width, width, 3, 3)
        self.left_bias = nn.Parameter(torch.zeros(width))
        self.right_weight = weight(width, width, 1, 1)
        self.hidden_weight = weight(width, 2 * width)
        self.head_weight = weight(num_classes, width)
        self.head_bias = nn.Parameter(torch.zeros(num_classes))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.stem_weight, stride=2, padding=1))
        left = F.relu(F.conv2d(x, self.left_weight, self.left_bias, padding=1))
        right = F.conv2d(F.max_pool2d(x, 2), self.right_weight)
        right = F.interpolate(right, scale_factor=2, mode="nearest")
        x = torch.cat([left, right], dim=1).flatten(2)
        # Channel attention: a product of two activations, neither of them a weight.
        gram = torch.matmul(x, x.transpose(1, 2)) / x.shape[-1]
        x = torch.matmul(gram.softmax(dim=-1), x).mean(dim=-1)
        x = F.relu(F.linear(x, self.hidden_weight))
        x = F.dropout(x, 0.1, training=self.training)
        return F.linear(x, self.head_weight, self.head_bias)


class Untraceable(nn.Module):
    """Its outer forward branches and loops on tensor values; ``backbone`` can be traced."""

    def __init__(self, in_channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.refine = nn.Linear(width, width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        if x.abs().max() > 100.0:  # raw 8-bit pixels
            x = x / 255.0
        features = self.backbone(x).mean((2, 3))
        steps = 0
        while features.norm(dim=1).mean() > 1.0 and steps < 8:
            features = 0.5 * F.relu(self.refine(features))
            steps += 1
        return self.head(features)  # type: ignore[no-any-return]


def two_inputs(
    *, in_channels: int = 3, features: int = 32, num_classes: int = 10, width: int = 32
) -> nn.Module:
    """``(image, vector)`` to ``{"logits", "score"}``."""
    return lively(TwoInputs(in_channels, features, num_classes, width))


def shared_layers(*, in_channels: int = 3, num_classes: int = 10, width: int = 32) -> nn.Module:
    """One layer at two places needs ranges for both."""
    return lively(SharedLayers(in_channels, num_classes, width))


def tied_weights(*, vocabulary: int = 128, dim: int = 64) -> nn.Module:
    """A quantized output layer must not quantize the embedding table with it."""
    return TiedWeights(vocabulary, dim)


def functional(*, in_channels: int = 3, num_classes: int = 10, width: int = 32) -> nn.Module:
    """Module-level quantization finds nothing here."""
    return Functional(in_channels, num_classes, width)


def untraceable(*, in_channels: int = 3, num_classes: int = 10, width: int = 32) -> nn.Module:
    """Data-dependent control flow outside a traceable backbone."""
    return lively(Untraceable(in_channels, num_classes, width))
