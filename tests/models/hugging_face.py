"""Models that we did not write: ``transformers`` nets built from config classes, no download."""

from __future__ import annotations

from typing import Literal

from torch import nn

AttentionImplementation = Literal["eager", "sdpa"]


def hf_resnet(*, in_channels: int = 3, num_classes: int = 10, width: int = 16) -> nn.Module:
    """Bottleneck ResNet, whose layers sit in ``convolution``/``normalization`` pairs."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        num_channels=in_channels,
        embedding_size=width,
        hidden_sizes=[4 * width, 8 * width, 16 * width, 32 * width],
        depths=[1, 2, 2, 1],
        layer_type="bottleneck",
    )
    config.num_labels = num_classes
    return ResNetForImageClassification(config)


def hf_mobilenet_v2(
    *, in_channels: int = 3, num_classes: int = 10, width: float = 0.5
) -> nn.Module:
    """MobileNetV2 with TensorFlow padding (a data-independent F.pad before each strided conv)."""
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    config = MobileNetV2Config(
        num_channels=in_channels,
        image_size=32,
        depth_multiplier=width,
        depth_divisible_by=16,
        min_depth=16,
    )
    config.num_labels = num_classes
    return MobileNetV2ForImageClassification(config)


def hf_vit(
    *,
    in_channels: int = 3,
    num_classes: int = 10,
    dim: int = 64,
    depth: int = 2,
    attention: AttentionImplementation = "sdpa",
) -> nn.Module:
    """ViT at image 32, patch 8."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=dim,
        num_hidden_layers=depth,
        num_attention_heads=4,
        intermediate_size=4 * dim,
        image_size=32,
        patch_size=8,
        num_channels=in_channels,
    )
    config.num_labels = num_classes
    config._attn_implementation = attention
    return ViTForImageClassification(config)


def hf_bert(
    *,
    vocabulary: int = 128,
    num_classes: int = 4,
    dim: int = 64,
    depth: int = 2,
    attention: AttentionImplementation = "sdpa",
) -> nn.Module:
    """BERT for sequence classification, called with ``(input_ids, attention_mask)``."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=dim,
        num_hidden_layers=depth,
        num_attention_heads=4,
        intermediate_size=4 * dim,
        max_position_embeddings=64,
    )
    config.num_labels = num_classes
    config._attn_implementation = attention
    return BertForSequenceClassification(config)
