"""Layers that multiply by ``x @ weight``: chosen as linear layers with the same weights are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trt_qat as tq
from tests.qat.test_weight_only import WIDE, rows


class Product(nn.Module):
    """A layer whose weight is ``(in, out)``, as of GPT-2."""

    def __init__(self, like: nn.Linear, by: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(like.weight.detach().T.contiguous())
        self.bias = nn.Parameter(like.bias.detach().clone())
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        """Return the product, of rank 2 by the function that ``by`` names."""
        if self.by == "addmm":
            return torch.addmm(self.bias, x, self.weight)
        if self.by == "mm":
            return torch.mm(x, self.weight) + self.bias
        return x @ self.weight + self.bias


class Twin(nn.Module):
    """Two layers, as `nn.Linear` or as products."""

    def __init__(self, by: str | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        first, second = nn.Linear(WIDE, 128), nn.Linear(128, 64)
        self.first = first if by is None else Product(first, by)
        self.second = second if by is None else Product(second, by)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, 64)``."""
        return cast("Tensor", self.second(F.gelu(self.first(x))))


def error(model: nn.Module) -> float:
    """Return the mean square of what a model's output is off."""
    given = rows()[:, 0]
    with torch.no_grad():
        return float((model(given) - Twin(None)(given)).square().mean())


@pytest.mark.parametrize("by", ["@", "mm", "addmm"])
@pytest.mark.parametrize(
    ("spec", "ptq"),
    [
        ({"format": "nvfp4", "nvfp4_method": "gptq"}, {}),
        ({"format": "int4", "int4_method": "gptq"}, {}),
        ({"format": "int4"}, {"rounding": "learned"}),
        ({"format": "int8"}, {"rounding": "learned"}),
    ],
    ids=["nvfp4-gptq", "int4-gptq", "int4-learned", "int8-learned"],
)
def test_products_are_chosen_as_linear_layers_are(
    by: str, spec: dict[str, str], ptq: dict[str, Any]
) -> None:
    given = rows()[:, 0]
    keys = {**spec, "heads": "int8"}
    ours = tq.quantize(Twin(by), [given], spec=keys, ptq=ptq)
    twin = tq.quantize(Twin(None), [given], spec=keys, ptq=ptq)
    plain = tq.quantize(Twin(by), [given], spec={"format": spec["format"], "heads": "int8"})
    for name in ("first", "second"):
        found = ours.get_parameter(f"{name}.weight").T
        wanted = twin.get_parameter(f"{name}.weight")
        assert torch.isclose(found, wanted, atol=1e-6).float().mean() > 0.99
        assert not torch.equal(found, plain.get_parameter(f"{name}.weight").T)
    if spec["format"] != "int8":  # where the activations' error is most of it
        assert error(ours) < 0.8 * error(plain)


@pytest.mark.parametrize("kind", ["int4", "nvfp4"])
def test_products_have_their_ranges_searched_by_awq_and_keep_their_channels(
    kind: str, tmp_path: Path
) -> None:
    given = rows()[:, 0]
    keys = {"format": kind, "int4_block": 64, "heads": "int8"}
    method = {f"{kind}_method": "awq"}
    ours = tq.quantize(Twin("@"), [given], spec=keys | method)
    plain = tq.quantize(Twin("@"), [given], spec=keys)
    assert error(ours) < 0.95 * error(plain)
    with torch.no_grad():
        path = tq.export(ours, given[:4], tmp_path / "model.onnx")
        with tq.runner(f"ort:{path}") as runner:
            (found,) = runner.infer({next(iter(runner.inputs)): given[:4].numpy()}).values()
        assert np.allclose(found, ours(given[:4]).numpy(), atol=1e-4)
