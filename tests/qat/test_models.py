"""The reference models of recipes: shapes, channel rules, and graphs that can be traced."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx, nn

from trt_qat.errors import ModelError
from trt_qat.qat.models import REFERENCE_MODELS, residual_cnn


@pytest.mark.parametrize("name", sorted(REFERENCE_MODELS))
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 33)])
def test_maps_images_to_logits(name: str, channels: int, size: int) -> None:
    model = REFERENCE_MODELS[name](in_channels=channels, num_classes=7).eval()
    assert model(torch.randn(3, channels, size, size)).shape == (3, 7)


@pytest.mark.parametrize("name", sorted(REFERENCE_MODELS))
def test_every_dense_layer_but_the_first_can_hold_2_4(name: str) -> None:
    model = REFERENCE_MODELS[name]()
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    dense = [conv for conv in convs[1:] if conv.groups == 1]
    assert len(dense) >= 6
    assert all(conv.in_channels % 16 == 0 and conv.out_channels % 8 == 0 for conv in dense)


@pytest.mark.parametrize("name", sorted(REFERENCE_MODELS))
def test_traces_to_the_same_function(name: str) -> None:
    model = REFERENCE_MODELS[name]().eval()
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(fx.symbolic_trace(model)(images), model(images))


def test_residual_cnn_has_both_kinds_of_shortcut() -> None:
    model = residual_cnn(widths=(16, 32), blocks=2)
    kinds = [type(m) for name, m in model.named_modules() if name.endswith(".shortcut")]
    assert kinds == [nn.Identity, nn.Identity, nn.Sequential, nn.Identity]


def test_stem_stride_halves_the_resolution() -> None:
    stem = residual_cnn(stem_stride=2).get_submodule("stem")
    assert stem(torch.randn(1, 1, 28, 28)).shape[-1] == 14


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("residual_cnn", {"widths": (16, 24)}, r"widths = \[16, 24\].*multiple of 16"),
        ("residual_cnn", {"widths": ()}, r"residual_cnn: widths = \[\]"),
        ("residual_cnn", {"blocks": (1, 2)}, "blocks = .1, 2. for 3 widths"),
        ("residual_cnn", {"blocks": 0}, "blocks = 0 for 3 widths"),
        ("mobilenet_cnn", {"widths": (8,)}, "mobilenet_cnn: widths"),
        ("mobilenet_cnn", {"expansion": 0}, "expansion = 0; both must be >= 1"),
    ],
)
def test_says_what_is_wrong(name: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        REFERENCE_MODELS[name](**arguments)
