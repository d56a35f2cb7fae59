"""What is trained: the function that is deployed, or the one with dropout and the like."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trt_qat as tq
from tests.qat.training import small_model, stripes

SPEC = {"epochs": 1.0, "batch_size": 16, "lr": 1e-4, "label_smoothing": 0.0}


class Dropping(nn.Module):
    """A network that loses most of its logits in training, and says how often it did."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.drop, self.dropped = small_model(), nn.Dropout(0.9), 0

    def forward(self, image: Tensor) -> Tensor:
        self.dropped += self.training
        kept: Tensor = self.drop(self.net(image))
        return kept


def first_loss(**spec: Any) -> float:
    """Of a network that learns from itself, with statistics that stand still."""
    model = Dropping()
    trained = tq.finetune(
        model,
        list(torch.split(torch.from_numpy(stripes().images), 16)),
        spec=SPEC | {"freeze_batchnorm": 0.0} | spec,
        teacher=copy.deepcopy(model),
        distill={"match": "outputs"},
        progress=False,
    )
    return float(tq.report_of(trained).history[0]["loss"])


def test_what_a_teacher_says_is_learned_by_what_is_deployed() -> None:
    assert first_loss() == pytest.approx(0.0, abs=1e-6)
    assert first_loss(as_deployed=False) > 0.5


@pytest.mark.parametrize(("spec", "drops"), [({}, True), ({"as_deployed": True}, False)])
def test_labels_are_learned_with_dropout_unless_told_otherwise(
    spec: dict[str, Any], drops: bool
) -> None:
    model: Any = Dropping()
    tq.finetune(model, stripes(), spec=SPEC | spec, progress=False)
    assert (model.dropped > 0) is drops


@pytest.mark.parametrize(("frozen", "moves"), [(0.0, False), (1.0, True)])
def test_batchnorm_goes_by_its_own_key(frozen: float, moves: bool) -> None:
    model: Any = Dropping()
    before = model.net.stages[0].bn1.running_mean.clone()
    spec = SPEC | {"as_deployed": True, "freeze_batchnorm": frozen}
    tq.finetune(model, stripes(), spec=spec, progress=False)
    assert bool((model.net.stages[0].bn1.running_mean != before).any()) is moves


def test_a_quantized_network_trains_what_it_deploys() -> None:
    model: Any = tq.quantize(Dropping(), [torch.from_numpy(stripes().images)])
    weight = model.net.stages[0].conv2.weight
    before = weight.detach().clone()
    tq.finetune(model, stripes(), spec=SPEC | {"as_deployed": True}, progress=False)
    assert model.dropped == 0
    assert bool((weight != before).any())


def test_a_recurrent_layer_keeps_the_mode_that_its_gradient_needs() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(8, 16, batch_first=True), nn.Linear(16, 4)
            self.modes: set[tuple[bool, bool]] = set()

        def forward(self, image: Tensor) -> Tensor:
            self.modes.add((self.training, self.rnn.training))
            logits: Tensor = self.head(self.rnn(image[:, 0])[0][:, -1])
            return logits

    model = Reader()
    tq.finetune(model, stripes(), spec=SPEC | {"as_deployed": True}, progress=False)
    assert (False, True) in model.modes  # cuDNN has no gradient of one in evaluation
