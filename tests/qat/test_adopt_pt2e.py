"""Graphs that torchao quantized (PT2E), prepared or converted, after training or in it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trt_qat as tq
from tests.qat.test_adopt import BATCHES, EVERYTHING, chain, distance, normed, refused_alike

pt2e = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e")
base = pytest.importorskip("torchao.quantization.pt2e.quantizer")
observer = pytest.importorskip("torchao.quantization.pt2e.observer")
x86 = pytest.importorskip("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
pytestmark = pytest.mark.filterwarnings("ignore")


def pt2e_of(model: nn.Module, quantizer: Any, *, qat: bool) -> Any:
    """A graph that torchao prepared, and that has seen the batches."""
    graph = torch.export.export(model.train(qat), (BATCHES[0],)).module()
    prepared = (pt2e.prepare_qat_pt2e if qat else pt2e.prepare_pt2e)(graph, quantizer)
    for batch in BATCHES:
        prepared(batch)
    return prepared


def x86_quantizer(*, qat: bool) -> Any:
    """Unsigned asymmetric activations, as torchao quantizes for CPUs."""
    quantizer = x86.X86InductorQuantizer()
    return quantizer.set_global(x86.get_default_x86_inductor_quantization_config(is_qat=qat))


@pytest.mark.parametrize("converted", [False, True], ids=["prepared", "converted"])
@pytest.mark.parametrize(
    "qat",
    [
        pytest.param(False, id="post-training"),
        pytest.param(True, id="QAT", marks=pytest.mark.slow),  # torchao traces every pattern
    ],
)
def test_a_pt2e_model_is_taken_over(qat: bool, converted: bool, tmp_path: Path) -> None:
    prepared = pt2e_of(normed(), x86_quantizer(qat=qat), qat=qat)
    state = {name: value.clone() for name, value in prepared.state_dict().items()}
    source = pt2e.convert_pt2e(copy.deepcopy(prepared))
    adopted = tq.adopt(source if converted else prepared, BATCHES, spec=EVERYTHING)
    assert "2 of 2 ranges and 2 weights taken over" in tq.report_of(adopted).table()
    assert distance(source, adopted, tmp_path) < 0.03  # the source is asymmetric
    assert all(torch.equal(value, prepared.state_dict()[name]) for name, value in state.items())


def symmetric_quantizer() -> Any:
    """Symmetric INT8 at the inputs and weights of convolutions: what TensorRT computes."""

    def spec(kind: Any, scheme: torch.qscheme, axis: int | None = None) -> Any:
        return base.QuantizationSpec(
            dtype=torch.int8, quant_min=-127, quant_max=127, qscheme=scheme, ch_axis=axis,
            observer_or_fake_quant_ctr=kind.with_args(eps=2**-12),
        )  # fmt: skip

    tensor = spec(observer.MinMaxObserver, torch.per_tensor_symmetric)
    channel = spec(observer.PerChannelMinMaxObserver, torch.per_channel_symmetric, 0)

    class Symmetric(base.Quantizer):  # type: ignore[misc,name-defined]
        def annotate(self, model: Any) -> Any:
            for node in model.graph.nodes:
                if node.target is torch.ops.aten.conv2d.default:
                    specs = {node.args[0]: tensor, node.args[1]: channel}
                    node.meta["quantization_annotation"] = base.QuantizationAnnotation(
                        input_qspec_map=specs, _annotated=True
                    )
            return model

        def validate(self, model: Any) -> None:
            pass

    return Symmetric()


def test_a_symmetric_pt2e_model_is_within_a_thousandth(tmp_path: Path) -> None:
    prepared = pt2e_of(chain(), symmetric_quantizer(), qat=False)
    source = pt2e.convert_pt2e(copy.deepcopy(prepared))
    for given in (prepared, source):
        adopted = tq.adopt(given, BATCHES, spec=EVERYTHING)
        assert "2 of 2 ranges and 2 weights taken over" in tq.report_of(adopted).table()
        assert distance(source, adopted, tmp_path) < 1e-3


@pytest.mark.parametrize("converted", [False, True], ids=["prepared", "converted"])
def test_quantize_and_export_refuse_in_one_sentence(converted: bool, tmp_path: Path) -> None:
    model = pt2e_of(chain(), symmetric_quantizer(), qat=False)
    model = pt2e.convert_pt2e(model) if converted else model
    assert "take its scales over with trt_qat.adopt" in refused_alike(model, tmp_path)
