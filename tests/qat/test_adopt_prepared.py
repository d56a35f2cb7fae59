"""Models that torch.ao prepared and did not convert, or converted: taken over, or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trt_qat as tq
from tests.qat.test_adopt import BATCHES, EVERYTHING, chain, distance, normed
from trt_qat.errors import ModelError

ao = pytest.importorskip("torch.ao.quantization")
pytestmark = pytest.mark.filterwarnings("ignore")


def prepared_eagerly() -> Any:
    """Observers of torch.ao, which `ao.convert` would make fixed scales of."""
    model = nn.Sequential(ao.QuantStub(), *chain(), ao.DeQuantStub()).eval()
    model.qconfig = ao.get_default_qconfig("fbgemm")
    return ao.prepare(model)


def prepared_by_fx() -> Any:
    fx = pytest.importorskip("torch.ao.quantization.quantize_fx")
    mapping = ao.get_default_qat_qconfig_mapping("fbgemm")
    return fx.prepare_qat_fx(normed().train(), mapping, (BATCHES[0],))


@pytest.mark.parametrize("make", [prepared_eagerly, prepared_by_fx], ids=["eager", "QAT by fx"])
def test_observers_and_graphs_of_torch_ao_are_taken_over(make: Any, tmp_path: Path) -> None:
    source = make()
    with pytest.raises(ModelError, match=r"carries fake quantization by torch\.ao"):
        tq.quantize(make(), BATCHES)
    for batch in BATCHES:
        source(batch)
    adopted = tq.adopt(source.eval(), BATCHES, spec=EVERYTHING)
    assert "2 of 2 ranges" in tq.report_of(adopted).table()
    assert distance(source, adopted, tmp_path) < 0.05


def test_observers_that_saw_nothing_are_refused() -> None:
    with pytest.raises(ModelError, match="has no range; calibrate the model where it comes from"):
        tq.adopt(prepared_eagerly(), BATCHES)


def test_converted_kernels_are_refused_in_one_sentence(tmp_path: Path) -> None:
    source = prepared_eagerly()
    source(BATCHES[0])
    model = ao.convert(source)
    calls: dict[str, Callable[[], Any]] = {
        "adopt": lambda: tq.adopt(model, BATCHES),
        "quantize": lambda: tq.quantize(model, BATCHES),
        "export": lambda: tq.export(model, BATCHES[0], tmp_path / "no.onnx"),
    }
    for stage, call in calls.items():
        with pytest.raises(ModelError, match=f"^{stage}: '0' was converted to torch's quantized"):
            call()


def test_a_graph_of_torch_export_is_refused_in_one_sentence() -> None:
    graph = torch.export.export(chain(), (BATCHES[0],)).module()
    calls: list[Callable[[], Any]] = [
        lambda: tq.quantize(graph, BATCHES),
        lambda: tq.sparsify(graph),
    ]
    for call in calls:
        with pytest.raises(ModelError, match=r"is a graph of torch\.export, which has neither"):
            call()
