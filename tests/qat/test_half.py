"""Models in half precision: right from opset 19 on, and one sentence where it cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from tests.qat.random_networks import randomize
from trt_qat.errors import ModelError
from trt_qat.qat.export import export
from trt_qat.qat.placement.calls import evaluated
from trt_qat.qat.quantize import quantize
from trt_qat.recipe.specs import ExportSpec

BATCH = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def model(dtype: torch.dtype, *, before: bool) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    ).eval()  # fmt: skip
    randomize(net)
    if before:
        return quantize(net.to(dtype), [BATCH.to(dtype)])
    return quantize(net, [BATCH]).to(dtype)


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(True, id="before quantize", marks=pytest.mark.slow),
        pytest.param(False, id="after"),
    ],
)
def test_half_is_right_from_opset_19_on(before: bool, tmp_path: Path) -> None:
    net = model(torch.float16, before=before)
    batch = BATCH.half()
    path = export(net, batch, tmp_path / "half.onnx", spec=ExportSpec(opset=19))
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    scales = {n.input[1] for n in graph.graph.node if n.op_type.endswith("Linear")}
    kinds = {t.data_type for t in graph.graph.initializer if t.name in scales}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert "Cast" not in {n.op_type for n in graph.graph.node}
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
    want = evaluated(net, batch).float().numpy()
    assert np.abs(np.asarray(got, np.float32) - want).max() <= 1e-2 * np.abs(want).max()


@pytest.mark.parametrize(
    ("dtype", "opset", "mend"),
    [
        (torch.float16, 17, r"FLOAT16, which opset 17 cannot say; set export.opset = 19"),
        (torch.bfloat16, 21, r"BFLOAT16, which opset 21 cannot say; export model.float\(\)"),
        pytest.param(
            torch.float64, 21, r"DOUBLE, which opset 21 cannot say; export", marks=pytest.mark.slow
        ),
    ],
)
def test_what_an_opset_cannot_say_is_refused(
    dtype: torch.dtype, opset: int, mend: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=mend):
        export(
            model(dtype, before=True),
            BATCH.to(dtype),
            tmp_path / "model.onnx",
            spec=ExportSpec(opset=opset),
        )
    assert list(tmp_path.iterdir()) == []
