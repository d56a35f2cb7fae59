"""The training loop: masks, best weights, schedule, seeds, own loops, other processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.qat.training import SPEC, same_weights, small_model, stripes, train
from trt_qat.errors import CheckFailed, DataError, InputError, ModelError
from trt_qat.qat import trainer
from trt_qat.qat.evaluate import Evaluation, evaluate
from trt_qat.qat.quantize import quantize
from trt_qat.qat.reports import report_of
from trt_qat.qat.schedule import parameter_groups
from trt_qat.qat.sparsify import sparse_layers, sparsify
from trt_qat.recipe.specs import TrainSpec


def masked_weight(model: nn.Module, name: str) -> Tensor:
    return cast("Tensor", model.get_submodule(name).weight)


def breaks_2_4(model: nn.Module) -> list[str]:
    """Layers with a mask that have more than 2 of 4 input channels in use somewhere."""

    def used(name: str) -> Tensor:
        used = masked_weight(model, name) != 0
        return used.reshape(len(used), -1, 4, *used.shape[2:]).sum(2)

    return [name for name in sparse_layers(model) if int(used(name).max()) > 2]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_masks_hold_at_every_step(optimizer: str) -> None:
    model = sparsify(small_model())
    masked = sparse_layers(model)
    steps = 0

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal steps
        steps += 1
        assert breaks_2_4(model) == []
        return F.cross_entropy(outputs, targets)

    before = [masked_weight(model, name).clone() for name in masked]
    spec = SPEC.model_copy(update={"optimizer": optimizer, "clip_norm": None})
    train(model, stripes(), loss_fn=loss, spec=spec)
    assert steps == 15
    assert len(masked) >= 4
    assert breaks_2_4(model) == []
    for name, old in zip(masked, before, strict=True):
        assert not torch.equal(masked_weight(model, name), old)


def test_learns_and_reports() -> None:
    model = train(small_model(), stripes(160), validation_batches=stripes(80, 1), spec=SPEC_LONG)
    found = evaluate(model, stripes(200, seed=2))
    assert found.accuracy > 0.9
    assert not model.training
    last = report_of(model).history[-1]
    assert last.keys() == {
        *("step", "epoch", "loss", "accuracy", "lr", "seconds"),
        *("validation_loss", "validation_accuracy"),
    }
    assert (last["step"], last["epoch"]) == (60, 6.0)


SPEC_LONG = SPEC.model_copy(update={"epochs": 6.0})


def test_best_weights_come_back() -> None:
    """From epoch 3 on the loss is turned round, so that the model unlearns."""
    calls = 0

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += int(outputs.requires_grad)
        sign = 1.0 if calls <= 30 else -3.0
        return sign * F.cross_entropy(outputs, targets).clamp(max=20.0)

    validation = stripes(80, 1)
    model = train(
        small_model(), stripes(160), loss_fn=loss, validation_batches=validation, spec=SPEC_LONG
    )
    rows = [row for row in report_of(model).history if "validation_accuracy" in row]
    best = max(row["validation_accuracy"] for row in rows)
    assert rows[-1]["validation_accuracy"] < best
    assert evaluate(model, validation).accuracy == best


def test_of_equal_accuracies_the_later_wins(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"lr": 1e-12})
    frozen = small_model().eval()
    train(frozen, stripes(), spec=spec, validation_batches=stripes(8, 1), checkpoint_dir=tmp_path)
    state = torch.load(tmp_path / "training.pt", weights_only=True)
    scores = [r["validation_accuracy"] for r in state["history"] if "validation_accuracy" in r]
    later = max(index for index, score in enumerate(scores) if score == max(scores))
    assert state["best"]["step"] == 5 * (later + 1)


@pytest.mark.parametrize(
    ("answers", "kept"),
    [
        ([range(90), range(2, 90), range(10, 90)], 1),  # 2 fewer, 2 differ: no chance
        ([range(90), range(4, 92)], 2),  # 2 fewer, 6 differ: chance
        ([range(90), range(4, 92), range(8, 94)], 2),  # 4 fewer than the best, 12 differ: no chance
        ([range(80), range(90), range(10, 80)], 2),
    ],
    ids=["as many as differ", "chance", "no drift", "worse"],
)
def test_later_weights_win_within_one_standard_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answers: list[range], kept: int
) -> None:
    """Which of 100 images each epoch gets right is given; an early lucky epoch must not win."""
    epochs = iter(answers)

    def evaluation(*_: Any, **__: Any) -> Evaluation:
        correct = np.isin(np.arange(100), next(epochs))
        return Evaluation(float(correct.mean()), correct, np.zeros((100, 4), np.float32), 0.0, 1.0)

    monkeypatch.setattr(trainer, "evaluate", evaluation)
    spec = SPEC.model_copy(update={"epochs": float(len(answers))})
    data = stripes()
    train(small_model(), data, spec=spec, validation_batches=data, checkpoint_dir=tmp_path)
    state = torch.load(tmp_path / "training.pt", weights_only=True)
    assert state["best"]["step"] == 5 * kept
    assert state["best"]["score"] == max(len(right) for right in answers) / 100


def test_schedule_warms_up_and_ends_at_the_final_ratio() -> None:
    spec = TrainSpec(epochs=2.5, batch_size=16, lr=0.1, warmup=0.25, final_lr_ratio=0.02)
    model = train(small_model(), stripes(64), spec=spec)
    rates = [row["lr"] for row in report_of(model).history]
    assert len(rates) == 10  # 2.5 epochs of 4 steps
    assert rates[:3] == pytest.approx([0.1 / 3, 0.2 / 3, 0.1])
    assert rates[-1] == pytest.approx(0.002)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert report_of(model).history[-1]["epoch"] == 2.5


def test_only_matrices_decay() -> None:
    model = small_model()
    model.register_parameter("learned_scale", nn.Parameter(torch.ones(4, 1, 1, 1)))
    decayed, rest = parameter_groups(model, 0.1)
    assert decayed["weight_decay"] == 0.1
    assert rest["weight_decay"] == 0.0
    weights = [m.weight for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert {id(p) for p in decayed["params"]} == {id(p) for p in weights}  # type: ignore[attr-defined]
    assert len(rest["params"]) + len(weights) == len(list(model.parameters()))  # type: ignore[arg-type]


def test_each_knob_changes_the_result() -> None:
    plain = train(small_model(), stripes())
    knobs: list[dict[str, Any]] = [
        {"label_smoothing": 0.2},
        {"clip_norm": 0.1},
        {"weight_decay": 0.9},
        {"augment": "shift"},
        {"optimizer": "sgd"},
        {"freeze_batchnorm": 0.5},
        {"precision": "bf16"},
        {"seed": 1},
    ]
    for knob in knobs:
        other = train(small_model(), stripes(), spec=SPEC.model_copy(update=knob))
        assert not same_weights(plain, other), knob


def test_batchnorm_statistics_stand_still_after_their_part() -> None:
    seen: list[int] = []
    model = small_model()
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert norm.num_batches_tracked is not None

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(int(norm.num_batches_tracked))  # type: ignore[arg-type]
        return F.cross_entropy(outputs, targets)

    train(model, stripes(), loss_fn=loss, spec=SPEC.model_copy(update={"freeze_batchnorm": 0.4}))
    assert seen == [1, 2, 3, 4, 5, 6] + [6] * 9


def test_same_seed_same_bits_and_the_callers_random_state_stays() -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    before = torch.get_rng_state()
    threads = torch.get_num_threads()
    first = train(small_model(), stripes())
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.random() == np.random.RandomState(7).random()
    torch.manual_seed(8)
    assert same_weights(first, train(small_model(), stripes()))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run(value: float) -> None:
    calls = iter([1.0, 1.0, value])

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets) * next(calls)

    said = (
        rf"became {value} at step 2 of 15 \(lr 0\.00493\), .*layer answers is finite, so the loss"
    )
    with pytest.raises(CheckFailed, match=said):
        train(small_model(), stripes(), loss_fn=loss)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (lambda y: y + 1, "hold label 4, and the model answers 4 classes: 0 to 3"),
        (lambda y: y - 1, "hold label -1"),
        (lambda y: y + 0.5, "float64 and no whole numbers; classes are wanted"),
        (lambda y: np.eye(4)[y], "one-hot rows take"),
        (lambda y: y[:, None], r"one class of each is wanted, \(16,\)"),
    ],
)
def test_labels_that_are_no_classes_are_one_sentence(labels: Any, said: str) -> None:
    data = stripes()
    with pytest.raises(DataError, match=said):
        train(small_model(), [(data.images[:16], labels(data.labels[:16]))])


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda o, y: F.cross_entropy(o, y, reduction="none"), r"returned \(16,\)"),
        (lambda o, y: 0.5, "returned float"),
        (lambda o, y: {"loss": o.sum()}, "returned dict"),
        (lambda o, y: o.detach().sum(), "returned a tensor without a gradient"),
    ],
)
def test_a_loss_that_is_no_scalar_is_one_sentence(loss: Any, said: str) -> None:
    with pytest.raises(ModelError, match=f"the loss function {said}"):
        train(small_model(), stripes(), loss_fn=loss)


class Dies(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Its process is killed as by the kernel, for want of memory."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 40:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(1, 8, 8), 0


def test_a_dead_process_of_the_loader_is_one_sentence() -> None:
    loader: Any = DataLoader(Dies(), batch_size=16, num_workers=1)
    with pytest.raises(DataError, match="training data died: DataLoader worker"):
        train(small_model(), loader)


def test_own_loop_on_accelerate() -> None:
    """What `quantize` returns is a plain module: prepare it, and train as ever."""
    data, held_out = stripes(160), stripes(200, seed=1)
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    model: Any = quantize(sparsify(train(small_model(), data)), [images])
    before = evaluate(model, held_out).accuracy
    accelerator = Accelerator(cpu=True)
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loader: Any = DataLoader(TensorDataset(images, labels), batch_size=16)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    model.train()
    for _ in range(6):
        for batch, targets in loader:
            optimizer.zero_grad()
            accelerator.backward(F.cross_entropy(model(batch), targets))
            optimizer.step()
            assert breaks_2_4(model) == []
    assert evaluate(model, held_out).accuracy > max(before, 0.9)


def linear() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))


class Wide(nn.Module):
    """Asks for more memory than there is where a batch holds more than ``most`` samples."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.inner, self.most = linear(), most

    def forward(self, x: Tensor) -> Tensor:
        torch.empty(2**50 if len(x) > self.most else 1)
        return self.inner(x)  # type: ignore[no-any-return]


def test_accumulated_batches_are_one_step() -> None:
    whole, data = train(linear(), stripes()), stripes()
    knobs = {"batch_size": 4, "accumulate": 4}
    parts = train(linear(), data, spec=SPEC.model_copy(update=knobs))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    assert [row["step"] for row in report_of(parts).history][-1] == 15


def test_a_batch_beyond_the_memory_is_halved_and_said() -> None:
    whole = train(linear(), stripes()).state_dict()
    with pytest.warns(UserWarning, match=r"step 0: memory ran out on 16 .* batch_size = 8 with"):
        model = train(Wide(5), stripes(), validation_batches=None)
    assert len([w for w in report_of(model).warnings if "ran out" in w]) == 2  # 16, then 8
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, whole[name.removeprefix("inner.")], rtol=1e-4, atol=1e-5)


def test_a_sample_beyond_the_memory_is_one_sentence() -> None:
    with (
        pytest.warns(UserWarning, match="memory ran out"),
        pytest.raises(InputError, match=r"at step 0 of 15 .*on a batch of 1; lower batch_size"),
    ):
        train(Wide(0), stripes())


TWO_PROCESSES = """
import os, sys, torch
from torch import nn
from tests.qat.training import stripes, train
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))
train(model, stripes(), validation_batches=stripes(40, seed=1))
if os.environ["RANK"] == "0":
    torch.save(model.state_dict(), sys.argv[1])
"""


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*command, str(script), str(tmp_path / "two.pt")],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=180,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))
    alone = train(model, stripes(), validation_batches=stripes(40, seed=1)).state_dict()
    both = torch.load(tmp_path / "two.pt", weights_only=True)
    for name, value in both.items():
        torch.testing.assert_close(value, alone[name], rtol=1e-3, atol=1e-4)


def test_weights_keep_their_memory_format() -> None:
    """Training may lay them out channels-last; ModelOpt refuses to sparsify such a model."""
    model = train(small_model(), stripes())
    assert all(parameter.is_contiguous() for parameter in model.parameters())
