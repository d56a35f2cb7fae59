"""A sentence encoder without labels, in a loop of its own that `trt_qat.Run` records.

The text is installed: docstrings of Python's own modules. Sentences of one docstring are near each
other, of two they are not; that trains the float encoder. INT8 needs no text with labels: the
quantized encoder is trained to answer what the float one does, and judged by how far it is off.

    python examples/sentences/sentences.py runs/sentences
"""

from __future__ import annotations

import ast
import random
import re
import sys
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trt_qat as tq

WORDS, LENGTH, WIDTH, HEADS = 4096, 16, 64, 4
BATCH = 64

Inputs = dict[str, Tensor]


def docstrings() -> Iterator[str]:
    """Yield the docstrings of the top modules of the standard library."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        yield from (
            text for node in ast.walk(tree) if isinstance(node, kinds)
            if (text := ast.get_docstring(node))
        )  # fmt: skip


def pairs(count: int) -> list[tuple[str, str]]:
    """Return two sentences each of ``count`` docstrings."""
    found = []
    for text in docstrings():
        said = [s for s in re.split(r"(?<=[.!?])\s+|\n\n", text) if len(s.split()) > 3]
        if len(said) > 1:
            found.append((said[0], said[1]))
        if len(found) == count:
            break
    random.Random(0).shuffle(found)
    return found


def encode(sentences: list[str]) -> Inputs:
    """Return ``ids (N, 16) int64`` of words, and ``mask (N, 16) float32`` of those that are one."""
    ids, mask = torch.zeros(len(sentences), LENGTH, dtype=torch.int64), []
    for row, sentence in zip(ids, sentences, strict=True):
        words = re.findall(r"\w+", sentence.lower())[:LENGTH]
        row[: len(words)] = torch.tensor([1 + zlib.crc32(w.encode()) % (WORDS - 1) for w in words])
        mask.append((row > 0).float())
    return {"ids": ids, "mask": torch.stack(mask)}


class Layer(nn.Module):
    """Attention and a feed-forward net, each behind a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.value, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        y = self.near(x)
        split = (-1, LENGTH, HEADS, WIDTH // HEADS)
        q, k, v = (f(y).view(split).transpose(1, 2) for f in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5 + bias
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, LENGTH, WIDTH)
        x = x + self.out(y)
        return x + self.down(F.gelu(self.up(self.far(x))))


class Encoder(nn.Module):
    """``ids`` and ``mask``, ``(N, 16)``, to ``{"embedding": (N, 64)}``."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Parameter(0.02 * torch.randn(LENGTH, WIDTH))
        self.layers = nn.ModuleList(Layer() for _ in range(2))

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        x = self.words(ids) + self.places
        bias = (mask[:, None, None] - 1) * 1e4
        for layer in self.layers:
            x = layer(x, bias)
        weights = mask[:, :, None]
        return {"embedding": (x * weights).sum(1) / weights.sum(1).clamp_min(1)}


def train(model: Encoder, couples: list[tuple[str, str]], epochs: int) -> None:
    """Let the first sentence of a docstring find its second among those of the batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        for start in range(0, len(couples) - BATCH + 1, BATCH):
            left, right = zip(*couples[start : start + BATCH], strict=True)
            sides = [F.normalize(model(**encode(list(s)))["embedding"]) for s in (left, right)]
            logits = sides[0] @ sides[1].T / 0.1
            loss = F.cross_entropy(logits, torch.arange(len(logits)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def main(folder: str, count: int = 768, epochs: int = 6) -> None:
    """Train, quantize, distil, export and verify into a run folder."""
    torch.manual_seed(0)
    couples = pairs(count)
    held, known = couples[: count // 4], couples[count // 4 :]
    batches = [encode([a for a, _ in known][at : at + BATCH]) for at in range(0, len(known), BATCH)]
    test = [encode([b for _, b in held][at : at + BATCH]) for at in range(0, len(held), BATCH)]

    model = Encoder()
    train(model, known, epochs)
    tables = {"task": {"kind": "embedding"}, "calibration": {"samples": 256}}
    with tq.Run(folder, test=test, progress=print, **tables) as run:
        teacher = run.float_model(model, batches)
        model = run.quantize(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
        for epoch in run.epochs(3, model, optimizer):
            for inputs in batches:
                with torch.no_grad():
                    wanted = teacher(**inputs)["embedding"]
                loss = F.mse_loss(model(**inputs)["embedding"], wanted)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            run.log(epoch=epoch + 1, loss=loss.item())
        run.export(model)
    print(f"{run.folder}: {run.result.metrics['onnx']['accuracy']:.4f} cosine to the float encoder")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/sentences")
