"""Formats of layers: FP8 through placement, training and export, and several in one network."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor, nn

import trt_qat as tq
from tests.qat.test_placement_rules import IMAGE, conv, net
from tests.qat.training import same_weights, small_model, stripes
from trt_qat.errors import RecipeError
from trt_qat.graph.qdq import Graph
from trt_qat.measure.metrics import sqnr_db
from trt_qat.qat import checkpoint
from trt_qat.qat.quantize import formats_in
from trt_qat.recipe.fitting import refuse_unfit
from trt_qat.recipe.specs import EngineSpec, QuantizeSpec

FP8 = TensorProto.FLOAT8E4M3FN
ALL: dict[str, Any] = {"heads": "int8"}


def chain() -> nn.Module:
    """Three convolutions, with a BatchNorm and a pool between."""
    return net(
        lambda m, x: m.c(F.max_pool2d(F.relu(m.b(F.relu(m.norm(m.a(x))))), 2)),
        a=conv(bias=False),
        norm=nn.BatchNorm2d(16),
        b=conv(),
        c=conv(),
    )


def forked() -> nn.Module:
    """One tensor that two convolutions read, as it is and behind a pool, and a residual sum."""

    def forward(m: Any, x: Tensor) -> Tensor:
        made = F.relu(m.a(x))
        pooled = F.max_pool2d(made, 2)
        summed = m.d(pooled) + m.e(F.avg_pool2d(made, 2))
        return m.f(F.relu(summed)) + m.g(pooled)  # type: ignore[no-any-return]

    return net(forward, **{name: conv() for name in "adefg"})


def exported(model: nn.Module, folder: Path, x: Tensor = IMAGE, **spec: Any) -> Graph:
    made = tq.quantize(model, [x], spec=ALL | spec)
    return Graph.from_file(tq.export(made, x, folder / "model.onnx"))


def operand_types(graph: Graph) -> dict[str, tuple[int, int]]:
    """Return layer -> the types of the codes of its input and its weight; 0: float."""

    def code(tensor: str) -> int:
        node = graph.producer(tensor)
        return graph.scaling(node).code_type if node is not None and node.is_dequantize() else 0

    layers = [n for n in graph.nodes if n.op in ("Conv", "MatMul", "Gemm")]
    return {n.name: (code(n.input(0)), code(n.input(1))) for n in layers}


def test_an_fp8_network_has_fp8_codes_on_both_sides_of_every_layer(tmp_path: Path) -> None:
    made = tq.quantize(chain(), [IMAGE], spec={**ALL, "format": "fp8"})
    path = tq.export(made, IMAGE, tmp_path / "model.onnx")
    graph = Graph.from_file(path)
    assert operand_types(graph) == dict.fromkeys("abc", (FP8, FP8))
    assert graph.opset == 19
    assert [line for line in tq.report_of(made).warnings if "opset 19 in the place of 17" in line]
    with tq.runner(f"ort:{path}") as runner, torch.no_grad():
        (output,) = runner.infer({next(iter(runner.inputs)): IMAGE.numpy()}).values()
        wanted = made(IMAGE).numpy()
    assert (sqnr_db(wanted, output) or 300.0) > 40, "but for ties"


def test_the_format_changes_the_numbers_and_not_the_placement(tmp_path: Path) -> None:
    def pairs(kind: str) -> list[str]:
        graph = exported(chain(), tmp_path, format=kind)
        return [pair.quantize.name for pair in graph.pairs]

    assert pairs("int8") == pairs("fp8")
    outputs = [
        tq.quantize(chain(), [IMAGE], spec={**ALL, "format": kind})(IMAGE)
        for kind in ("int8", "fp8")
    ]
    assert not torch.equal(*outputs)


@pytest.mark.parametrize(
    ("layer", "channels", "why"),
    [
        (conv(3, 16), 3, "FP8: 3 -> 16 channels, no multiples of 16"),
        (conv(16, 24), 16, "FP8: 16 -> 24 channels, no multiples of 16"),
        (conv(groups=16), 16, "FP8: no convolution with groups, and it has 16"),
        (conv(kernel=7), 16, "FP8: a kernel of 49 positions, above 32"),
        (nn.ConvTranspose2d(16, 16, 2), 16, "FP8: no ConvTranspose"),
    ],
    ids=["first", "odd", "depthwise", "large kernel", "transposed"],
)
def test_what_has_no_fp8_kernel_stays_float(layer: nn.Module, channels: int, why: str) -> None:
    model = net(lambda m, x: m.last(m.layer(x)), layer=layer, last=conv(layer.out_channels, 16, 1))  # type: ignore[arg-type]
    x = torch.randn(2, channels, 8, 8)
    aligned = net(lambda m, x: m.other(x), other=conv())
    made = tq.quantize(
        net(lambda m, x: (m.model(x[:, :channels]), m.more(x)), model=model, more=aligned),
        [torch.randn(2, 16, 8, 8)],
        spec={**ALL, "format": "fp8"},
    )
    assert x.shape[1] == channels
    reasons = {note.name: note.why for note in tq.report_of(made).float_layers}
    assert reasons["model.layer"] == why
    assert "more.other" not in reasons


def test_each_layer_reads_its_own_format_where_several_share_a_tensor(tmp_path: Path) -> None:
    graph = exported(forked(), tmp_path, layers={"[deg]": "fp8", "g": "int8"})
    wanted = {"a": TensorProto.INT8, "d": FP8, "e": FP8, "f": TensorProto.INT8}
    wanted["g"] = TensorProto.INT8  # the last pattern wins
    assert operand_types(graph) == {name: (kind, kind) for name, kind in wanted.items()}
    report = tq.preflight(graph.model)
    assert "QDQ022" not in {finding.rule for finding in report.findings}
    assert {layer.name: layer.precision for layer in report.layers} == {
        "a": "int8", "d": "fp8", "e": "fp8", "f": "int8", "g": "int8"
    }  # fmt: skip
    pool = next(node for node in graph.nodes if node.op == "MaxPool")
    types = sorted(
        graph.scaling(node).code_type for node in graph.consumers(pool.output) if node.is_quantize()
    )
    assert types == [TensorProto.INT8, FP8], "a pair for each of the formats that read it"


def test_the_operand_of_a_sum_has_the_format_of_the_layer_that_it_fuses_behind(
    tmp_path: Path,
) -> None:
    residual = net(
        lambda m, x: m.c(F.relu(m.b(F.relu(m.a(x))) + m.short(x))),
        **{name: conv() for name in ("a", "b", "c", "short")},
    )
    graph = exported(residual, tmp_path, layers={"b": "fp8"})
    add = next(node for node in graph.nodes if node.op == "Add")
    kinds = [graph.producer(name) for name in add.inputs]
    pairs = [graph.scaling(n).code_type for n in kinds if n is not None and n.is_dequantize()]
    assert pairs == [FP8]
    assert operand_types(graph)["c"] == (TensorProto.INT8, TensorProto.INT8)


def test_a_layer_may_be_kept_float_by_its_format() -> None:
    made = tq.quantize(chain(), [IMAGE], spec={**ALL, "layers": {"b": "float"}})
    assert {note.name: note.why for note in tq.report_of(made).float_layers} == {
        "b": "recipe: float in quantize.layers"
    }


def test_a_pattern_of_no_layer_is_an_error() -> None:
    with pytest.raises(RecipeError, match=r"quantize.layers: 'z\*' matches no layer"):
        tq.quantize(chain(), [IMAGE], spec={**ALL, "layers": {"z*": "fp8"}})


def test_learned_scales_are_of_int8_alone() -> None:
    with pytest.raises(RecipeError, match=r"quantize.learned_scales is of INT8 grids"):
        tq.quantize(chain(), [IMAGE], spec={"learned_scales": True, "layers": {"a": "fp8"}})


def test_entropy_is_of_int8_alone_and_may_be_taken_for_the_others() -> None:
    spec = {**ALL, "layers": {"b": "fp8"}}
    with pytest.raises(RecipeError, match=r"'entropy'.* those of FP8, which 'relu' has"):
        tq.quantize(chain(), [IMAGE], spec=spec, calibration={"algorithm": "entropy"})
    rules = {"algorithm": "entropy", "layers": {"relu": {"algorithm": "max"}}}
    assert len(formats_in(tq.quantize(chain(), [IMAGE], spec=spec, calibration=rules))) == 2


def test_weights_may_have_one_scale_and_may_be_written_as_floats(tmp_path: Path) -> None:
    graph = exported(chain(), tmp_path, format="fp8", weights="per_tensor")
    scales = [graph.scaling(n).scale for n in graph.nodes if n.is_dequantize()]
    assert all(scale is not None and scale.size == 1 for scale in scales)
    made = tq.quantize(chain(), [IMAGE], spec={**ALL, "format": "fp8"})
    path = tq.export(made, IMAGE, tmp_path / "floats.onnx", weights="fp32")
    kinds = {tensor.data_type for tensor in onnx.load(path).graph.initializer if tensor.dims}
    assert TensorProto.FLOAT in kinds
    assert operand_types(Graph.from_file(path))["a"] == (FP8, FP8)


@pytest.mark.parametrize("ptq", [{"rounding": "learned"}, {"bias_correction": True}], ids=str)
def test_rounding_and_biases_are_chosen_on_the_fp8_grid(ptq: dict[str, Any]) -> None:
    """Both lower the error that they look at: of a layer's output, and of its mean."""
    x = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1)) + 0.5
    x = x * torch.linspace(0.5, 1.5, 16)[:, None, None]  # channels that go together
    layer = net(lambda m, x: m.a(x), a=conv(kernel=1))
    reference = layer(x)

    def error(**options: Any) -> float:
        made = tq.quantize(copy.deepcopy(layer), [x], spec={**ALL, "format": "fp8"}, **options)
        lost = made(x) - reference
        return float((lost.mean((0, 2, 3)) if "bias_correction" in ptq else lost).square().mean())

    assert error(ptq=ptq) < 0.8 * error()


def test_training_moves_fp8_weights_and_their_file_follows(tmp_path: Path) -> None:
    data = stripes()
    images = torch.from_numpy(data.images)
    made = tq.quantize(small_model(), [images], spec={"layers": {"*": "fp8"}})
    before = copy.deepcopy(made)
    spec = {"epochs": 1, "batch_size": 16, "dampening": 0.1}
    tuned = tq.finetune(made, data, spec=spec, progress=False)
    assert not same_weights(tuned, before)
    tq.export(tuned, images[:4], tmp_path / "model.onnx")
    checkpoint.save(tuned, tmp_path / "model.pt")
    again = checkpoint.load_into(before, tmp_path / "model.pt")
    with torch.no_grad():
        assert torch.equal(again.eval()(images), tuned.eval()(images))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"format": "fp8"}, "quantize.format: .*A100.* has no fp8, which begins with Ada"),
        ({"layers": {"a*": "fp8"}}, r"quantize.layers, 'a\*': .* has no fp8"),
    ],
)
def test_a_target_without_the_format_is_noticed_before_any_work(
    keys: dict[str, Any], message: str
) -> None:
    recipe: dict[str, Any] = {
        "name": "x", "model": {"factory": "residual_cnn"}, "data": {"source": "digits"}
    }  # fmt: skip
    spec = EngineSpec.model_validate({**recipe, "quantize": keys, "target": "a100"})
    with pytest.raises(RecipeError, match=message):
        refuse_unfit(spec)
    refuse_unfit(spec.model_copy(update={"target": "rtx-4090"}))


def test_formats_are_those_of_int8_unless_asked() -> None:
    assert QuantizeSpec().format == "int8"
    (kind,) = formats_in(tq.quantize(chain(), [IMAGE], spec=ALL))
    assert kind.name == "int8"
