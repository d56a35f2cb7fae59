"""Histograms count what a tensor holds, and what its scale cuts off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.graph.build import Builder
from trt_qat.comparison.histograms import BINS, histograms
from trt_qat.graph.layer_facts import layer_facts
from trt_qat.runners.ort_tapped import OrtTapped

SCALE = 0.02


@pytest.fixture
def model(tmp_path: Path) -> OrtTapped:
    b = Builder(seed=0)
    x = b.qdq(b.input("x", ["N", 8, 6, 6]), SCALE, name="in")
    y = b.conv(x, (8, 8), "conv", relu=True)
    onnx.save(b.model(b.qdq(y, 0.01, name="out")), tmp_path / "model.onnx")
    return OrtTapped(tmp_path / "model.onnx")


def test_what_is_beyond_the_clip_point_is_counted(model: OrtTapped) -> None:
    images = np.random.default_rng(0).standard_normal((10, 8, 6, 6)).astype(np.float32)
    images[0, 0, 0, 0] = 127 * np.float32(SCALE)  # the clip point itself is held
    found = {counts.tensor: counts for counts in histograms(model, {"x": images})}
    counts = found["x"]
    assert counts.clip == pytest.approx(127 * SCALE)
    assert counts.elements == counts.counts.sum() == images.size
    assert counts.beyond == counts.counts[BINS:].sum() == np.sum(np.abs(images) > counts.clip)
    assert counts.largest == pytest.approx(np.abs(images).max())
    assert len(found) == 2, "the input, and what the layer writes"
    assert counts.to_dict()["beyond"] == counts.beyond / images.size


def test_the_facts_of_a_layer_name_the_scale_that_it_reads(model: OrtTapped) -> None:
    (layer,) = layer_facts(model.model)
    assert (layer.name, layer.op, layer.shape) == ("conv", "Conv", (8, 8, 3, 3))
    assert layer.scale == pytest.approx(SCALE)
