"""Copies of a float model in any choice of masks, formats and ranges; the model itself stays."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trt_qat as tq
from trt_qat.errors import InputError, ModelError
from trt_qat.qat.masked import masked_layers
from trt_qat.qat.trials import Trials
from trt_qat.recipe.specs import QuantizeSpec

BATCHES = list(torch.randn(3, 8, 32, 6, 6, generator=torch.Generator().manual_seed(0)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(32, 32, 3, padding=1)
        self.second = nn.Conv2d(32, 32, 3, padding=1)
        self.third = nn.Conv2d(32, 32, 1)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        x = torch.relu(self.third(x))
        made: Tensor = self.head(x.mean((2, 3)))
        return made


@pytest.mark.parametrize("method", ["magnitude", "sparsegpt"])
def test_a_layer_that_holds_no_mask_has_its_own_weight_again(method: str) -> None:
    model = Net().eval()
    kept = copy.deepcopy(model.state_dict())
    trials = Trials(model, BATCHES, sparsity={"enabled": True, "method": method})
    assert {"second", "third"} <= trials.masks
    dense = trials.float_model()
    torch.testing.assert_close(dense(BATCHES[0]), model(BATCHES[0]), rtol=1e-4, atol=1e-5)
    one = trials.float_model(["second"])
    zeros = {n: (torch.as_tensor(m.weight) == 0).any() for n, m in masked_layers(one).items()}
    assert [n for n, some in zeros.items() if some] == ["second"]
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_a_trial_is_quantized_with_the_masks_that_it_asks_for() -> None:
    trials = Trials(Net().eval(), BATCHES, sparsity={"enabled": True})
    model = trials.quantized(QuantizeSpec(), sparse=["second"], rules={"*": "percentile"})
    weight = model.get_submodule("second").weight
    assert isinstance(weight, Tensor)
    assert ((weight.reshape(32, 8, 4, 9) == 0).sum(2) >= 2).all()
    assert trials.count == 1


class Held(nn.Module):
    """A model that cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def __deepcopy__(self, memo: Any) -> Any:
        message = "a handle is no value"
        raise TypeError(message)


def test_a_model_that_cannot_be_copied_is_one_sentence() -> None:
    with pytest.raises(ModelError, match="Held cannot be copied: a handle is no value"):
        Trials(Held(), [torch.zeros(1, 4)]).float_model()


def test_a_budget_chooses_masks_beside_formats() -> None:
    found = tq.budget(
        Net().eval(), BATCHES, BATCHES, 60.0, by="sqnr", target="orin-agx",
        calibration={"algorithm": "max"}, sparsity={"enabled": True},
    )  # fmt: skip
    assert {layer.name for layer in found.layers} == {"first", "second", "third"}
    assert "float" in {layer.format for layer in found.layers}
    assert found.quality["chosen"] >= 60.0
    with pytest.raises(InputError, match=r"limit 3: 3 layers take at least \d+ quantizations"):
        tq.budget(Net().eval(), BATCHES, BATCHES, 60.0, by="sqnr", target="orin-agx",
                  calibration={"algorithm": "max"}, limit=3)  # fmt: skip
