"""sparsify: which layers hold 2:4, which do not and why, and that the masks stay on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trt_qat.errors import ModelError, RecipeError
from trt_qat.graph.sparsity import holds_2_4
from trt_qat.qat.quantize import quantize
from trt_qat.qat.reports import report_of
from trt_qat.qat.sparsify import sparse_layers, sparsify
from trt_qat.recipe.specs import SparsitySpec


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(),
        nn.Conv2d(16, 32, 3), nn.ReLU(),
        nn.Conv2d(32, 32, 3, groups=4), nn.Flatten(),
        nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def weight(model: nn.Module, layer: str) -> torch.Tensor:
    """The weight as the forward sees it: with its mask."""
    value = model.get_submodule(layer).weight
    assert isinstance(value, torch.Tensor)
    return value.detach().clone()


BATCH = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_two_of_four_input_channels_stay_with_the_larger_magnitudes() -> None:
    model = net()
    before = weight(model, "2")
    sparsify(model, BATCH)
    after = weight(model, "2")
    assert holds_2_4(after.numpy(), axis=1)
    groups = before.abs().permute(0, 2, 3, 1).reshape(-1, 4)
    kept = after.permute(0, 2, 3, 1).reshape(-1, 4) != 0
    smallest_kept = groups.masked_fill(~kept, torch.inf).amin(1)
    largest_cut = groups.masked_fill(kept, -torch.inf).amax(1)
    assert bool((smallest_kept >= largest_cut).all())


def test_report_says_why_each_other_layer_is_dense() -> None:
    model = sparsify(net(), BATCH)
    report = report_of(model)
    assert [n.name for n in report.sparse] == ["2", "6"]
    why = {n.name: n.why for n in report.skipped}
    assert why["0"] == "first layer: it reads the network's input"
    assert "8 per group -> 32" in why["4"]
    assert "64 -> 10" in why["8"]


def test_first_layer_is_the_one_that_runs_first_not_the_one_defined_first() -> None:
    class Reversed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second = nn.Linear(32, 32)
            self.first = nn.Linear(32, 32)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))  # type: ignore[no-any-return]

    model = sparsify(Reversed(), torch.randn(2, 32))
    assert sparse_layers(model) == ("second",)


def test_recipe_patterns_choose_layers() -> None:
    model = sparsify(net(), BATCH, SparsitySpec(exclude=("6",)))
    assert sparse_layers(model) == ("2",)
    assert {n.name: n.why for n in report_of(model).skipped}["6"].startswith("recipe")


def test_pattern_without_a_match_names_the_nearest_layers() -> None:
    with pytest.raises(RecipeError, match=r"sparsity\.exclude: 'layer6' matches no layer"):
        sparsify(net(), BATCH, SparsitySpec(exclude=("layer6",)))


def test_disabled_sparsity_changes_nothing() -> None:
    model = net()
    before = weight(model, "2")
    sparsify(model, BATCH, SparsitySpec(enabled=False))
    assert torch.equal(before, weight(model, "2"))
    assert sparse_layers(model) == ()


def test_model_without_a_fitting_layer_is_refused_with_the_mend() -> None:
    with pytest.raises(ModelError, match=r"no layer can hold 2:4.*sparsity\.enabled = false"):
        sparsify(nn.Sequential(nn.Linear(10, 10)), torch.randn(2, 10))


def test_sparsify_after_quantize_is_refused() -> None:
    model = quantize(net(), [BATCH])
    with pytest.raises(ModelError, match="call sparsify before quantize"):
        sparsify(model, BATCH)


def test_masks_hold_at_every_step_of_a_users_own_loop() -> None:
    model = sparsify(net(), BATCH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        model(BATCH).square().mean().backward()
        optimizer.step()
        assert holds_2_4(weight(model, "2").numpy(), axis=1)
        assert holds_2_4(weight(model, "6").numpy(), axis=1)
