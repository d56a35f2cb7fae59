"""The pretended device refuses what torch refuses, takes what it takes, and is inherited."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.pretended_device import pretended_cuda


@pytest.fixture(autouse=True)
def _device() -> Iterator[None]:
    with pretended_cuda():
        yield


@pytest.mark.parametrize(
    "mixes",
    [
        lambda here, there: here + there,
        lambda here, there: torch.where(there > 0, there, here),
        lambda here, there: torch.cat([here, there]),
        lambda here, there: torch.stack([here.sum(), there.sum()]),
        lambda here, there: here * there.sum(),
        lambda here, there: here.sum().add_(there.sum()),
        lambda here, there: here[there.long()],
        lambda here, there: there.__setitem__(torch.tensor([0, 1, 2]), here),
        lambda here, there: torch.equal(here, there),
        lambda here, there: nn.functional.linear(here, torch.zeros_like(there)[None]),
        lambda here, there: torch.rand(3, generator=torch.Generator(), device=there.device),
    ],
)
def test_what_mixes_devices_is_refused(mixes: Callable[[Tensor, Tensor], Any]) -> None:
    with pytest.raises(RuntimeError, match=r"same device|'cuda' device type"):
        mixes(torch.zeros(3), torch.zeros(3, device="cuda"))


def test_what_lies_on_a_gpu_is_no_array() -> None:
    there = torch.from_numpy(np.arange(4)).cuda()
    for take in (np.asarray, Tensor.numpy):
        with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
            take(there)
    assert there.cpu().numpy().tolist() == there.tolist() == [0, 1, 2, 3]


def test_what_torch_takes_of_both_sides_is_taken() -> None:
    here, there = torch.arange(3.0), torch.zeros(3, device="cuda")
    there[:] = here
    assert (there * torch.tensor(2.0))[torch.tensor([2])].tolist() == [4.0]
    assert torch.where(there > 1, there, torch.ones(())).device.type == "cuda"
    assert here.copy_(there).device.type == torch.tensor([there.sum()]).device.type == "cpu"
    assert here.to(there).is_cuda
    assert not there.to("cpu", torch.float64).is_cuda


def test_what_is_made_of_it_lies_there_too() -> None:
    layer = nn.Linear(4, 4).to("cuda")
    layer(torch.ones(2, 4, device="cuda")).sum().backward()
    weight = layer.weight
    made: tuple[Any, ...] = (
        weight.data,
        weight.detach()[0],
        nn.Parameter(weight.data),
        copy.deepcopy(weight),
    )
    made += (weight.grad, weight.new_zeros(3), torch.zeros_like(weight), layer.state_dict()["bias"])
    assert {tensor.device for tensor in made} == {torch.device("cuda:0")}
    assert {p.device.type for p in layer.to("cpu").parameters()} == {"cpu"}
