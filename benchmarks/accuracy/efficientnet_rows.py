"""What each row of `efficientnet.py` is: the options of quantize, and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

BEST = {"rounding": "learned", "bias_correction": True}
FOLDED: dict[str, Any] = {"ptq": BEST, "spec": {"zero_point": "folded"}}
PADDED: dict[str, Any] = {"ptq": BEST, "spec": {"zero_point": "padded"}}
SPLIT: dict[str, Any] = {
    "ptq": {**BEST, "split": True},
    "spec": {"zero_point": "padded"},
}
ONE_FLOAT: dict[str, Any] = {
    "ptq": BEST,
    "spec": {"zero_point": "padded", "exclude": ["_blocks.0._depthwise_conv*"]},
}
"""The first depthwise layer reads what the stem writes: half of the noise is of that tensor."""
TWO_BLOCKS: dict[str, Any] = {
    "ptq": BEST,
    "spec": {"exclude": ["_blocks.0.*", "_blocks.1.*"]},
}
"""5 of 50 layers, where all pixels are."""

FOUR = ("_blocks.12._expand_conv*", "_blocks.13.*", "_blocks.14._project_conv*")
"""Of the layers with 200,000 weights and more those that 2:4 costs least, each alone
(`pruned_layers.py`): a fifth of the weights that can be pruned."""

PTQ: dict[str, dict[str, Any]] = {
    "ours: max": {"calibration": {"algorithm": "max"}},
    "ours: percentile 99.99": {"calibration": {"algorithm": "percentile"}},
    "ours: entropy": {"calibration": {"algorithm": "entropy"}},
    "ours: mse (default)": {},
    "ours: moving average": {"calibration": {"algorithm": "moving_average"}},
    "ours: mse, equalize": {"ptq": {"equalize": True}},
    "ours: mse, bias correction": {"ptq": {"bias_correction": True}},
    "ours: mse, learned rounding": {"ptq": {"rounding": "learned"}},
    "ours: mse, rounding and bias": {"ptq": BEST},
    "ours: mse, zero points folded, padding too": {"spec": {"zero_point": "padded"}},
    "ours: mse, rounding and bias, zero points folded": FOLDED,
    "ours: mse, rounding and bias, zero points folded, padding too": PADDED,
    "ours: mse, rounding and bias, zero points folded, padding too, channels split": SPLIT,
    "ours: mse, rounding and bias, zero points folded, padding too, one layer float": ONE_FLOAT,
    "ours: mse, rounding and bias, the first two blocks float": TWO_BLOCKS,
    "ours: fp8, where there is a kernel": {
        "spec": {"format": "fp8"},
        "calibration": {"algorithm": "max"},
    },
}


@dataclass(frozen=True)
class Recovery:
    """A network that learns from its float self.

    Attributes:
        options: of quantize.
        steps: of training, in batches of 8.
        lr: its rate.
        crops: that it is of.
        features: weight of inner tensors.
        sparse: patterns of layers that get 2:4 masks before.
        tail: the block from which on the float network is pruned and trained alone at first;
            0: it is not.
    """

    options: dict[str, Any]
    steps: int
    lr: float = 2e-5
    crops: int = 600
    features: float = 0.3
    sparse: tuple[str, ...] = ()
    tail: int = 0


TRAINING: dict[str, Any] = {"weight_decay": 0.0, "freeze_batchnorm": 0.0, "average": "ema"}
"""Of all that is trained."""
TAIL: dict[str, Any] = {**TRAINING, "steps": 1200, "lr": 2e-4, "ema_decay": 0.99}
"""Of batches of 32 of what stands before the blocks."""
TAIL_ROUNDS = 12
"""Of crops of each photograph, with a thing before it and without."""

RECOVERY = {
    "ours: all INT8, zero points folded, padding too": Recovery(PADDED, 1500, 5e-5, 2400),
    "ours: all INT8, zero points folded, padding too, channels split": Recovery(
        SPLIT, 1400, 3e-5, 3600
    ),
    "ours: one layer float, zero points folded, padding too": Recovery(ONE_FLOAT, 240),
    "ours: 2:4 by sparsegpt in four layers, zero points folded, padding too, channels split": (
        Recovery(SPLIT, 200, 3e-5, 1600, sparse=FOUR, tail=12)
    ),
}


def table(document: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the documents' table: other tools first, then by the SQNR."""
    header = ["method", "agreement", "SQNR, dB", "samples", "seconds"]

    def order(row: dict[str, Any]) -> tuple[bool, bool, float]:
        return row["name"].startswith("ours"), "2:4" in row["name"], row["sqnr_db"]

    rows = [
        [
            row["name"].removeprefix("ours: "),
            f"{100 * row['agreement']:.1f} % ± {100 * row['standard_error']:.1f}",
            f"{row['sqnr_db']:.1f}",
            f"{row['samples']:,}",
            f"{row['seconds']:.0f}",
        ]
        for row in sorted(document["rows"], key=order)
    ]
    return header, rows
