"""Masks that training chooses anew: what moves, until when, and that nothing else is changed."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trt_qat as tq
from tests.qat.training import same_weights, small_model, stripes
from trt_qat.errors import InputError, ModelError, RecipeError
from trt_qat.graph.sparsity import holds_2_4
from trt_qat.qat.masked import masked_layers
from trt_qat.recipe.load import load_recipe
from trt_qat.recipe.specs import FinetuneSpec

SHORT = {"epochs": 2.0, "batch_size": 16, "lr": 5e-3, "label_smoothing": 0.0}
MOVING = SHORT | {"recompute_masks": 0.5, "recompute_every": 2}
STEPS = 10  # of 80 samples, in batches of 16


@pytest.fixture(scope="module")
def student() -> nn.Module:
    images = torch.from_numpy(stripes().images)
    return tq.quantize(tq.sparsify(small_model().eval(), images[:2]), [images])


def trained(student: nn.Module, spec: dict[str, Any], **arguments: Any) -> nn.Module:
    given = FinetuneSpec.model_validate(spec)
    model = copy.deepcopy(student)
    return tq.finetune(model, stripes(), spec=given, progress=False, **arguments)


def masks(model: nn.Module) -> dict[str, Tensor]:
    return {n: layer._buffers["_weight_mask"].clone() for n, layer in masked_layers(model).items()}  # type: ignore[union-attr]


def moved(one: dict[str, Tensor], other: dict[str, Tensor]) -> int:
    return sum(int((one[name] != other[name]).sum()) for name in one)


class Watched:
    """A loss that notes the masks at every step."""

    def __init__(self, model: nn.Module, until: int = 1 << 30) -> None:
        self.model, self.until, self.seen = model, until, list[dict[str, Tensor]]()

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if len(self.seen) == self.until:
            raise KeyboardInterrupt
        self.seen.append(masks(self.model))
        return F.cross_entropy(outputs, targets)


def test_masks_move_until_the_freeze_step_and_stand_still_from_there(student: nn.Module) -> None:
    model = copy.deepcopy(student)
    loss = Watched(model)
    spec = FinetuneSpec.model_validate(MOVING)
    tq.finetune(model, stripes(), loss, spec=spec, progress=False)
    steps = [moved(a, b) for a, b in zip(loss.seen, loss.seen[1:], strict=False)]
    assert len(loss.seen) == STEPS
    assert [step + 1 for step, count in enumerate(steps) if count] == [2, 4, 5]
    assert all(holds_2_4(m.numpy(), axis=1) for m in masks(model).values())
    rows = [row["masks_moved"] for row in tq.report_of(model).history]
    assert any(rows[:5])
    assert not any(rows[5:])


def test_without_the_key_masks_stay_what_they_are(student: nn.Module) -> None:
    found = trained(student, SHORT)
    assert moved(masks(student), masks(found)) == 0
    assert "masks_moved" not in tq.report_of(found).history[0]


def test_weights_behind_a_mask_learn_while_it_may_move_alone(student: nn.Module) -> None:
    model = copy.deepcopy(student).eval()
    layer: Any = next(iter(masked_layers(model).values()))
    images, labels = torch.from_numpy(stripes().images), torch.from_numpy(stripes().labels)

    def behind() -> Tensor:
        model.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(images), labels))
        return layer._parameters["weight"].grad[~layer._weight_mask]  # type: ignore[no-any-return]

    assert not behind().any()
    before = model(images)
    tq.recompute_masks(model, decay=0.0)
    assert behind().any()
    assert torch.equal(before, model(images)), "the mask still hides what it hides"
    tq.recompute_masks(model, decay=0.0, freeze=True)
    assert not behind().any()


def test_masks_come_by_the_magnitudes_of_the_dense_weights(student: nn.Module) -> None:
    model = copy.deepcopy(student)
    layer: Any = next(iter(masked_layers(model).values()))
    dense = layer._parameters["weight"]
    with torch.no_grad():
        dense.copy_(torch.where(layer._weight_mask, dense, 10.0 + dense.abs()))
    before = layer._weight_mask.clone()
    part = tq.recompute_masks(model, decay=0.0)
    assert torch.equal(layer._weight_mask, ~before)
    assert 0 < part < 1


def test_what_is_behind_a_mask_decays_and_nothing_else(student: nn.Module) -> None:
    model = copy.deepcopy(student)
    layer: Any = next(iter(masked_layers(model).values()))
    before, mask = layer._parameters["weight"].detach().clone(), layer._weight_mask.clone()
    tq.recompute_masks(model, decay=0.25)
    after = layer._parameters["weight"].detach()
    assert torch.equal(after[mask], before[mask])
    assert torch.allclose(after[~mask], 0.75 * before[~mask])


def test_masks_do_not_wander_under_an_adaptive_optimizer(student: nn.Module) -> None:
    """AdamW moves what nothing answers as far as what matters: the default holds it back."""
    long = MOVING | {"epochs": 8.0, "recompute_masks": 1.0, "lr": 2e-3}

    def left(decay: dict[str, Any]) -> int:
        return moved(masks(student), masks(trained(student, long | decay)))

    assert 0 < 3 * left({}) < left({"mask_decay": 2e-4})


@pytest.mark.slow
def test_a_loop_of_the_users_own_moves_masks_and_exports(
    student: nn.Module, tmp_path: Path
) -> None:
    model = copy.deepcopy(student).train()
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    images, labels = torch.from_numpy(stripes().images), torch.from_numpy(stripes().labels)
    tq.recompute_masks(model)
    for step in range(6):
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(images), labels))
        optimizer.step()
        tq.recompute_masks(model, freeze=step == 4)
    assert moved(masks(student), masks(model)) > 0
    path = tq.export(model.eval(), images[:2], tmp_path / "model.onnx")
    assert tq.preflight(path).summary["sparse_found"] == len(masks(model))


def test_a_run_that_stopped_goes_on_as_if_it_had_not(student: nn.Module, tmp_path: Path) -> None:
    spec = MOVING | {"recompute_masks": 0.8}
    whole = trained(student, spec)
    model = copy.deepcopy(student)
    given = FinetuneSpec.model_validate(spec)
    stop = Watched(model, until=6)  # in the second epoch
    with pytest.raises(KeyboardInterrupt):
        tq.finetune(model, stripes(), stop, spec=given, progress=False, checkpoint_dir=tmp_path)
    again = trained(student, spec, loss_fn=F.cross_entropy, checkpoint_dir=tmp_path, resume=True)
    assert same_weights(whole, again)
    kept = [[row["masks_moved"] for row in tq.report_of(m).history] for m in (whole, again)]
    assert kept[0] == kept[1]


def test_a_pickled_model_moves_its_masks_as_well(student: nn.Module) -> None:
    model = pickle.loads(pickle.dumps(student))
    assert same_weights(trained(student, MOVING), trained(model, MOVING))


def test_a_training_that_broke_off_leaves_masks_as_any_are(student: nn.Module) -> None:
    model = copy.deepcopy(student)
    spec = FinetuneSpec.model_validate(MOVING)
    with pytest.raises(KeyboardInterrupt):
        tq.finetune(model, stripes(), Watched(model, until=1), spec=spec, progress=False)
    assert not any(layer._mask_moves for layer in masked_layers(model).values())


def test_a_model_without_masks_is_refused() -> None:
    with pytest.raises(ModelError, match=r"holds no 2:4 mask; call sparsify first"):
        trained(small_model(), MOVING)
    with pytest.raises(ModelError, match=r"holds no 2:4 mask; call sparsify first"):
        tq.recompute_masks(small_model())


def test_a_decay_that_is_no_part_is_refused(student: nn.Module) -> None:
    with pytest.raises(InputError, match=r"decay 2: allowed: a part of 1"):
        tq.recompute_masks(student, decay=2)


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("sparsity.enabled=false", r"set sparsity\.enabled = true"),
        ('sparsity.method="wanda"', r"chooses by magnitude, which undoes sparsity\.method"),
    ],
)
def test_a_recipe_whose_masks_cannot_move_is_refused_before_a_run(key: str, named: str) -> None:
    engine = Path(__file__).parents[2] / "engines" / "digits-int8-24.toml"
    with pytest.raises(RecipeError, match=named):
        load_recipe(engine, ["finetune.recompute_masks=0.3", key])
