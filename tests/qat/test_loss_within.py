"""A model that is given targets calls itself and returns its loss, as Ultralytics' models do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trt_qat as tq

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
BATCH = {"img": IMAGES, "cls": torch.zeros(4, 8)}


class Detector(nn.Module):
    """Maps in training, decoded in evaluation, a loss for a dict; walks over its parts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        convolutions = (nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1))
        self.model = nn.ModuleList((*convolutions, nn.ReLU(), nn.Conv2d(16, 8, 1)))

    def forward(self, x: Any) -> Any:
        return self.loss(x) if isinstance(x, dict) else self.predict(x)

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        made = self.forward(batch["img"])
        score = made[0] if isinstance(made, tuple) else made
        error = (score.flatten(2).mean(-1) - batch["cls"]).square()
        return error.sum(), error.detach().mean(0)

    def predict(self, x: Tensor) -> Any:
        for part in self.children():
            for layer in part.children():
                x = layer(x)
        return x if self.training else (x.sigmoid(), x)


@pytest.mark.parametrize("training", [True, False])
def test_the_loss_is_computed_through_the_quantizers(training: bool) -> None:
    model = tq.quantize(Detector().eval(), [IMAGES])
    assert [note.name for note in tq.report_of(model).quantized] == ["model.0", "model.2"]
    seen: list[str] = []
    for name, module in model.named_modules():
        if type(module).__name__ == "TensorQuantizer" and name.startswith("qdq."):
            module.register_forward_hook(lambda *_, name=name: seen.append(name))
    model.eval()(IMAGES)
    each, want = sorted(seen), model(IMAGES)
    seen.clear()
    loss, parts = model.train(training)(BATCH)
    assert sorted(seen) == each, "every quantizer once, and none on the loss"
    loss.backward()
    assert parts.shape == (8,)
    score = want[0] if not training else want[1]
    torch.testing.assert_close(loss, (score.flatten(2).mean(-1) - BATCH["cls"]).square().sum())
