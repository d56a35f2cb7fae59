"""The reference architectures: real topologies at sizes that a CPU test can afford.

Factories take keyword arguments (``tests.models:mobilenet_v2`` with ``in_channels=1`` trains on
28x28 greyscale); ``REFERENCE[name].build()`` gives the fixed, warmed model that tests compare on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.models.hugging_face import hf_bert, hf_mobilenet_v2, hf_resnet, hf_vit
from tests.models.mobile import efficientnet_b0, mobilenet_v2
from tests.models.reference import (
    ExampleInputs,
    Reference,
    built,
    images,
    outputs_of,
    tokens,
    warmed,
)
from tests.models.resnet import resnet18, resnet18_groupnorm, resnet34, resnet50, resnext50
from tests.models.special import functional, shared_layers, tied_weights, two_inputs, untraceable
from tests.models.transformer import bert, vit
from tests.models.unet import unet
from tests.models.yolo import yolo

__all__ = [
    "REFERENCE",
    "ExampleInputs",
    "Reference",
    "bert",
    "efficientnet_b0",
    "functional",
    "hf_bert",
    "hf_mobilenet_v2",
    "hf_resnet",
    "hf_vit",
    "mobilenet_v2",
    "outputs_of",
    "resnet18",
    "resnet18_groupnorm",
    "resnet34",
    "resnet50",
    "resnext50",
    "shared_layers",
    "tied_weights",
    "two_inputs",
    "unet",
    "untraceable",
    "vit",
    "warmed",
    "yolo",
]


def _image_and_vector(batch: int, seed: int = 0) -> tuple[Tensor, ...]:
    vector = torch.randn(batch, 32, generator=torch.Generator().manual_seed(seed + 1))
    return (*images()(batch, seed), vector)


def _reference(
    name: str, factory: Callable[..., nn.Module], inputs: ExampleInputs, **fields: Any
) -> Reference:
    return Reference(name, built(factory, inputs), inputs, **fields)


_IMAGES = images()
_MASKED = tokens(128, 16, masked=True)
_CNN: dict[str, Any] = {"family": "conv", "task": "classification"}
_TRANSFORMER: dict[str, Any] = {"family": "transformer", "task": "classification"}
_SCALES = ("stride8", "stride16", "stride32")

_ALL = (
    _reference("resnet18", resnet18, _IMAGES, **_CNN),
    _reference("resnet34", resnet34, _IMAGES, **_CNN),
    _reference("resnet50", resnet50, _IMAGES, **_CNN),
    _reference("resnext50", resnext50, _IMAGES, **_CNN),
    _reference("resnet18_groupnorm", resnet18_groupnorm, _IMAGES, **_CNN),
    _reference("mobilenet_v2", mobilenet_v2, _IMAGES, **_CNN),
    _reference("efficientnet_b0", efficientnet_b0, _IMAGES, **_CNN),
    _reference("unet", unet, _IMAGES, family="conv", task="segmentation"),
    _reference("yolo", yolo, images(size=64), family="conv", task="detection", outputs=_SCALES),
    _reference(
        "yolo_dfl",
        partial(yolo, dfl=True),
        images(size=64),
        family="conv",
        task="detection",
        outputs=_SCALES,
    ),
    _reference("vit", vit, _IMAGES, **_TRANSFORMER),
    _reference("vit_explicit", partial(vit, attention="explicit"), _IMAGES, **_TRANSFORMER),
    _reference("bert", bert, _MASKED, **_TRANSFORMER),
    _reference(
        "two_inputs",
        two_inputs,
        _image_and_vector,
        family="mixed",
        task="multi",
        outputs=("logits", "score"),
    ),
    _reference("shared_layers", shared_layers, _IMAGES, **_CNN),
    _reference(
        "tied_weights",
        tied_weights,
        tokens(128, 16, masked=False),
        family="transformer",
        task="language",
    ),
    _reference("functional", functional, _IMAGES, family="mixed", task="classification"),
    _reference(
        "untraceable", untraceable, _IMAGES, **_CNN, traceable=False, traced_part="backbone"
    ),
    _reference("hf_resnet", hf_resnet, _IMAGES, **_CNN),
    _reference("hf_mobilenet_v2", hf_mobilenet_v2, _IMAGES, **_CNN),
    _reference("hf_vit", hf_vit, _IMAGES, **_TRANSFORMER),
    _reference("hf_vit_eager", partial(hf_vit, attention="eager"), _IMAGES, **_TRANSFORMER),
    _reference("hf_bert", hf_bert, _MASKED, **_TRANSFORMER),
    _reference("hf_bert_eager", partial(hf_bert, attention="eager"), _MASKED, **_TRANSFORMER),
)

REFERENCE: dict[str, Reference] = {reference.name: reference for reference in _ALL}
