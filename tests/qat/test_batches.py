"""Training on batches of every kind that is allowed, and a word on every kind that is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.qat.training import SPEC, stripes, train
from trt_qat.errors import DataError, ModelError
from trt_qat.qat.evaluate import evaluate
from trt_qat.qat.reports import report_of
from trt_qat.recipe.specs import TrainSpec


class TwoInputs(nn.Module):
    """Takes its image by position or by keyword and returns logits in a dict if asked."""

    def __init__(self, *, wrapped: bool = False) -> None:
        super().__init__()
        self.head = nn.Linear(65, 4)
        self.wrapped = wrapped

    def forward(self, image: Tensor, bias: Tensor) -> Any:
        logits = self.head(torch.cat([image.flatten(1), bias], 1))
        return {"logits": logits} if self.wrapped else logits


def batches_of(kind: str) -> Any:
    data = stripes(64)
    pairs = [(data.images[i : i + 16], data.labels[i : i + 16]) for i in range(0, 64, 16)]
    bias = np.ones((16, 1), dtype=np.float32)
    if kind == "tuple":
        return [((images, bias), labels) for images, labels in pairs]
    if kind == "dict":
        return [({"image": images, "bias": bias}, labels) for images, labels in pairs]
    if kind == "labels":
        return [{"image": i, "bias": bias, "labels": labels} for i, labels in pairs]
    return DataLoader(
        TensorDataset(torch.from_numpy(data.images), torch.ones(64, 1)), batch_size=16
    )


@pytest.mark.parametrize("kind", ["tuple", "dict", "labels"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_inputs_may_be_tuples_and_dicts(kind: str, wrapped: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TwoInputs(wrapped=wrapped)
    spec = TrainSpec(epochs=30, lr=1e-2)
    train(model, batches_of(kind), validation_batches=batches_of(kind), spec=spec)
    assert evaluate(model, batches_of(kind)).accuracy > 0.9


def test_a_loss_of_ones_own_for_targets_that_are_no_classes() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    data = stripes(64)
    pairs = [(data.images, data.images.mean((1, 2, 3))[:, None])]
    spec = TrainSpec(epochs=100, lr=1e-2)
    train(model, pairs, loss_fn=F.mse_loss, spec=spec, validation_batches=pairs)
    history = report_of(model).history
    assert history[-1]["loss"] < 0.1 * history[0]["loss"]
    assert "accuracy" not in history[-1]
    assert "validation_accuracy" not in history[-1]


def test_arrays_and_the_same_batches_in_a_list_train_alike() -> None:
    data = stripes(16)  # one batch, so that the order within it is all that differs
    spec = SPEC.model_copy(update={"epochs": 4.0})
    left = train(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), data, spec=spec)
    assert evaluate(left, [(data.images, data.labels)]).correct.shape == (16,)


def generator() -> Iterator[Any]:
    yield from batches_of("tuple")


class Shrinking:
    """Promises three batches and gives two."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[Any]:
        return iter(batches_of("tuple")[:2])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (generator(), "generator, which can be read only once"),
        ([], "holds no batch"),
        (3, "train_batches is a int; allowed"),
        ([torch.zeros(4, 1, 8, 8)], "a batch is Tensor of 4; allowed: a pair"),
        (Shrinking(), "gave 2 batches in epoch 0, fewer than the 3"),
    ],
)
def test_says_what_is_wrong_with_the_batches(source: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        train(TwoInputs(), source)


def test_augmentation_needs_images() -> None:
    with pytest.raises(DataError, match="augment = 'shift' needs inputs that are one"):
        train(TwoInputs(), batches_of("tuple"), spec=SPEC.model_copy(update={"augment": "shift"}))


def test_a_model_without_parameters_or_logits_is_refused() -> None:
    with pytest.raises(ModelError, match="Flatten has no parameter"):
        train(nn.Flatten(), stripes())

    class Silent(nn.Linear):
        def forward(self, input: Tensor) -> Any:
            return "nothing"

    with pytest.raises(ModelError, match="returned str, in which no logits"):
        train(Silent(8, 8), stripes())
