"""Batches, specs and models in the forms that users have them in."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from trt_qat.errors import DataError, ModelError, RecipeError
from trt_qat.qat.inputs import inputs_of
from trt_qat.qat.quantize import quantize, ranges_of
from trt_qat.qat.reports import report_of
from trt_qat.qat.sparsify import sparsify


def net() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 1, 1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(2048, 10)).eval()


X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
FORMS: dict[str, Any] = {
    "a loader of pairs": DataLoader(TensorDataset(X, torch.arange(4)), 4),
    "a loader of inputs": DataLoader(TensorDataset(X), 4),
    "a tensor": X,
    "an array": X.numpy(),
    "arrays and labels": [(X.numpy(), np.arange(4))],
    "a list": [X],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_batches_gives_the_same_ranges(form: str) -> None:
    expected = ranges_of(quantize(net(), [X])).amax
    assert ranges_of(quantize(net(), FORMS[form])).amax == expected


def test_a_second_input_is_no_target() -> None:
    class Two(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + b

    first, second = inputs_of(Two(), (X, X))
    assert first is X
    assert second is X


def test_labels_stay_out_where_the_model_can_do_without() -> None:
    class Text(nn.Module):
        def forward(self, ids: Tensor, labels: Tensor | None = None) -> Tensor:
            return ids

    assert set(inputs_of(Text(), {"ids": X, "labels": X})) == {"ids"}


def test_a_spec_may_be_a_dict() -> None:
    model = quantize(net(), [X], spec={"exclude": ["2"]}, calibration={"algorithm": "max"})
    assert "2" in {note.name for note in report_of(model).float_layers}
    dense = sparsify(net(), X, {"exclude": ["0"], "skip_first": False})
    assert [note.name for note in report_of(dense).sparse] == ["2"]


def test_an_unknown_key_of_a_spec_is_named() -> None:
    with pytest.raises(RecipeError, match=r"quantize: spec key 'exclud'.*keys: .*include, exclude"):
        quantize(net(), [X], spec={"exclud": ["2"]})


def traced(model: nn.Module) -> Any:
    trace: Any = torch.jit.trace  # torch leaves it untyped
    return trace(model, X)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nn.DataParallel, "give model.module"),
        (lambda m: torch.compile(m, backend="eager"), "the module that was given to torch.compile"),
        (traced, "no Python code; give the module it is of"),
        (lambda m: m.forward, "not a torch.nn.Module"),
    ],
)
def test_what_cannot_be_placed_ends_in_one_sentence(make: Any, message: str) -> None:
    for verb in (quantize, sparsify):
        with pytest.raises(ModelError, match=re.escape(message)):
            verb(make(net()), [X])


def test_a_number_is_no_batches() -> None:
    with pytest.raises(DataError, match="calibration_batches is a int"):
        quantize(net(), 3)
