"""export: what the written graph promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from trt_qat.errors import ExportMismatch, ModelError
from trt_qat.graph.sparsity import layer_sparsity
from trt_qat.qat.export import export
from trt_qat.qat.models import REFERENCE_MODELS
from trt_qat.qat.quantize import quantize
from trt_qat.qat.sparsify import sparse_layers, sparsify
from trt_qat.recipe.specs import ExportSpec


def randomized(model: nn.Module) -> nn.Module:
    """Give BatchNorm statistics and factors of both signs, as training may."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            shape = module.num_features
            module.weight.data = torch.randn(shape, generator=generator)
            module.bias.data = torch.randn(shape, generator=generator)
            module.running_mean = torch.randn(shape, generator=generator) * 0.1
            module.running_var = torch.rand(shape, generator=generator) + 0.5
    return model.eval()


BATCH = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def prepared() -> nn.Module:
    torch.manual_seed(0)
    factory = REFERENCE_MODELS["residual_cnn"]
    model = randomized(factory(in_channels=1, num_classes=10, widths=(16, 32)))
    return quantize(sparsify(model, BATCH), [BATCH])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    model = prepared()
    return model, export(model, BATCH, tmp_path_factory.mktemp("export") / "model.onnx")


@pytest.fixture(scope="module")
def graph(written: tuple[nn.Module, Path]) -> onnx.ModelProto:
    return onnx.load(written[1])


def run(path: Path, batch: torch.Tensor) -> np.ndarray:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
    return np.asarray(output)


def nodes(graph: onnx.ModelProto, *kinds: str) -> list[onnx.NodeProto]:
    return [n for n in graph.graph.node if n.op_type in kinds]


def test_onnxruntime_computes_what_torch_does(written: tuple[nn.Module, Path]) -> None:
    model, path = written
    with torch.no_grad():
        expected = model(BATCH).numpy()
    assert np.abs(run(path, BATCH) - expected).max() <= 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_batch_is_dynamic(written: tuple[nn.Module, Path], batch: int) -> None:
    assert run(written[1], torch.randn(batch, 1, 8, 8)).shape == (batch, 10)


def test_the_default_opset_is_read_by_tensorrt_8_6(graph: onnx.ModelProto) -> None:
    assert {o.domain: o.version for o in graph.opset_import} == {"": 17}
    for node in nodes(graph, "ReduceMean"):
        assert len(node.input) == 1, "in opset 17 axes are an attribute"


def test_weights_are_int8_codes_right_behind_dequantize_linear(graph: onnx.ModelProto) -> None:
    initializers = {i.name: i for i in graph.graph.initializer}
    producers = {o: n for n in graph.graph.node for o in n.output}
    quantized = [n for n in nodes(graph, "Conv") if n.input[1] in producers]
    assert len(quantized) == 6
    for conv in quantized:
        dequantize = producers[conv.input[1]]
        assert dequantize.op_type == "DequantizeLinear"
        codes = numpy_helper.to_array(initializers[dequantize.input[0]])
        scale = numpy_helper.to_array(initializers[dequantize.input[1]])
        assert codes.dtype == np.int8
        assert codes.min() >= -127
        assert scale.shape == (codes.shape[0],)
        assert (scale > 0).all()


def test_no_clip_no_cast_no_training_node_is_left(graph: onnx.ModelProto) -> None:
    forbidden = {"Clip", "Cast", "CastLike", "Identity", "Dropout", "BatchNormalization"}
    assert forbidden.isdisjoint(n.op_type for n in graph.graph.node)


def test_every_activation_pair_has_one_scale_and_zero_point_zero(graph: onnx.ModelProto) -> None:
    producers = {o: n for n in graph.graph.node for o in n.output}
    constants = {i.name: numpy_helper.to_array(i) for i in graph.graph.initializer}
    for q in nodes(graph, "QuantizeLinear"):
        readers = [n for n in graph.graph.node if q.output[0] in n.input]
        assert [r.op_type for r in readers] == ["DequantizeLinear"]
        assert readers[0].input[1] == q.input[1]
        zero_point = constants.get(q.input[2])
        if zero_point is None:
            zero_point = numpy_helper.to_array(producers[q.input[2]].attribute[0].t)
        assert zero_point.dtype == np.int8
        assert not zero_point.any()


def test_nodes_are_named_by_module_paths(
    written: tuple[nn.Module, Path], graph: onnx.ModelProto
) -> None:
    paths = {n for n, m in written[0].named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    assert {n.name for n in nodes(graph, "Conv", "Gemm")} == paths


def test_nothing_of_the_exporting_machine_is_in_the_file(written: tuple[nn.Module, Path]) -> None:
    content = written[1].read_bytes()
    assert str(Path(__file__).parent).encode() not in content
    assert b"stack_trace" not in content


def test_sparse_layers_hold_two_of_four_in_the_exported_codes(
    written: tuple[nn.Module, Path], graph: onnx.ModelProto
) -> None:
    found = {layer.name: layer.holds_2_4 for layer in layer_sparsity(graph)}
    sparse = sparse_layers(written[0])
    assert sparse
    assert all(found[name] for name in sparse)
    assert not found["stem.0"]


def test_folding_batch_norm_changes_codes_by_their_sign_alone(
    written: tuple[nn.Module, Path], graph: onnx.ModelProto
) -> None:
    model: Any = written[0]
    layer = model.get_submodule("stages.0.conv1")
    with torch.no_grad():
        quantizer = layer.weight_quantizer
        values = quantizer(layer._parameters["weight"] * layer._weight_mask)
        trained = torch.round(values / (quantizer.amax / 127)).to(torch.int8)
    factor_sign = torch.sign(model.get_submodule("stages.0.bn1").weight.detach())
    (conv,) = [n for n in nodes(graph, "Conv") if n.name == "stages.0.conv1"]
    producers = {o: n for n in graph.graph.node for o in n.output}
    constants = {i.name: numpy_helper.to_array(i) for i in graph.graph.initializer}
    codes = torch.from_numpy(constants[producers[conv.input[1]].input[0]].copy())
    assert bool((factor_sign < 0).any())
    assert torch.equal(codes, trained * factor_sign.to(torch.int8).reshape(-1, 1, 1, 1))


def test_export_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = prepared().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modules = [type(m) for m in model.modules()]
    export(model, BATCH, tmp_path / "model.onnx")
    assert model.training
    assert [type(m) for m in model.modules()] == modules
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_float_weights_behind_a_pair_give_the_same_numbers(
    written: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    path = export(written[0], BATCH, tmp_path / "fp32.onnx", spec=ExportSpec(weights="fp32"))
    weights = [i for i in onnx.load(path).graph.initializer if len(i.dims) == 4]
    assert {w.data_type for w in weights} == {onnx.TensorProto.FLOAT}
    np.testing.assert_allclose(run(path, BATCH), run(written[1], BATCH), rtol=1e-4, atol=1e-4)


def test_float_weights_behind_a_pair_are_rounded_to_int8_as_the_spec_says(
    written: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    path = export(written[0], BATCH, tmp_path / "fp32.onnx", spec=ExportSpec(weights="fp32"))
    graph = onnx.load(path).graph
    values = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    pairs = [n.input for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] in values]
    assert pairs
    for name, scale, *_ in pairs:
        weight = values[name]
        steps = weight / values[scale].reshape(-1, *[1] * (weight.ndim - 1))
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    assert "rounded to its INT8 code" in " ".join((ExportSpec.__doc__ or "").split())


@pytest.mark.parametrize("opset", [18, 20])
def test_newer_opsets_are_written_when_asked(
    written: tuple[nn.Module, Path], tmp_path: Path, opset: int
) -> None:
    path = export(written[0], BATCH, tmp_path / "new.onnx", spec=ExportSpec(opset=opset))
    assert onnx.load(path).opset_import[0].version == opset
    np.testing.assert_allclose(run(path, BATCH), run(written[1], BATCH), rtol=1e-5, atol=1e-5)


def test_an_older_opset_is_refused_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(ExportMismatch, match=r"opset 13 is not written; use 17"):
        export(prepared(), BATCH, tmp_path / "old.onnx", spec=ExportSpec(opset=13))
    assert list(tmp_path.iterdir()) == [], "a failed export leaves nothing behind"


def test_a_float_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Linear is not quantized: call quantize first"):
        export(nn.Linear(4, 4), torch.randn(2, 4), tmp_path / "model.onnx")


def test_data_dependent_control_flow_is_one_clear_error(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))
            self.last = nn.Linear(32, 32)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 0:
                x = self.body(x)
            return self.last(x)  # type: ignore[no-any-return]

    model = quantize(Branches(), [torch.rand(2, 32)])
    with pytest.raises(ModelError, match=r"cannot export Branches"):
        export(model, torch.rand(2, 32), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_linear_on_a_sequence_has_its_codes_transposed_in_the_file(tmp_path: Path) -> None:
    """TensorRT wants the constant right behind the MatMul, its scale along the columns (E3)."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down(self.up(x).relu())  # type: ignore[no-any-return]

    x = torch.randn(2, 5, 32)
    model = quantize(Tokens(), [x])
    path = export(model, x, tmp_path / "tokens.onnx")
    graph = onnx.load(path)
    assert nodes(graph, "Transpose") == []
    (dequantize,) = [
        n
        for n in nodes(graph, "DequantizeLinear")
        if n.input[0] in {i.name for i in graph.graph.initializer}
    ]
    assert [a.i for a in dequantize.attribute if a.name == "axis"] == [1]
    with torch.no_grad():
        np.testing.assert_allclose(run(path, x), model(x).numpy(), atol=1e-2)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat any model as one that protobuf's limit of 2 GB is too small for."""
    monkeypatch.setattr("trt_qat.graph.large.LARGE_BYTES", 0)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".json")


@pytest.mark.usefixtures("large")
def test_weights_of_a_large_model_lie_beside_it_and_mean_the_same(
    written: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    model, small = written
    path = export(model, BATCH, tmp_path / "model.onnx")
    graph, weights = names(tmp_path)
    assert (graph, weights[:11], weights[-5:]) == ("model.onnx", "model.onnx.", ".data")
    assert path.stat().st_size < small.stat().st_size
    np.testing.assert_array_equal(run(path, BATCH), run(small, BATCH))


@pytest.mark.usefixtures("large")
def test_a_new_large_export_takes_the_old_weights_away(tmp_path: Path) -> None:
    model = prepared()
    path = export(model, BATCH, tmp_path / "model.onnx")
    before = names(tmp_path)
    weight = next(iter(model.parameters()))
    with torch.no_grad():
        weight.neg_()
    export(model, BATCH, path)
    assert len(names(tmp_path)) == 2
    assert names(tmp_path) != before
    assert run(path, BATCH).shape == (4, 10)


@pytest.mark.usefixtures("large")
def test_an_export_that_fails_leaves_the_old_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = prepared()
    path = export(model, BATCH, tmp_path / "model.onnx")
    before, answer = names(tmp_path), run(path, BATCH)
    with torch.no_grad():
        next(iter(model.parameters())).neg_()

    def refuse(_: str) -> None:
        reason = "not today"
        raise onnx.checker.ValidationError(reason)

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(ExportMismatch, match="not today"):
        export(model, BATCH, path)
    assert names(tmp_path) == before
    np.testing.assert_array_equal(run(path, BATCH), answer)
