"""Where the pairs stand: one small model for each rule of docs/placement.md.

Placement is read off the exported ONNX, which is what TensorRT gets, or off the report.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.placement import two_scales
from tests.models import REFERENCE, bert, tied_weights, vit
from trt_qat.graph.qdq import Graph, Node
from trt_qat.qat.export import export
from trt_qat.qat.quantize import quantize, quantized
from trt_qat.qat.reports import report_of
from trt_qat.qat.sparsify import sparsify
from trt_qat.recipe.specs import QuantizeSpec

IMAGE = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))


def net(forward: Callable[[Any, Tensor], Any], **parts: nn.Module) -> nn.Module:
    """A model of these parts with this forward, in evaluation mode."""
    torch.manual_seed(0)
    model: nn.Module = type("Net", (nn.Module,), {"forward": forward})()
    for name, part in parts.items():
        model.add_module(name, part)
    return model.eval()


def conv(inputs: int = 16, outputs: int = 16, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


class Placed:
    """A quantized model's export, with the questions that the rules are about."""

    def __init__(self, model: nn.Module, inputs: Any, folder: Path, **spec: Any) -> None:
        self.model = quantize(model, [inputs], spec=QuantizeSpec(**spec))
        self.report = report_of(self.model)
        path = export(self.model, inputs, folder / "model.onnx", spec={"verify": False})
        self.graph = Graph.from_file(path)

    def node(self, op: str, index: int = 0) -> Node:
        return [node for node in self.graph.nodes if node.op == op][index]

    def layer(self, name: str) -> Node:
        (node,) = [node for node in self.graph.nodes if node.name == name]
        return node

    def made_by(self, tensor: str) -> str:
        node = self.graph.producer(tensor)
        return node.op if node is not None else "input"

    def read_by(self, tensor: str) -> list[str]:
        return sorted(node.op for node in self.graph.consumers(tensor))

    def inputs(self, node: Node) -> list[str]:
        """The operators that make what ``node`` reads, but for its bias."""
        return [self.made_by(name) for name in node.inputs[:2]]

    def scale(self, tensor: str) -> float:
        """The scale of the DequantizeLinear that makes a tensor, or of the Q that reads it."""
        node = self.graph.producer(tensor)
        if node is None or not node.is_dequantize():
            (node,) = [n for n in self.graph.consumers(tensor) if n.is_quantize()]
        scale = self.graph.scaling(node).scale
        assert scale is not None
        return float(scale)

    def why_float(self) -> dict[str, str]:
        return {note.name: note.why for note in self.report.float_layers}

    @property
    def quantizers(self) -> dict[str, nn.Module]:
        return quantized(self.model).placed.activations


DQ, Q = "DequantizeLinear", "QuantizeLinear"


# P1, E3, E5: every input of a weighted layer


@pytest.mark.parametrize(
    ("layer", "op", "axis"),
    [
        (conv(), "Conv", 0),
        pytest.param(conv(groups=16), "Conv", 0, marks=pytest.mark.slow),
        (nn.ConvTranspose2d(16, 24, 2, 2), "ConvTranspose", None),
        (nn.Linear(8, 24), "MatMul", 1),
    ],
    ids=["conv", "depthwise", "transposed", "linear"],
)
def test_activation_and_weight_of_every_layer_are_quantized(
    layer: nn.Module, op: str, axis: int | None, tmp_path: Path
) -> None:
    """Activations by one scale, weights by one for each output channel, but for ConvTranspose."""
    image = torch.randn(2, 16, 16, 16) if isinstance(layer, nn.Linear) else IMAGE
    layer = nn.Linear(16, 24) if isinstance(layer, nn.Linear) else layer
    placed = Placed(net(lambda m, x: m.layer(x), layer=layer), image, tmp_path, heads="int8")
    node = placed.node(op)
    assert placed.inputs(node) == [DQ, DQ]
    activation, weight = (placed.graph.producer(name) for name in node.inputs[:2])
    assert activation is not None
    assert weight is not None
    assert placed.graph.scaling(activation).per_tensor
    scaling = placed.graph.scaling(weight)
    assert scaling.scale is not None
    if axis is None:
        assert scaling.per_tensor
    else:
        outputs = 16 if op == "Conv" else 24
        assert (scaling.axis, scaling.scale.shape) == (axis, (outputs,))


def test_both_factors_of_a_product_outside_attention_are_quantized(tmp_path: Path) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        left, right = m.left(x), m.right(x)
        return m.head(left @ right.transpose(1, 2))  # type: ignore[no-any-return]

    parts = {"left": nn.Linear(32, 32), "right": nn.Linear(32, 32), "head": nn.Linear(16, 16)}
    placed = Placed(net(forward, **parts), torch.randn(2, 16, 32), tmp_path)
    (product,) = [n for n in placed.graph.nodes if n.op == "MatMul" and n.name not in parts]
    assert _behind_pairs(placed, product)


def test_a_functional_layer_is_quantized_like_a_module(tmp_path: Path) -> None:
    reference = REFERENCE["functional"]
    placed = Placed(reference.build(), reference.example_inputs(2), tmp_path)
    for node in placed.graph.nodes:
        if node.op == "Conv":
            assert placed.inputs(node) == [DQ, DQ], node.name


def test_a_layer_called_twice_has_one_weight_and_two_input_ranges(tmp_path: Path) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(F.relu(m.twice(F.relu(m.twice(x)))))  # type: ignore[no-any-return]

    placed = Placed(net(forward, twice=conv(), head=conv()), IMAGE, tmp_path)
    first, second = placed.node("Conv"), placed.node("Conv", 1)
    codes = [placed.graph.producer(node.input(1)) for node in (first, second)]
    assert all(node is not None for node in codes)
    assert len({node.input(0) for node in codes if node is not None}) == 1
    assert placed.scale(first.input(0)) != placed.scale(second.input(0))


def test_a_tied_embedding_stays_float_where_it_is_looked_up(tmp_path: Path) -> None:
    ids = torch.randint(128, (2, 16), generator=torch.Generator().manual_seed(0))
    placed = Placed(tied_weights().eval(), ids, tmp_path, heads="int8")
    assert placed.graph.initializer(placed.node("Gather").input(0)) is not None
    assert placed.inputs(placed.layer("lm_head")) == [DQ, DQ]


# P4, P7: residual Adds


def residual(**parts: nn.Module) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.stem(x))
        shortcut = m.down(x) if hasattr(m, "down") else x
        return m.head(F.relu(m.second(F.relu(m.first(x))) + shortcut))  # type: ignore[no-any-return]

    layers: dict[str, nn.Module] = {k: conv() for k in ("stem", "first", "second", "head")}
    return net(forward, **layers, **parts)


@pytest.mark.parametrize("down", [False, True], ids=["identity", "projection"])
def test_only_the_shortcut_of_a_residual_add_is_quantized(down: bool, tmp_path: Path) -> None:
    """The longer branch fuses with the Add; a pair on it would come between the two."""
    parts = {"down": conv(kernel=1)} if down else {}
    placed = Placed(residual(**parts), IMAGE, tmp_path)
    assert sorted(placed.inputs(placed.node("Add"))) == ["Conv", DQ]
    assert placed.read_by(placed.layer("second").output) == ["Add"]
    if down:
        assert placed.read_by(placed.layer("down").output) == [Q]


class Bottleneck(nn.Module):
    """YOLO's: Conv, BatchNorm, activation, twice, and the Add behind the second activation."""

    def __init__(self, activation: nn.Module | None, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.cv1, self.bn1 = conv(bias=False), nn.BatchNorm2d(16)
        self.cv2, self.bn2 = conv(bias=False), nn.BatchNorm2d(16)
        self.act = activation or nn.Sequential(nn.Identity(), nn.Dropout(0.1))
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.cv2(F.relu(self.bn1(self.cv1(x)))))
        return x + self.act(y if self.bias is None else y + self.bias)  # type: ignore[no-any-return]


TAILS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "conv": lambda m, x: m.head(F.relu(m.last(x))),
    "pool": lambda m, x: m.head(x.mean((2, 3), keepdim=True)),
    "float head": lambda m, x: m.head(x),
    "norm": lambda m, x: m.head(m.norm(x)),
}


def bottleneck(tail: str, *blocks: nn.Module) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return TAILS[tail](m, m.blocks(F.relu(m.stem(x))))

    parts = {name: conv() for name in ("stem", "last", "head")}
    return net(forward, blocks=nn.Sequential(*blocks), norm=nn.GroupNorm(4, 16), **parts)


@pytest.mark.parametrize("tail", ["conv", "pool", "float head"])
@pytest.mark.parametrize("activation", [nn.SiLU, nn.ReLU])
def test_an_add_behind_an_activation_has_a_pair_on_both_operands(
    activation: type[nn.Module], tail: str, tmp_path: Path
) -> None:
    """It is a kernel of its own: without the main branch's pair the convolution writes float."""
    model = bottleneck(tail, Bottleneck(activation()), Bottleneck(activation()))
    placed = Placed(model, IMAGE, tmp_path)
    for add in (placed.node("Add"), placed.node("Add", 1)):
        assert placed.inputs(add) == [DQ, DQ]
        assert placed.read_by(add.output) == [Q], "INT8 out, where the next layer reads"
        assert placed.scale(add.input(0)) != placed.scale(add.input(1))
    assert placed.report.float_outputs == ()


@pytest.mark.parametrize("tail", ["conv", "pool"])
def test_an_add_fuses_behind_the_branch_that_has_no_activation(tail: str, tmp_path: Path) -> None:
    block: Any = Bottleneck(nn.SiLU())

    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.act(m.bn2(m.cv2(F.relu(m.bn1(m.cv1(x))))))
        return m.down(x) + y  # type: ignore[no-any-return]

    parts = {**dict(block.named_children()), "down": conv(kernel=1)}
    placed = Placed(bottleneck(tail, net(forward, **parts)), IMAGE, tmp_path)
    assert placed.inputs(placed.node("Add")) == ["Conv", DQ]
    assert placed.read_by(placed.node("Add").output) == [Q]
    assert placed.report.float_outputs == ()


@pytest.mark.parametrize("shape", [None, (16, 1, 1), ()], ids=["none", "by channel", "scalar"])
@pytest.mark.parametrize("tail", ["conv", "pool"])
def test_norm_bias_and_dropout_before_an_add_are_no_activation(
    tail: str, shape: tuple[int, ...] | None, tmp_path: Path
) -> None:
    bias = None if shape is None else nn.Parameter(torch.full(shape, 0.5))
    placed = Placed(bottleneck(tail, Bottleneck(None, bias)), IMAGE, tmp_path)
    adds = [n for n in placed.graph.nodes if n.op == "Add"]
    assert sorted(placed.inputs(adds[-1])) == sorted([DQ, "Add" if bias is not None else "Conv"])
    assert DQ not in placed.inputs(adds[0]) or bias is None
    assert placed.report.float_outputs == ()


def test_a_sum_with_a_value_for_every_position_is_no_bias(tmp_path: Path) -> None:
    bias = nn.Parameter(torch.randn(16, 8, 8))
    placed = Placed(bottleneck("conv", Bottleneck(None, bias)), IMAGE, tmp_path)
    assert placed.inputs(placed.node("Add", 1)) == [DQ, DQ]


def test_an_add_behind_an_activation_stays_float_where_a_norm_reads_it(tmp_path: Path) -> None:
    placed = Placed(bottleneck("norm", Bottleneck(nn.SiLU())), IMAGE, tmp_path)
    (add,) = (n for n in placed.graph.nodes if n.name == "Add" or n.name.endswith("blocks.0/Add"))
    assert DQ not in placed.inputs(add)
    assert [note.name for note in placed.report.float_outputs] == ["blocks.0.cv2"]


# P3, P7: what fuses behind a convolution


@pytest.mark.parametrize(
    "activation",
    [nn.SiLU, *(pytest.param(a, marks=pytest.mark.slow) for a in (nn.ReLU, nn.Hardswish))],
)
def test_nothing_stands_between_convolution_norm_and_activation(
    activation: type[nn.Module], tmp_path: Path
) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(m.act(m.bn(m.conv(x))))  # type: ignore[no-any-return]

    model = net(forward, conv=conv(), bn=nn.BatchNorm2d(16), act=activation(), head=conv())
    placed = Placed(model, IMAGE, tmp_path)
    assert set(placed.quantizers) == {"x", "act"}
    assert Q not in placed.read_by(placed.layer("conv").output)
    assert "BatchNormalization" not in {node.op for node in placed.graph.nodes}


def test_silu_written_out_is_one_activation(tmp_path: Path) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.conv(x)
        return m.head(x * torch.sigmoid(x))  # type: ignore[no-any-return]

    placed = Placed(net(forward, conv=conv(), head=conv()), IMAGE, tmp_path)
    assert placed.read_by(placed.layer("conv").output) == ["Mul", "Sigmoid"]
    assert placed.read_by(placed.node("Mul").output) == [Q]
    assert placed.read_by(placed.node("Sigmoid").output) == ["Mul"]


# P6: operations that carry a scale


def test_a_concat_has_one_scale_for_inputs_and_output(tmp_path: Path) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        joined = torch.cat([F.relu(m.left(x)), 5 * m.right(x)], 1)
        return m.head(joined)  # type: ignore[no-any-return]

    parts = {"left": conv(), "right": conv(), "head": conv(32)}
    placed = Placed(net(forward, **parts), IMAGE, tmp_path, heads="int8")
    concat = placed.node("Concat")
    scales = {placed.scale(name) for name in (*concat.inputs, concat.output)}
    assert len(scales) == 1
    assert set(placed.inputs(concat)) == {DQ}


def test_concats_that_share_an_input_share_a_scale(tmp_path: Path) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        a, b, c = m.a(x), 3 * m.b(x), 9 * m.c(x)
        return m.head(m.ab(torch.cat([a, b], 1)) + m.bc(torch.cat([b, c], 1)))  # type: ignore[no-any-return]

    parts = {k: conv() for k in ("a", "b", "c", "head")} | {k: conv(32) for k in ("ab", "bc")}
    placed = Placed(net(forward, **parts), IMAGE, tmp_path)
    concats = [placed.node("Concat"), placed.node("Concat", 1)]
    assert len({placed.scale(name) for node in concats for name in node.inputs}) == 1


COMMUTING: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "maxpool": (lambda x: F.max_pool2d(x, 2), "MaxPool"),
    "upsample": (lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"), "Resize"),
    "transpose": (lambda x: x.transpose(2, 3), "Transpose"),
    "reshape": (lambda x: x.reshape(x.shape[0], 16, 4, 16), "Reshape"),
}


@pytest.mark.parametrize(
    "name",
    ["maxpool", *(pytest.param(n, marks=pytest.mark.slow) for n in COMMUTING if n != "maxpool")],
)
def test_commuting_operations_share_the_scale_of_their_input(name: str, tmp_path: Path) -> None:
    """One rounding in front; the pair behind is where TensorRT expects the consumer's own."""
    operation, op = COMMUTING[name]

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(operation(F.relu(m.stem(x))))  # type: ignore[no-any-return]

    placed = Placed(net(forward, stem=conv(), head=conv()), IMAGE, tmp_path, heads="int8")
    node = placed.node(op)
    assert placed.made_by(node.input(0)) == DQ
    assert placed.read_by(node.output) == [Q]
    assert placed.scale(node.input(0)) == placed.scale(node.output)
    assert len(placed.quantizers) == 2, "the input's and the one in front: none behind in training"


def test_a_commuting_operation_with_a_float_reader_is_quantized_behind_it(tmp_path: Path) -> None:
    """A float reader must not be given INT8 values because another reader wants them."""

    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled = F.max_pool2d(m.stem(x), 2)
        return m.head(F.relu(m.next(pooled))), pooled.softmax(1)

    placed = Placed(net(forward, stem=conv(), next=conv(), head=conv()), IMAGE, tmp_path)
    pool = placed.node("MaxPool")
    assert placed.made_by(pool.input(0)) == "Conv"
    assert Q in placed.read_by(pool.output)
    softmax = placed.node("Softmax").input(0)
    assert DQ not in (placed.made_by(softmax), placed.inputs(placed.node("Softmax"))[0])


# P5: operations that make new values


@pytest.mark.parametrize(
    ("pool", "op"),
    [
        pytest.param(nn.AvgPool2d(2), "AveragePool", marks=pytest.mark.slow),
        (nn.AdaptiveAvgPool2d(1), "ReduceMean"),
        pytest.param(
            nn.Upsample(scale_factor=2, mode="bilinear"), "Resize", marks=pytest.mark.slow
        ),
    ],
    ids=["average", "global", "bilinear"],
)
def test_averages_have_a_range_of_their_own_on_both_sides(
    pool: nn.Module, op: str, tmp_path: Path
) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(m.pool(F.relu(m.stem(x))))  # type: ignore[no-any-return]

    placed = Placed(net(forward, stem=conv(), pool=pool, head=conv(kernel=1)), IMAGE, tmp_path)
    node = placed.node(op)
    assert placed.made_by(node.input(0)) == DQ
    assert placed.read_by(node.output) == [Q]
    assert placed.scale(node.input(0)) != placed.scale(node.output)


def test_a_gate_reads_and_writes_int8(tmp_path: Path) -> None:
    """Squeeze and excitation: no float island between the layers around the product."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.stem(x))
        gate = torch.sigmoid(m.expand(F.relu(m.squeeze(x.mean((2, 3), keepdim=True)))))
        return m.head(x * gate)  # type: ignore[no-any-return]

    parts = {"stem": conv(), "squeeze": conv(kernel=1), "expand": conv(kernel=1), "head": conv()}
    placed = Placed(net(forward, **parts), IMAGE, tmp_path, heads="int8")
    assert placed.inputs(placed.node("Mul")) == [DQ, DQ]
    assert placed.read_by(placed.node("Mul").output) == [Q]
    assert placed.read_by(placed.layer("expand").output) == ["Sigmoid"]


# One tensor, one quantizer


def test_readers_of_one_tensor_share_its_quantizer(tmp_path: Path) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.stem(x))
        return m.head(m.a(x) + m.b(x))  # type: ignore[no-any-return]

    placed = Placed(
        net(forward, **{k: conv() for k in ("stem", "a", "b", "head")}), IMAGE, tmp_path
    )
    assert placed.read_by(placed.node("Relu").output) == [Q]
    assert placed.layer("a").input(0) == placed.layer("b").input(0)


# P9: alignment


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (conv(groups=16), None),
        (conv(groups=4), None),
        (conv(16, 16, 1, groups=4), "P9: grouped by 4 with a kernel of 1x1, below 3"),
        (conv(32, 32, 1, groups=2), None),
        (conv(16, 12, groups=4), "P9: grouped, 12 output channels not a multiple of 8"),
        (conv(16, 8), None),
        (nn.Conv2d(16, 8, (1, 3), padding=(0, 1)), "P9: 16 -> 8 channels, below 16"),
    ],
    ids=["depthwise", "grouped", "1x1 by 4", "1x1 by 16", "grouped 12", "8 out", "8 out, 1x3"],
)
def test_layers_without_a_good_int8_kernel_stay_float(layer: nn.Conv2d, why: str | None) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(F.relu(m.layer(torch.softmax(m.stem(x), 1))))  # type: ignore[no-any-return]

    stem, head = conv(16, layer.in_channels), conv(layer.out_channels, 16)
    model = quantize(net(forward, stem=stem, layer=layer, head=head), [IMAGE])
    assert {n.name: n.why for n in report_of(model).float_layers}.get("layer") == why


@pytest.mark.parametrize("layer", [conv(16, 16, 1, groups=4), conv(16, 12, groups=4)])
def test_a_grouped_one_between_int8_layers_is_no_island(layer: nn.Conv2d) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(m.last(F.relu(m.layer(F.relu(m.stem(x))))))  # type: ignore[no-any-return]

    last = conv(layer.out_channels, 16)
    model = quantize(net(forward, stem=conv(), layer=layer, last=last, head=conv()), [IMAGE])
    assert "layer" in {note.name for note in report_of(model).quantized}


def test_a_grouped_one_in_front_of_a_difference_is_no_island(tmp_path: Path) -> None:
    """FastViT's mixer: TensorRT runs the difference in float, between INT8 layers on all sides."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.stem(x))
        mixed = m.scale(x) + m.filter(x)
        return m.head(m.last(x + 0.5 * (mixed - m.norm(x))))  # type: ignore[no-any-return]

    parts: dict[str, nn.Module] = {"scale": conv(kernel=1, groups=16), "filter": conv(groups=16)}
    parts |= {"stem": conv(), "norm": nn.BatchNorm2d(16), "last": conv(), "head": conv()}
    placed = Placed(net(forward, **parts), IMAGE, tmp_path)
    assert placed.inputs(placed.layer("scale")) == [DQ, DQ]
    assert set(placed.why_float()) == {"head"}


# E7: heads


def test_heads_stay_float_unless_asked(tmp_path: Path) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(F.relu(m.hidden(x)))  # type: ignore[no-any-return]

    def placed(**spec: Any) -> Placed:
        parts = {"hidden": nn.Linear(32, 32), "head": nn.Linear(32, 16)}
        return Placed(net(forward, **parts), ROWS, tmp_path, **spec)

    default, asked = placed(), placed(heads="int8")
    assert default.why_float() == {"head": "head: its output is a network output"}
    assert default.made_by(default.layer("head").input(1)) == "input"
    assert asked.why_float() == {}
    assert asked.inputs(asked.layer("head")) == [DQ, DQ]


# P8: transformers


@pytest.mark.parametrize("attention", ["float", "int8"])
def test_a_transformer_keeps_stream_norm_and_softmax_float(attention: Any, tmp_path: Path) -> None:
    model = vit(depth=1, attention="explicit").eval()
    placed = Placed(model, torch.randn(2, 3, 32, 32), tmp_path, attention=attention)
    graph = placed.graph
    for node in graph.nodes:
        if node.op in ("LayerNormalization", "Softmax"):
            assert placed.made_by(node.input(0)) != DQ, node.name
        if node.op == "Add" and not any(map(graph.is_constant, node.inputs)):
            assert DQ not in placed.inputs(node), "the stream, and the branch that joins it"
    products = [n for n in graph.nodes if n.op == "MatMul" and graph.weight(n) is None]
    assert len(products) == 2
    for product in products:
        around = {placed.made_by(name) for name in product.inputs}
        if attention == "float":
            assert DQ not in around
        else:
            assert _behind_pairs(placed, product)


@pytest.mark.parametrize("attention", ["float", "int8"])
def test_a_linear_attention_is_one(attention: Any, tmp_path: Path) -> None:
    """EfficientViT's: q, k and v of several scales, no softmax, and a sum divided by a sum."""

    def forward(m: Any, x: Tensor) -> Tensor:
        qkv = m.qkv(x)
        scales = torch.cat((qkv, m.mix(m.wide(qkv))), 1).reshape(x.shape[0], 2, 48, -1)
        q, k, v = scales.transpose(-1, -2).chunk(3, -1)
        q, k, v = F.relu(q), F.relu(k), F.pad(v, (0, 1), value=1.0)
        out = q @ (k.transpose(-1, -2) @ v)
        out = out[..., :-1] / (out[..., -1:] + 1e-5)
        return m.head(m.proj(out.transpose(-1, -2).reshape(-1, 32, *x.shape[2:])))  # type: ignore[no-any-return]

    parts = {"qkv": conv(16, 48, 1), "wide": conv(48, 48, groups=48)}
    parts |= {"mix": conv(48, 48, 1, groups=3), "proj": conv(32, 16, 1), "head": conv()}
    placed = Placed(net(forward, **parts), IMAGE, tmp_path, attention=attention)
    products = [placed.node("MatMul", index) for index in (0, 1)]
    for product in products:
        assert _behind_pairs(placed, product) == (attention == "int8")
        assert DQ not in placed.inputs(product) or attention == "int8"
    assert placed.inputs(placed.layer("mix")) == [DQ, DQ]
    assert not two_scales(placed.graph) or attention == "int8"


def _behind_pairs(placed: Placed, node: Node) -> bool:
    """Tell whether every operand comes from a DequantizeLinear, across a Transpose at most."""

    def comes_from_pair(tensor: str) -> bool:
        maker = placed.graph.producer(tensor)
        while maker is not None and maker.op in ("Transpose", "Squeeze", "Split", "Reshape"):
            maker = placed.graph.producer(maker.input(0))
        return maker is not None and maker.is_dequantize()

    return all(map(comes_from_pair, node.inputs))


def test_the_linear_layers_of_a_transformer_are_int8(tmp_path: Path) -> None:
    tokens = REFERENCE["bert"].example_inputs(2)
    placed = Placed(bert(depth=1).eval(), tokens, tmp_path)
    layers = ("query", "key", "value", "output", "intermediate", "down")
    for name in layers:
        assert placed.inputs(placed.layer(f"layers.0.{name}")) == [DQ, DQ], name
    attention = {placed.layer(f"layers.0.{name}").input(0) for name in layers[:3]}
    assert len(attention) == 1, "query, key and value read one tensor: one pair"


# The sparse epilogue


@pytest.mark.parametrize(
    ("sparse", "epilogue", "width", "int8_output"),
    [
        (True, True, 256, True),
        (True, False, 256, False),
        pytest.param(False, True, 256, False, marks=pytest.mark.slow),
        pytest.param(True, True, 128, False, marks=pytest.mark.slow),
    ],
    ids=["sparse", "switched off", "dense", "too small to gain"],
)
def test_a_sparse_layer_that_may_gain_writes_int8(
    sparse: bool, epilogue: bool, width: int, int8_output: bool, tmp_path: Path
) -> None:
    """A float epilogue rules sparse INT8 kernels out (TensorRT#4694); here a norm reads it."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(m.norm(m.wide(F.relu(m.stem(x)))))  # type: ignore[no-any-return]

    model = net(
        forward,
        stem=nn.Linear(32, width),
        wide=nn.Linear(width, width),
        norm=nn.LayerNorm(width),
        head=nn.Linear(width, 16),
    )
    if sparse:
        sparsify(model, ROWS)
    placed = Placed(model, ROWS, tmp_path, sparse_epilogue=epilogue)
    norm = placed.node("LayerNormalization")
    assert (placed.made_by(norm.input(0)) == DQ) is int8_output
    floats = {note.name for note in placed.report.float_outputs}
    assert ("wide" in floats) is not int8_output


# What cannot be traced


class Branches(nn.Module):
    """Runs ``body`` only for bright inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.after = nn.Linear(32, 32)
        self.head = nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = self.body(x)
        return self.head(F.relu(self.after(x)))  # type: ignore[no-any-return]


def test_an_untraceable_model_is_placed_part_by_part_and_says_so() -> None:
    model = quantize(Branches().eval(), [ROWS.abs()])
    (note,) = report_of(model).untraced
    assert note.name == ""
    assert "control flow that depends on the data" in note.why
    assert "the model: not traced" in report_of(model).table()
    assert {n.name for n in report_of(model).quantized} == {"body.0", "body.2", "after"}
    after: Any = model.get_submodule("after")
    assert after.input_quantizer.is_enabled, "a layer that no region covers gets its own"


def test_control_flow_outside_the_traced_part_keeps_working() -> None:
    torch.manual_seed(0)
    original = Branches().eval()
    bright, dark = ROWS.abs(), -ROWS.abs()
    with torch.no_grad():
        wanted = original(bright), original(dark)
        model = quantize(original, [bright, dark])
        got = model(bright), model(dark)
    for ours, theirs in zip(got, wanted, strict=True):
        assert (ours - theirs).abs().max() < 0.1 * theirs.abs().max()
    calls: list[int] = []
    model.get_submodule("body.2").register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        model(bright), model(dark)
    assert calls == [1]


# The model stays its user's own


@pytest.mark.parametrize("name", ["resnet18", "two_inputs", "bert", "untraceable"])
def test_types_parts_and_keys_stay_and_a_float_checkpoint_loads(name: str) -> None:
    reference = REFERENCE[name]
    original = reference.build()
    checkpoint = {key: value.clone() for key, value in original.state_dict().items()}
    types = {path: type(part) for path, part in original.named_modules()}
    model = quantize(original, [reference.example_inputs(4)])
    for path, kind in types.items():
        assert isinstance(model.get_submodule(path), kind), path
    assert checkpoint.keys() <= model.state_dict().keys()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    missing, unexpected = model.load_state_dict(checkpoint, strict=False)
    assert unexpected == []
    assert all("quantizer" in key or "qdq" in key for key in missing), missing
    for key, value in checkpoint.items():
        assert torch.equal(model.state_dict()[key], value), key
