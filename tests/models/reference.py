"""What a reference architecture is, and how one is brought into a state worth quantizing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Family = Literal["conv", "transformer", "mixed"]
Task = Literal["classification", "segmentation", "detection", "language", "multi"]


class ExampleInputs(Protocol):
    """Draws a batch; the same batch size and seed give the same tensors."""

    def __call__(self, batch: int, seed: int = 0) -> tuple[Tensor, ...]: ...


@dataclass(frozen=True)
class Reference:
    """An architecture that placement, export and preflight are tested on.

    ``build`` returns a model in eval mode and always the same one, whatever the global seed.
    ``outputs`` names the tensors that ``outputs_of`` returns, in order. Where ``traceable`` is
    false, ``traced_part`` names the submodule that can be traced (the outer forward cannot).
    """

    name: str
    build: Callable[[], nn.Module]
    example_inputs: ExampleInputs
    family: Family
    task: Task
    outputs: tuple[str, ...] = ("logits",)
    traceable: bool = True
    traced_part: str = ""

    def __str__(self) -> str:
        return self.name


def outputs_of(result: Any) -> tuple[Tensor, ...]:
    """The tensors of a model's result, be it one tensor, a tuple, a dict or a ModelOutput."""
    if isinstance(result, Tensor):
        return (result,)
    values = result.values() if isinstance(result, Mapping) else result
    return tuple(tensor for value in values for tensor in outputs_of(value))


def images(channels: int = 3, size: int = 32) -> ExampleInputs:
    """Batches of ``(N, channels, size, size)`` float32 images."""

    def draw(batch: int, seed: int = 0) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        # White noise averages out before the classifier and every image gets the same logits;
        # blobs and colour casts, as in photographs, keep the images apart down to the head.
        coarse = torch.randn(batch, channels, 4, 4, generator=generator)
        coarse = coarse + torch.randn(batch, channels, 1, 1, generator=generator)
        blobs = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
        noise = torch.randn(batch, channels, size, size, generator=generator)
        return (blobs + 0.2 * noise,)

    return draw


def tokens(vocabulary: int, length: int, *, masked: bool) -> ExampleInputs:
    """Batches of ``(N, length)`` int64 token ids and, if ``masked``, their 0/1 attention mask."""

    def draw(batch: int, seed: int = 0) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(vocabulary, (batch, length), generator=generator)
        if not masked:
            return (ids,)
        lengths = torch.randint(length // 2, length + 1, (batch, 1), generator=generator)
        return ids, (torch.arange(length) < lengths).to(torch.int64)

    return draw


def built(
    factory: Callable[[], nn.Module], example_inputs: ExampleInputs
) -> Callable[[], nn.Module]:
    """A ``build`` that seeds itself, leaves the global generator alone and warms the model."""

    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return warmed(factory(), example_inputs)

    return build


def warmed(model: nn.Module, example_inputs: ExampleInputs, passes: int = 4) -> nn.Module:
    """Spread the norms' weights, measure BatchNorm statistics, and put ``model`` into eval mode."""
    spread_norms(model)
    batch_norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in batch_norms]
    for norm in batch_norms:
        norm.reset_running_stats()
        norm.momentum = None  # a true average: nothing of the initial 0 and 1 stays behind
    model.train()
    with torch.no_grad():
        for seed in range(passes):
            model(*example_inputs(16, seed=1000 + seed))
    for norm, momentum in zip(batch_norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def spread_norms(model: nn.Module) -> None:
    """Move scale and shift of every norm off 1 and 0, so that a fold that drops one is seen."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)):
            if module.weight is not None:
                nn.init.uniform_(module.weight, 0.7, 1.3)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
