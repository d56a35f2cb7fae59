"""A model with masks and quantizers comes back from its file as it was, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.qat.training import Arrays, same_weights, small_model, stripes, train
from tests.test_atomic import files_end_at
from trt_qat.errors import ModelError
from trt_qat.qat.checkpoint import load_into, save
from trt_qat.qat.checkpointing import save_checkpoint
from trt_qat.qat.quantize import quantize, ranges_of
from trt_qat.qat.sparsify import sparsify
from trt_qat.recipe.specs import TrainSpec


def batch(data: Arrays, count: int = 8) -> torch.Tensor:
    return torch.from_numpy(data.images[:count])


def sparse_int8(seed: int = 0, data: Arrays | None = None) -> nn.Module:
    data = data or stripes()
    model = sparsify(small_model(seed), batch(data, 2))
    return quantize(model, [batch(data)])


def test_a_trained_model_with_masks_and_quantizers_comes_back_bit_for_bit(tmp_path: Path) -> None:
    data = stripes()
    model = train(sparse_int8(0, data), data, spec=TrainSpec(epochs=1, batch_size=16, lr=1e-3))
    path = save(model, tmp_path / "deep" / "qat.pt")

    # Other first weights, so other masks and ranges, all of which the file must replace.
    rebuilt = quantize(
        sparsify(small_model(1), batch(data, 2)), [batch(data)], ranges=ranges_of(model)
    )
    assert not same_weights(rebuilt, model)
    load_into(rebuilt, path)

    assert same_weights(rebuilt, model)
    with torch.no_grad():
        assert torch.equal(rebuilt.eval()(batch(data)), model.eval()(batch(data)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.pt: no such file"):
        load_into(nn.Linear(2, 2), tmp_path / "absent.pt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04" + b"\0" * 60])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "qat.pt"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"qat\.pt: cannot be read"):
        load_into(nn.Linear(2, 2), path)


def test_a_file_of_something_else_than_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "qat.pt")
    with pytest.raises(ModelError, match="holds a list, not a state dict"):
        load_into(nn.Linear(2, 2), tmp_path / "qat.pt")


def test_a_checkpoint_of_the_float_model_is_refused_by_the_key_that_it_lacks(
    tmp_path: Path,
) -> None:
    path = save(small_model(), tmp_path / "fp32.pt")
    model = sparse_int8()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ModelError, match=r"lacks '.*_quantizer.*' \(nearest: "):
        load_into(model, path)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_checkpoint_of_a_wider_model_is_refused_by_its_shape(tmp_path: Path) -> None:
    path = save(nn.Linear(3, 2), tmp_path / "qat.pt")
    with pytest.raises(ModelError, match=r"'weight' is \(2, 3\), the model's is \(2, 2\)"):
        load_into(nn.Linear(2, 2), path)


def test_a_checkpoint_with_keys_of_another_model_is_refused(tmp_path: Path) -> None:
    path = save(nn.Linear(2, 2), tmp_path / "qat.pt")
    with pytest.raises(ModelError, match="holds 'bias', which the model lacks"):
        load_into(nn.Linear(2, 2, bias=False), path)


def test_equal_models_make_equal_files_whatever_the_process(tmp_path: Path) -> None:
    model = small_model()
    ours = save(model, tmp_path / "fp32.pt").read_bytes()
    other = save(small_model(), tmp_path / "elsewhere" / "again.pt").read_bytes()
    assert ours == other
    assert f".{os.getpid()}.".encode() not in ours


@pytest.mark.parametrize("room", [10, 5000])
def test_a_full_disk_is_told_as_such_and_not_as_torchs_own_error(tmp_path: Path, room: int) -> None:
    path = save(small_model(0), tmp_path / "fp32.pt")
    before = path.read_bytes()
    with files_end_at(room), pytest.raises(OSError, match="File too large") as raised:
        save(small_model(1), path)
    assert raised.value.filename == str(path)
    assert path.read_bytes() == before
    with files_end_at(room), pytest.raises(OSError, match="File too large"):
        save_checkpoint(tmp_path / "c", {"model": small_model().state_dict()})
    assert list((tmp_path / "c").iterdir()) == []
