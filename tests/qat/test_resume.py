"""A run that is killed and resumed gives the bits of one that was not, or says why it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tests.qat.training import SPEC, same_weights, small_model, stripes, train
from trt_qat.errors import DataError, InputError, ModelError, RecipeError
from trt_qat.qat import trainer
from trt_qat.qat.models import residual_cnn
from trt_qat.qat.quantize import quantize
from trt_qat.qat.reports import report_of
from trt_qat.qat.sparsify import sparsify
from trt_qat.recipe.specs import FinetuneSpec


def rows_of(model: nn.Module) -> list[dict[str, Any]]:
    """The history without wall time."""
    history = report_of(model).history
    return [{key: row[key] for key in row if key != "seconds"} for row in history]


def interrupted(after: int) -> Callable[[Any, Tensor], Tensor]:
    """A cross entropy that raises at its call number ``after`` (from 0)."""
    calls = iter(range(after))

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return F.cross_entropy(outputs, targets)

    return loss


class Noisy(Dataset[tuple[Tensor, int]]):
    """Adds noise from torch's global generator, as data sets do that augment."""

    def __len__(self) -> int:
        return 80

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        data = stripes()
        noise = 0.1 * torch.randn(1, 8, 8)
        return torch.from_numpy(data.images[index]) + noise, int(data.labels[index])


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
import torch.nn.functional as F
from tests.qat.training import small_model, stripes, train
from trt_qat.qat import trainer
torch.set_num_threads(int(sys.argv[2]))
trainer.CHECKPOINT_STEPS = 3
calls = iter(range(8))
def loss(outputs, targets):
    if next(calls, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return F.cross_entropy(outputs, targets)
train(small_model(), stripes(), loss_fn=loss, validation_batches=stripes(40, seed=1),
      checkpoint_dir=Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_resume_after_sigkill_gives_the_same_bits(tmp_path: Path) -> None:
    # 5 steps an epoch, a checkpoint every 3 and at epoch ends: the kill in step 8 loses 2 steps.
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(torch.get_num_threads())]
    dead = subprocess.run(command, cwd=Path(__file__).parents[2], check=False, timeout=120)
    assert dead.returncode == -signal.SIGKILL
    assert [file.name for file in tmp_path.iterdir()] == ["training.pt"]
    assert torch.load(tmp_path / "training.pt", weights_only=True)["step"] == 6
    common: dict[str, Any] = {
        "validation_batches": stripes(40, seed=1),
        "loss_fn": F.cross_entropy,
    }
    resumed = train(small_model(), stripes(), checkpoint_dir=tmp_path, resume=True, **common)
    whole = train(small_model(), stripes(), **common)
    assert same_weights(resumed, whole)
    assert rows_of(resumed) == rows_of(whole)
    assert report_of(resumed).history[-1]["step"] == 15


def test_sigterm_ends_a_step_keeps_it_and_then_does_what_it_did(tmp_path: Path) -> None:
    class Ended(BaseException):
        pass

    def end(number: int, frame: object) -> None:
        raise Ended

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGTERM)
        return F.cross_entropy(outputs, targets)

    calls = iter(range(7))
    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(Ended):
            train(small_model(), stripes(), loss_fn=loss, checkpoint_dir=tmp_path)
        assert signal.getsignal(signal.SIGTERM) is end
    finally:
        signal.signal(signal.SIGTERM, before)
    assert torch.load(tmp_path / "training.pt", weights_only=True)["step"] == 8
    common: dict[str, Any] = {"loss_fn": F.cross_entropy}
    resumed = train(small_model(), stripes(), checkpoint_dir=tmp_path, resume=True, **common)
    assert same_weights(resumed, train(small_model(), stripes(), **common))


def test_resume_of_a_shuffled_loader_with_random_augmentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "CHECKPOINT_STEPS", 3)

    def loader() -> DataLoader[Any]:
        return DataLoader(Noisy(), batch_size=16, shuffle=True)

    model = small_model()
    with pytest.raises(KeyboardInterrupt):
        train(model, loader(), loss_fn=interrupted(13), checkpoint_dir=tmp_path)
    resumed = train(model, loader(), loss_fn=F.cross_entropy, checkpoint_dir=tmp_path, resume=True)
    whole = train(small_model(), loader(), loss_fn=F.cross_entropy)
    assert same_weights(resumed, whole)


def test_resume_of_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    first = train(small_model(), stripes(), checkpoint_dir=tmp_path)
    again = train(small_model(1), stripes(), checkpoint_dir=tmp_path, resume=True)
    assert same_weights(first, again)
    assert report_of(first).history == report_of(again).history


def test_resume_without_a_checkpoint_starts_afresh(tmp_path: Path) -> None:
    resumed = train(small_model(), stripes(), checkpoint_dir=tmp_path / "new", resume=True)
    assert same_weights(resumed, train(small_model(), stripes()))


def test_resume_refuses_what_does_not_belong_to_the_checkpoint(tmp_path: Path) -> None:
    train(small_model(), stripes(), checkpoint_dir=tmp_path)
    again: dict[str, Any] = {"checkpoint_dir": tmp_path, "resume": True}
    other = SPEC.model_copy(update={"lr": 1e-3, "seed": 4})
    with pytest.raises(RecipeError, match=r"lr: 0\.005 then, 0\.001 now, seed: 0 then, 4 now"):
        train(small_model(), stripes(), spec=other, **again)
    with pytest.raises(DataError, match="other training data"):
        train(small_model(), stripes(seed=5), **again)
    with pytest.raises(ModelError, match=r"checkpoint in .* is of another model"):
        train(residual_cnn(num_classes=4, widths=(16, 32)), stripes(), **again)
    with pytest.raises(InputError, match="needs checkpoint_dir"):
        train(small_model(), stripes(), resume=True)
    (tmp_path / "training.pt").write_bytes(b"half of a file")
    with pytest.raises(RecipeError, match="is no training checkpoint"):
        train(small_model(), stripes(), **again)


def test_qat_of_a_quantized_model_resumes_too(tmp_path: Path) -> None:
    data = stripes()

    def fresh() -> nn.Module:
        return quantize(sparsify(small_model()), [torch.from_numpy(data.images[:16])])

    spec = FinetuneSpec(epochs=2, batch_size=16)
    with pytest.raises(KeyboardInterrupt):
        train(fresh(), data, loss_fn=interrupted(7), checkpoint_dir=tmp_path, spec=spec)
    common: dict[str, Any] = {"loss_fn": F.cross_entropy, "spec": spec}
    resumed = train(fresh(), data, checkpoint_dir=tmp_path, resume=True, **common)
    assert same_weights(resumed, train(fresh(), data, **common))
