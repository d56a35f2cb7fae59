"""ViT (pre-norm) and a BERT-style encoder (post-norm) with the attention written in two ways."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Attention = Literal["sdpa", "explicit"]


class FusedAttention(nn.Module):
    """Self-attention from one qkv projection, ``(N, L, dim)`` to the same."""

    def __init__(self, dim: int, heads: int, attention: Attention) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.attention = attention
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.attention == "sdpa":
            context = F.scaled_dot_product_attention(query, key, value)
        else:
            weights = ((query * self.scale) @ key.transpose(-2, -1)).softmax(dim=-1)
            context = weights @ value
        return self.proj(context.transpose(1, 2).reshape(batch, length, dim))  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    """Pre-norm attention and MLP, both added to the residual stream."""

    def __init__(self, dim: int, heads: int, mlp: int, attention: Attention) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = FusedAttention(dim, heads, attention)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp), nn.GELU(), nn.Linear(mlp, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """``(N, in_channels, image, image)`` to ``(N, num_classes)`` read off the class token."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        image: int,
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        attention: Attention,
    ) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(in_channels, dim, patch, patch)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, (image // patch) ** 2 + 1, dim))
        self.blocks = nn.Sequential(
            *(EncoderLayer(dim, heads, 4 * dim, attention) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])  # type: ignore[no-any-return]


def vit(
    *,
    in_channels: int = 3,
    num_classes: int = 10,
    image: int = 32,
    patch: int = 8,
    dim: int = 64,
    depth: int = 4,
    heads: int = 4,
    attention: Attention = "sdpa",
) -> nn.Module:
    """Image 224, patch 16, dim 768, depth 12 and 12 heads are the published ViT-B/16."""
    return VisionTransformer(
        in_channels,
        num_classes,
        image=image,
        patch=patch,
        dim=dim,
        depth=depth,
        heads=heads,
        attention=attention,
    )


class BertLayer(nn.Module):
    """Post-norm attention with separate query, key and value, an additive mask, then the MLP."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.size = dim // heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.output = nn.Linear(dim, dim)
        self.output_norm = nn.LayerNorm(dim, eps=1e-12)
        self.intermediate = nn.Linear(dim, 4 * dim)
        self.down = nn.Linear(4 * dim, dim)
        self.down_norm = nn.LayerNorm(dim, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), -1, self.heads, self.size).transpose(1, 2)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (self._split(f(x)) for f in (self.query, self.key, self.value))
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(self.size) + bias
        weights = self.dropout(F.softmax(scores, dim=-1))
        context = torch.matmul(weights, value).transpose(1, 2).flatten(2)
        x = self.output_norm(x + self.dropout(self.output(context)))
        hidden = F.gelu(self.intermediate(x))
        return self.down_norm(x + self.dropout(self.down(hidden)))  # type: ignore[no-any-return]


class Bert(nn.Module):
    """Token ids and their 0/1 mask, both ``(N, L)`` int64, to ``(N, num_classes)``."""

    position_ids: Tensor

    def __init__(
        self, vocabulary: int, num_classes: int, dim: int, depth: int, heads: int, length: int
    ) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, dim)
        self.position_embeddings = nn.Embedding(length, dim)
        self.register_buffer("position_ids", torch.arange(length)[None], persistent=False)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.dropout = nn.Dropout(0.1)
        self.layers = nn.ModuleList(BertLayer(dim, heads, 0.1) for _ in range(depth))
        self.pooler = nn.Linear(dim, dim)
        self.classifier = nn.Linear(dim, num_classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        positions = self.position_embeddings(self.position_ids[:, : input_ids.size(1)])
        x = self.dropout(self.norm(self.word_embeddings(input_ids) + positions))
        bias = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, bias)
        return self.classifier(self.dropout(torch.tanh(self.pooler(x[:, 0]))))  # type: ignore[no-any-return]


def bert(
    *,
    vocabulary: int = 128,
    num_classes: int = 4,
    dim: int = 64,
    depth: int = 2,
    heads: int = 4,
    length: int = 32,
) -> nn.Module:
    """Vocabulary 30522, dim 768, depth 12, 12 heads and length 512 are the published base net."""
    return Bert(vocabulary, num_classes, dim, depth, heads, length)
