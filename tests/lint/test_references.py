"""The reference architectures, quantized and exported by this package, are clean, and fit FP16.

Each takes seconds to a minute, most of it in torch, so all but two run with ``-m slow``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

pytest.importorskip("torch")
pytest.importorskip("modelopt")

from tests.models import REFERENCE, Reference
from trt_qat.graph.load import load_graph
from trt_qat.graph.node import Node
from trt_qat.graph.qdq import Graph
from trt_qat.graph.sparsity import layer_sparsity
from trt_qat.lint.preflight import PreflightReport, preflight
from trt_qat.mend import retype, trial
from trt_qat.mend.precision import Half
from trt_qat.qat.export import export
from trt_qat.qat.quantize import quantize
from trt_qat.qat.sparsify import sparsify

_QUICK = ("two_inputs", "vit")
# Export refuses this one and says so: its control flow depends on values.
_NOT_EXPORTED = ("untraceable",)
_TOO_SMALL_FOR_2_4 = ("functional",)
# Depthwise convolutions with SiLU: docs/placement.md.
_KNOWN = {"efficientnet_b0": {"QDQ114"}}
_INT8_THROUGHOUT = (
    "resnet18", "resnet34", "resnet50", "resnext50", "mobilenet_v2", "unet",
    "hf_resnet", "hf_mobilenet_v2",
)  # fmt: skip
# Of the largest output, and as a multiple of what rounding the inputs alone does: fifty layers of
# random weights amplify any rounding.
_FP16_ERROR, _AMPLIFIED = 0.01, 5

Exported = Callable[[str], Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Exports a reference architecture once."""
    folder = tmp_path_factory.mktemp("exported")

    def make(name: str) -> Path:
        path = folder / f"{name}.onnx"
        return path if path.exists() else _export(name, path, sparse=False)

    return make


def _export(name: str, path: Path, *, sparse: bool) -> Path:
    reference: Reference = REFERENCE[name]
    model = reference.build()
    if sparse:
        model = sparsify(model, reference.example_inputs(2))
    model = quantize(model, [reference.example_inputs(2)])
    return export(model, reference.example_inputs(2), path)


def _names(quick: Collection[str] = _QUICK, left_out: Collection[str] = ()) -> Iterator[object]:
    for name in REFERENCE:
        if name not in (*_NOT_EXPORTED, *left_out):
            yield pytest.param(name, marks=() if name in quick else pytest.mark.slow)


def _bad(report: PreflightReport, name: str = "") -> list[str]:
    told = [f for f in report.findings if f.severity != "info"]
    return [f"{f.rule} {f.node}" for f in told if f.rule not in _KNOWN.get(name, ())]


@pytest.mark.parametrize("name", _names())
def test_reference_architecture_is_clean(name: str, exported: Exported) -> None:
    path = exported(name)
    reports = [preflight(path, target) for target in (None, "a100", "orin-agx")]
    assert [_bad(report, name) for report in reports] == [[], [], []]
    summary = reports[1].summary
    assert summary["int8"] > 0
    assert len(layer_sparsity(load_graph(path))) == summary["layers"]
    if name in _INT8_THROUGHOUT:
        assert summary["int8_in_int8_out"] == summary["int8"]
    # These are true of the graphs: Q/DQ, a dynamic batch, a transformer's operators.
    on_dla = {finding.split()[0] for finding in _bad(preflight(path, "orin-agx-dla"), name)}
    assert {"QDQ303", "QDQ305"} <= on_dla <= {"QDQ303", "QDQ304", "QDQ305"}


@pytest.mark.parametrize("name", _names(_QUICK[:1], _TOO_SMALL_FOR_2_4))
def test_sparse_reference_architecture_is_clean_and_found(name: str, tmp_path: Path) -> None:
    path = _export(name, tmp_path / "model.onnx", sparse=True)
    reports = [preflight(path, target) for target in ("a100", "orin-agx")]
    assert [_bad(report, name) for report in reports] == [[], []]
    assert reports[0].summary["sparse_found"] == reports[1].summary["sparse_found"] > 0
    assert _bad(preflight(path, "t4")) != []


def _without_activation_pairs(model: ModelProto) -> ModelProto:
    """The network with float activations: INT8 rounding would hide how exact FP16 is."""
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = Graph(copy)
    for pair in graph.pairs:
        readers = [n for dq in pair.dequantizes for n in graph.consumers(dq.output)]
        for reader in readers:
            _rewire(reader, {dq.output for dq in pair.dequantizes}, pair.source)
    return copy


def _rewire(reader: Node, old: set[str], new: str) -> None:
    for i, name in enumerate(reader.proto.input):
        if name in old:
            reader.proto.input[i] = new


@pytest.mark.parametrize("name", _names())
def test_reference_architecture_in_fp16(name: str, exported: Exported) -> None:
    """The float remainder is FP16, the finding is gone, fates stay, and so do the outputs."""
    model = onnx.load(exported(name))
    graph = Graph(model)
    tensors = REFERENCE[name].example_inputs(2)
    feeds = [dict(zip(graph.inputs, (np.asarray(t) for t in tensors), strict=True))]
    half, _ = retype.to_half(model, Half(), feeds, given=True)
    onnx.checker.check_model(half, full_check=True)
    before, after = (preflight(m, "a100", tensorrt="11.4") for m in (model, half))
    assert _bad(after, name) == []
    for key in ("layers", "int8", "int8_in_int8_out"):
        assert after.summary[key] == before.summary[key]
    smooth = _without_activation_pairs(model)
    smooth_half, _ = retype.to_half(smooth, Half(), feeds, given=True)
    reference, rounded = trial.run(smooth, feeds), trial.run(trial.rounding(smooth_half), feeds)
    gap, largest = trial.difference(reference, rounded)
    floats = {k: v * np.float32(1 + 2**-11) for k, v in feeds[0].items() if v.dtype.kind == "f"}
    nearby = feeds[0] | floats
    yardstick, _ = trial.difference(reference, trial.run(smooth, [nearby]))
    assert gap < _FP16_ERROR * largest + _AMPLIFIED * yardstick
