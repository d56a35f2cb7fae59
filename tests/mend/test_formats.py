"""``--fp16`` on files of every number format: the remainder is cast, the codes are as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import trt_qat as tq
from tests.qat.test_weight_only import encoder, rows
from trt_qat.graph.qdq import Graph
from trt_qat.measure.metrics import sqnr_db
from trt_qat.mend.precision import Half


@pytest.mark.parametrize("kind", ["fp8", "int4", "nvfp4"])
def test_layers_and_scales_are_cast_and_codes_are_not(kind: str, tmp_path: Path) -> None:
    made = tq.quantize(encoder(), [rows()], spec={"format": kind, "heads": "int8"})
    path = tq.export(made, rows(4), tmp_path / "model.onnx")
    out = tmp_path / "half.onnx"
    report = tq.fix(str(path), str(out), half=Half())
    assert {change.rule for change in report.changes} == {"QDQ201"}
    before, after = (Graph.from_file(each) for each in (path, out))
    for graph in (before, after):
        assert [node.op for node in graph.nodes].count("DequantizeLinear") == len(
            [node for node in before.nodes if node.is_dequantize()]
        )
    for name in ("up", "down", "head"):
        (layer,) = [node for node in after.nodes if node.name == name]
        weight = after.weight(layer)
        assert weight is not None
        assert weight.dequantize is not None
        scale = weight.dequantize.input(1)
        first = after.producer(scale)
        kept = scale if first is None else first.input(1)
        assert after.element_type(kept) == onnx.TensorProto.FLOAT16
    outputs = []
    for each in (path, out):
        with tq.runner(f"ort:{each}") as runner:
            (output,) = runner.infer({next(iter(runner.inputs)): rows(4).numpy()}).values()
        outputs.append(np.asarray(output, np.float32))
    assert (sqnr_db(*outputs) or 300.0) > 25
