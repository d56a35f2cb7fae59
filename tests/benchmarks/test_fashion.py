"""Fashion-MNIST by every method: canvases, rows and what is made of them over the seeds."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import trt_qat as tq
from benchmarks.accuracy.fashion import Lab, Table, named
from benchmarks.accuracy.fashion_table import estimate, summary, table
from benchmarks.accuracy.garments import KIND, STYLES, Parts, Style, scattered
from trt_qat.data import ArraySplit
from trt_qat.qat.models import residual_cnn
from trt_qat.qat.sparsify import sparse_layers


def garments(count: int, name: str = "train", side: int = 28) -> ArraySplit:
    """Return pictures whose brightness, 0.5 and more, is their class."""
    labels = np.arange(count, dtype=np.int64) % 10
    images = np.full((count, 1, side, side), 0.5, np.float32)
    images += labels.astype(np.float32)[:, None, None, None] / 20
    return ArraySplit(images, labels, name, np.arange(count))


def lab(style: Style) -> Lab:
    names = ("train", "validation", "calibration", "test")
    data = Parts(*(garments(40, name, 28) for name in names))
    torch.manual_seed(0)
    return Lab(style, data, 0, style.build().eval(), {"dense": 1e-3, "2:4": 1e-3})


SMALL = Style(
    partial(residual_cnn, 1, 10, [16, 32], 1, 2), {"epochs": 2.0}, {"epochs": 0.5}, {}, 40
)


def test_a_pixel_of_a_canvas_has_the_kind_of_its_garment() -> None:
    found = scattered(garments(30), 20)
    assert found.images.shape == (20, 1, 32, 32)
    assert found.labels.shape == (20, 32, 32)
    ground = found.labels == 0
    assert ground.any(axis=(1, 2)).all()
    assert (~ground).sum(axis=(1, 2)).min() >= 14 * 14
    pixels = found.images[:, 0]
    assert pixels[ground].max() <= 0.3
    of_class = np.rint((pixels[~ground] - 0.5) * 20).astype(int)
    assert (found.labels[~ground] == KIND[of_class]).all()


def test_canvases_are_the_same_again_and_other_ones_of_another_part() -> None:
    first, again = scattered(garments(30), 4), scattered(garments(30), 4)
    assert first.digest == again.digest
    assert scattered(garments(20), 4).digest != first.digest


@pytest.mark.parametrize("row", ["2:4 by sparsegpt, QAT", "QAT, distilled, no labels", "FP8, max"])
def test_a_row_is_made_of_a_copy_of_the_float_network(row: str) -> None:
    tried = lab(SMALL)
    before = {name: value.clone() for name, value in tried.network.state_dict().items()}
    make, samples = tried.rows()[row]
    made = make()
    assert samples == (40 if "FP8" in row else 60)
    assert bool(sparse_layers(made)) == ("2:4" in row)
    assert tq.report_of(made).quantized
    assert 0 <= tried.score(made, tried.data.test) <= 1
    assert all(torch.equal(before[name], now) for name, now in tried.network.state_dict().items())


def test_rows_of_weights_alone_fit_the_linear_layers_of_the_vit() -> None:
    assert [name for name, style in STYLES.items() if style.linear] == ["ViT"]
    tried = lab(Style(STYLES["ViT"].build, {"epochs": 1.0}, {"epochs": 1.0}, {}, 40, linear=True))
    make, _ = tried.rows()["INT4 weights, round-to-nearest"]
    names = {note.name for note in tq.report_of(make()).quantized}
    wide = {name for name, layer in STYLES["ViT"].build().named_modules()
            if isinstance(layer, torch.nn.Linear) and "blocks" in name}  # fmt: skip
    assert wide <= names
    assert len(wide) == 16


def test_a_summary_is_of_the_seeds_and_against_fp32_of_the_same_seed() -> None:
    scores = {"FP32": (0.90, 0.92, 0.94), "QAT": (0.91, 0.92, 0.96)}
    rows = [
        {"style": "ViT", "name": name, "seed": seed, "score": score, "seconds": 2.0, "samples": 8}
        for name, found in scores.items()
        for seed, score in enumerate(found)
    ]
    found = summary(rows)["ViT"]
    assert found["FP32"]["score"] == [92.0, 4.97]  # 4.303 x 2 / sqrt(3)
    assert found["QAT"]["to_fp32"] == [1.0, 2.48]  # of 1, 0, 2
    document = {"summary": summary(rows), "styles": {"ViT": {"metric": "top1"}}}
    header, lines = table(document)
    assert header == ["method", "ViT, top-1", "seconds"]
    assert lines[0] == ["FP32", "92.00 % ± 4.97", "2 to 2"]
    assert lines[1] == ["QAT", "+1.00 ± 2.48", "2 to 2"]
    fewer = {"summary": summary(rows[:-1]), "styles": {"ViT": {"metric": "top1"}}}
    assert table(fewer)[1][1] == ["QAT", "+0.50 ± 6.35 (2 seeds)", "2 to 2"]  # 12.706 x 0.5


def test_one_seed_has_no_interval() -> None:
    assert estimate([91.234]) == [91.23, None]
    assert estimate([]) == [None, None]


def test_a_row_that_is_made_again_takes_its_place_and_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    row = {"style": "ViT", "seed": 0, "name": "FP32", "score": 0.9, "seconds": 1.0, "samples": 8}
    first, second = Table(path), Table(path)  # of two processes
    first.add(row)
    second.add({**row, "name": "QAT", "score": 0.8})
    first.add({**row, "score": 0.7})
    told = json.loads(path.read_text(encoding="utf-8"))
    assert [(each["name"], each["score"]) for each in told["rows"]] == [("FP32", 0.7), ("QAT", 0.8)]
    assert told["summary"]["ViT"]["QAT"]["to_fp32"] == [10.0, None]
    assert Table(path).has(style="ViT", seed=0, name="QAT")
    assert not Table(path).has(style="ViT", seed=1, name="QAT")


def test_rows_are_asked_for_by_patterns() -> None:
    assert named("2:4 by wanda, QAT", ["FP32", "2:4*QAT"])
    assert not named("2:4 by wanda, PTQ", ["FP32", "2:4*QAT"])
