"""What the keys of training change, each by itself: distillation, averages, SAM, dampening."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trt_qat as tq
from tests.qat.training import same_weights, small_model, stripes
from trt_qat.errors import InputError, ModelError
from trt_qat.qat.averaging import reestimate_norms
from trt_qat.qat.distill import Distillation
from trt_qat.qat.flatness import perturbed, sharpness
from trt_qat.qat.layer_weights import weight_quantizers
from trt_qat.qat.quantizers.dampen import distance_to_grid
from trt_qat.recipe.specs import FinetuneSpec

SHORT = {
    "epochs": 2.0,
    "batch_size": 16,
    "lr": 2e-3,
    "label_smoothing": 0.0,
    "freeze_batchnorm": 0.0,
}
LONG = {"epochs": 12.0}


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    spec = {"epochs": 3, "batch_size": 16, "lr": 5e-3}
    return tq.finetune(small_model(), stripes(), spec=spec, progress=False)


@pytest.fixture(scope="module")
def student(teacher: nn.Module) -> nn.Module:
    """The teacher in INT8 on disturbed weights, so that there is something to recover."""
    model = copy.deepcopy(teacher)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.8 * parameter.std(correction=0) * noise)
    return tq.quantize(model, [torch.from_numpy(stripes().images)])


def trained(student: nn.Module, batches: Any = None, **arguments: Any) -> nn.Module:
    spec = FinetuneSpec.model_validate(SHORT | arguments.pop("spec", {}))
    data = stripes() if batches is None else batches
    return tq.finetune(copy.deepcopy(student), data, spec=spec, progress=False, **arguments)


def inputs() -> list[Tensor]:
    return list(torch.split(torch.from_numpy(stripes().images), 16))


def gap(model: nn.Module, teacher: nn.Module) -> float:
    given = torch.from_numpy(stripes(seed=1).images)
    with torch.no_grad():
        apart = model.eval()(given).log_softmax(1) - teacher.eval()(given).log_softmax(1)
    return float(apart.square().mean())


@pytest.mark.parametrize(
    "distill",
    [{"match": "logits"}, {"match": "outputs"}, {"match": "logits", "feature_weight": 1.0}],
)
def test_a_student_comes_closer_to_its_teacher_without_labels(
    student: nn.Module, teacher: nn.Module, distill: dict[str, Any]
) -> None:
    found = trained(student, inputs(), spec=LONG, teacher=teacher, distill=distill)
    assert gap(found, teacher) < 0.6 * gap(student, teacher)


def test_inner_tensors_alone_are_learned_too(student: nn.Module, teacher: nn.Module) -> None:
    spec = {"feature_weight": 1.0}
    found = trained(student, inputs(), spec=LONG, teacher=teacher, distill=spec)

    def apart(model: nn.Module) -> float:
        given = torch.from_numpy(stripes(seed=1).images)
        with Distillation(model.eval(), teacher, spec) as loss, torch.no_grad():
            return float(loss(given, model(given)))

    assert apart(found) < 0.5 * apart(copy.deepcopy(student))


def test_a_model_that_distilled_has_no_hook_left(student: nn.Module, teacher: nn.Module) -> None:
    found = trained(student, inputs(), teacher=teacher, distill={"feature_weight": 1.0})
    assert not any(m._forward_hooks for model in (found, teacher) for m in model.modules())


def test_validation_goes_by_the_classes_of_the_teacher(
    student: nn.Module, teacher: nn.Module
) -> None:
    found = trained(
        student,
        inputs(),
        teacher=teacher,
        distill={"match": "logits"},
        validation_batches=inputs(),
    )
    with torch.no_grad():
        given = torch.cat(inputs())
        agreement = (found(given).argmax(1) == teacher(given).argmax(1)).double().mean()
    rows = [r["validation_accuracy"] for r in tq.report_of(found).history if "validation_loss" in r]
    assert float(agreement) in rows


def test_distillation_in_a_loop_of_the_users(student: nn.Module, teacher: nn.Module) -> None:
    model = copy.deepcopy(student).eval()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    with Distillation(model, teacher, {"match": "logits", "feature_weight": 0.5}) as loss:
        for batch in inputs() * 2:
            optimizer.zero_grad()
            torch.autograd.backward(loss(batch, model(batch)))
            optimizer.step()
    assert gap(model, teacher) < gap(student, teacher)


def test_distillation_without_a_teacher_is_refused(student: nn.Module) -> None:
    with pytest.raises(InputError, match="distill needs a teacher"):
        trained(student, distill={"match": "logits"})


def test_a_teacher_of_another_kind_is_refused(student: nn.Module) -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.LayerNorm(64), nn.Linear(64, 4))
    loss = Distillation(copy.deepcopy(student), other, {"feature_weight": 1.0})
    with pytest.raises(ModelError, match="made by both"):
        loss(inputs()[0], torch.zeros(16, 4))


def way(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return sum(float((a - b).detach().norm()) for a, b in pairs)


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_an_average_is_kept_in_place_of_the_last_weights(student: nn.Module, average: str) -> None:
    last = trained(student)
    found = trained(student, spec={"average": average, "ema_decay": 0.9, "average_from": 0.0})
    assert not same_weights(last, found)
    assert way(found, last) < way(student, last)  # between where the run began and where it ended


def test_a_run_with_an_average_goes_on_as_if_it_had_not_stopped(
    student: nn.Module, tmp_path: Any
) -> None:
    whole = trained(student, spec={"average": "ema", "sam_rho": 0.05})
    with pytest.raises(KeyboardInterrupt):
        _stopped(student, tmp_path)
    again = trained(
        student,
        spec={"average": "ema", "sam_rho": 0.05},
        checkpoint_dir=tmp_path,
        resume=True,
    )
    assert same_weights(whole, again)
    assert tq.report_of(whole).sharpness == tq.report_of(again).sharpness


def _stopped(student: nn.Module, folder: Any) -> None:
    calls = 0

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > 30:  # in the second epoch: sharpness and SAM ask for the loss as well
            raise KeyboardInterrupt
        return nn.functional.cross_entropy(outputs, targets)

    spec = {"average": "ema", "sam_rho": 0.05}
    trained(student, loss_fn=loss, spec=spec, checkpoint_dir=folder)


def test_sam_reports_the_sharpness_and_ends_flatter(student: nn.Module) -> None:
    spec = {"epochs": 6.0}
    plain, flat = trained(student, spec=spec), trained(student, spec=spec | {"sam_rho": 0.2})
    report = tq.report_of(flat).sharpness
    assert set(report) == {"rho", "before", "after"}
    assert "sharpness after" in tq.report_of(flat).table()
    assert tq.report_of(plain).sharpness == {}

    def loss(model: nn.Module) -> float:
        pairs = [(torch.from_numpy(stripes().images), torch.from_numpy(stripes().labels))]
        return sharpness(
            model, pairs, lambda pair: nn.functional.cross_entropy(model(pair[0]), pair[1]), 0.2
        )

    assert loss(flat) < loss(plain)


def test_a_perturbation_goes_uphill_and_back() -> None:
    model = nn.Linear(4, 1, bias=False)
    before = model.weight.detach().clone()
    model(torch.ones(1, 4)).sum().backward()
    with perturbed(model, 0.5):
        assert torch.allclose(model.weight - before, torch.full((1, 4), 0.25))
    assert torch.equal(model.weight, before)


def test_dampening_pulls_weights_to_their_grid(student: nn.Module) -> None:
    def apart(model: nn.Module) -> float:
        each = [
            float(distance_to_grid(layer._parameters["weight"], quantizer))  # type: ignore[arg-type]
            for _, layer, quantizer in weight_quantizers(model)
        ]
        return sum(each) / len(each)

    assert apart(trained(student, spec={"dampening": 10.0})) < 0.75 * apart(trained(student))


def test_norms_are_measured_anew_for_the_weights_kept(student: nn.Module) -> None:
    model = copy.deepcopy(student)
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    expected = norm.running_mean.clone()  # type: ignore[union-attr]
    norm.running_mean.add_(5.0)  # type: ignore[union-attr]
    assert reestimate_norms(model, inputs()) > 1
    assert float((norm.running_mean - expected).abs().max()) < 2.5  # type: ignore[operator]
    assert norm.momentum is not None
    assert not norm.training
    kept = trained(student, spec={"reestimate_batchnorm": 4})
    assert not same_weights(kept, trained(student))
