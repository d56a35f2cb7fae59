"""Modules that do more than their class of torch: each place that goes by a type leaves them alone.

What they do is in the exported file, which agrees with the model at every quantization point.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.qat import own_code as own
from tests.qat.agreement import worst_error
from tests.qat.random_networks import randomize
from trt_qat.errors import ModelError
from trt_qat.lint.preflight import preflight
from trt_qat.qat.export import export
from trt_qat.qat.placement.kinds import Kind, module_kind
from trt_qat.qat.quantize import quantize, quantized
from trt_qat.qat.reports import report_of
from trt_qat.qat.sparsify import sparse_layers, sparsify
from trt_qat.recipe.specs import QuantizeSpec

BATCH = torch.randn(3, 16, 8, 8, generator=torch.Generator().manual_seed(0))
TOLERANCE = 1e-3


def conv(bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(16, 16, 3, padding=1, bias=bias)


def chain(*parts: nn.Module) -> nn.Sequential:
    """Put parts between two convolutions and a head, and give norms statistics."""
    torch.manual_seed(0)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    return randomize(nn.Sequential(conv(), *parts, conv(), nn.ReLU(), *head)).eval()


def exported(model: nn.Module, folder: Path) -> onnx.GraphProto:
    """Export a quantized model, hold it against the model, and return the graph."""
    path = export(model, BATCH, folder / "model.onnx")
    assert worst_error(model, BATCH, path) <= TOLERANCE
    return onnx.load(path).graph


def operators(graph: onnx.GraphProto) -> list[str]:
    return [node.op_type for node in graph.node]


def test_a_norm_with_activation_is_folded_and_its_activation_stays(tmp_path: Path) -> None:
    model = quantize(chain(own.NormAct(16)), [BATCH])
    graph = exported(model, tmp_path)
    assert "LeakyRelu" in operators(graph)
    assert "BatchNormalization" not in operators(graph), "the fold is exact on the data flow"


def test_norms_of_every_make_agree(tmp_path: Path) -> None:
    norms = (
        own.NormWithoutMean(16), own.FunctionalNorm(16), own.FrozenNorm(16), own.BareNorm(16),
        nn.BatchNorm2d(16, affine=False), nn.BatchNorm2d(16, track_running_stats=False),
        own.doubled_output(nn.BatchNorm2d(16)), own.shifted_input(nn.BatchNorm2d(16)),
        own.replaced_forward(nn.BatchNorm2d(16)),
    )  # fmt: skip
    model = chain(*(part for norm in norms for part in (norm, nn.ReLU(), conv(bias=False))))
    exported(quantize(model, [BATCH]), tmp_path)


def test_volumes_are_exported_too(tmp_path: Path) -> None:
    """ModelOpt's Conv3d asks its quantizers for more than the others do."""
    layers = (nn.Conv3d(4, 16, 3, padding=1), nn.BatchNorm3d(16), nn.ReLU(), nn.Conv3d(16, 16, 3))
    model = randomize(
        nn.Sequential(nn.Unflatten(1, (4, 4)), *layers, nn.Flatten(), nn.LazyLinear(4))
    )
    model(BATCH)
    exported(quantize(model.eval(), [BATCH]), tmp_path)


def test_a_layer_read_by_its_norm_and_another_is_not_folded_for_the_other(tmp_path: Path) -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.out = conv(), nn.BatchNorm2d(16), conv()

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.out(torch.relu(self.norm(y)) + y)  # type: ignore[no-any-return]

    model = quantize(randomize(chain(Forked())), [BATCH])
    assert "BatchNormalization" in operators(exported(model, tmp_path))


def test_a_linear_layer_on_a_sequence_is_no_place_for_a_norm_of_its_rows(tmp_path: Path) -> None:
    """BatchNorm1d normalizes axis 1; the layer's channels are the last one."""

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.norm, self.down = nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(torch.relu(self.norm(self.up(x.flatten(2)))))  # type: ignore[no-any-return]

    model = randomize(nn.Sequential(conv(), Rows(), nn.Flatten(), nn.Linear(256, 10))).eval()
    exported(quantize(model, [BATCH]), tmp_path)


@pytest.mark.parametrize(
    ("kind", "excluded"),
    [
        (own.SameConv, False),
        (own.StandardizedConv, True),
        pytest.param(own.SameConv, True, marks=pytest.mark.slow),
        pytest.param(own.StandardizedConv, False, marks=pytest.mark.slow),
        pytest.param(own.ScaledConv, False, marks=pytest.mark.slow),
        pytest.param(own.ScaledConv, True, marks=pytest.mark.slow),
    ],
)
def test_a_layer_with_a_forward_of_its_own_is_written_with_it(
    kind: type[nn.Conv2d], excluded: bool, tmp_path: Path
) -> None:
    model = chain(nn.ReLU(), kind(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
    spec = QuantizeSpec(exclude=("2",) if excluded else ())
    quantize(model, [BATCH], spec=spec)
    exported(model, tmp_path)


def test_hooks_and_a_forward_set_on_the_instance_are_in_the_file(tmp_path: Path) -> None:
    layers = [wrap(conv(bias=False)) for wrap in (*own.WRAPPERS, *own.WEIGHT_WRAPPERS)]
    model = chain(*(part for layer in layers for part in (layer, nn.BatchNorm2d(16), nn.ReLU())))
    quantize(model, [BATCH])
    names = {note.name for note in report_of(model).quantized}
    assert {"1", "4", "7"} <= names, "hooks around a layer leave its weight INT8"
    exported(model, tmp_path)


def test_hooks_set_after_quantize_are_in_the_file_too(tmp_path: Path) -> None:
    model = quantize(chain(nn.BatchNorm2d(16), nn.ReLU()), [BATCH])
    own.doubled_output(model.get_submodule("0"))
    own.replaced_forward(model.get_submodule("3"))
    own.shifted_input(model.get_submodule("1"))
    own.doubled_output(model)
    exported(model, tmp_path)


def test_what_commutes_does_so_by_torchs_own_code_alone(tmp_path: Path) -> None:
    assert module_kind(nn.MaxPool2d(2)) is Kind.COMMUTE
    parts = (
        own.Doubling(), own.BlurPool(2), own.doubled_output(nn.MaxPool2d(2)), own.BiasedFlatten(),
        own.replaced_forward(nn.Flatten()), own.shifted_input(nn.Identity()),
    )  # fmt: skip
    assert {module_kind(part) for part in parts} == {Kind.FLOAT}
    model = chain(*parts[:3], nn.ReLU(), own.ScalingDropout(), own.ShiftedReLU())
    exported(quantize(model, [BATCH]), tmp_path)


def test_an_identity_with_a_hook_is_not_dropped() -> None:
    seen: list[Tensor] = []
    watched = nn.Identity()
    watched.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    model = quantize(chain(watched, nn.ReLU()), [BATCH])
    seen.clear()
    model(BATCH)
    assert len(seen) == 1


def test_a_forward_set_on_a_whole_network_keeps_its_quantizers(tmp_path: Path) -> None:
    model = own.replaced_forward(chain(nn.ReLU()))
    want = model(BATCH)
    quantize(model, [BATCH])
    assert 0 < float((model(BATCH) - want).abs().max()) < 0.1
    exported(model, tmp_path)


def test_masks_go_where_they_reach_the_weight() -> None:
    layers = (own.SameConv(16, 16, 3), own.weight_normed(conv()), own.pruned(conv()))
    model = chain(nn.ReLU(), *layers, own.replaced_forward(conv()), own.watched(conv()))
    sparsify(model, BATCH)
    held = sparse_layers(model)
    assert held == tuple(note.name for note in report_of(model).sparse)
    assert set(held) == {"2", "6", "7"}
    reasons = {note.name: note.why for note in report_of(model).skipped}
    assert reasons["3"].startswith("own code: it runs a parametrization")
    assert "a hook makes its weight" in reasons["4"]
    assert reasons["5"].startswith("own code: it runs a forward set on the instance")
    for name in held:
        weight = model.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        assert int((weight == 0).sum()) * 2 == weight.numel()


def test_a_norm_that_applies_the_activation_fuses_as_a_plain_one_does(tmp_path: Path) -> None:
    """As every BatchNorm of timm's EfficientNets and MobileNets is: nothing around it is float."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.first = conv(), own.NormAct(16)
            self.b, self.second = conv(), own.NormAct(16)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = torch.relu(self.second(self.b(self.first(self.a(x)))) + x)
            return y

    model = quantize(chain(nn.ReLU(), Residual(), Residual()), [BATCH])
    assert report_of(model).float_outputs == ()
    exported(model, tmp_path)
    found = preflight(tmp_path / "model.onnx")
    assert found.summary["int8_in_int8_out"] == found.summary["int8"]
    assert not [f for f in found.findings if f.severity != "info"]


def test_a_norm_with_code_of_its_own_trains_as_it_does_alone() -> None:
    """Its statistics and its count of batches, which the estimation of them anew reads."""
    plain = chain(own.NormAct(16))
    model = quantize(copy.deepcopy(plain), [BATCH])
    for network in (plain.train(), model.train()):
        network(BATCH)
    alone, placed = plain[1], model.get_submodule("1")
    assert placed.num_batches_tracked == alone.num_batches_tracked
    torch.testing.assert_close(placed.running_mean, alone.running_mean, rtol=0.05, atol=0.02)


def test_a_masked_layer_with_code_of_its_own_trains_and_is_written_sparse(tmp_path: Path) -> None:
    model = chain(nn.ReLU(), own.SameConv(16, 16, 3))
    quantize(sparsify(model, BATCH), [BATCH]).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(BATCH).square().mean().backward()
        optimizer.step()
    model.eval()
    exported(model, tmp_path)
    summary = preflight(tmp_path / "model.onnx").summary
    assert summary["sparse_found"] == len(sparse_layers(model)) == 2


def test_a_standardised_weight_stays_dense() -> None:
    model = sparsify(chain(nn.ReLU(), own.StandardizedConv(16, 16, 3, padding=1)), BATCH)
    reasons = {note.name: note.why for note in report_of(model).skipped}
    assert "does not multiply by its weight as it is" in reasons["2"]


def test_without_inputs_code_of_their_own_cannot_be_followed() -> None:
    model = sparsify(chain(nn.ReLU(), own.SameConv(16, 16, 3)))
    reasons = {note.name: note.why for note in report_of(model).skipped}
    assert "with example_inputs it is" in reasons["2"]


def test_a_mask_keeps_the_forward_of_its_instance() -> None:
    model = chain(own.replaced_forward(conv()))
    want = model[1](BATCH)
    sparsify(model, BATCH)
    torch.testing.assert_close(model[1](BATCH), want)


def test_a_masked_weight_that_a_function_reads_is_written_masked(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv()

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.conv(x))
            return F.conv2d(y, self.conv.weight, padding=1) + self.conv.weight.mean()

    model = chain(nn.ReLU(), Tied())
    sparsify(model, BATCH)
    assert "2.conv" in sparse_layers(model)
    exported(quantize(model, [BATCH]), tmp_path)


def test_attributes_that_code_reads_off_a_layer_are_there_at_export(tmp_path: Path) -> None:
    class ByMode(own.ReadsWeight):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y if self.training else y * 2  # stays Python

    exported(quantize(chain(nn.ReLU(), ByMode(conv())), [BATCH]), tmp_path)


def test_export_gives_every_part_its_mode_back(tmp_path: Path) -> None:
    model = quantize(chain(nn.BatchNorm2d(16), nn.Dropout(0.5)), [BATCH]).train()
    model.get_submodule("1").eval()
    export(model, BATCH, tmp_path / "model.onnx")
    assert model.training
    assert model.get_submodule("2").training
    assert not model.get_submodule("1").training


def test_a_chunk_is_cut_from_what_was_quantized(tmp_path: Path) -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            a, b = x.chunk(2, 1)
            return torch.cat([a, self.body(b)], 1)

    graph = exported(quantize(chain(nn.SiLU(), Halves()), [BATCH]), tmp_path)
    makers = {name: node.op_type for node in graph.node for name in node.output}
    (split,) = [node for node in graph.node if node.op_type == "Split"]
    assert makers[split.input[0]] == "DequantizeLinear"


def test_mish_is_spelled_out_where_the_opset_lacks_it(tmp_path: Path) -> None:
    graph = exported(quantize(chain(nn.Mish()), [BATCH]), tmp_path)
    assert {"Softplus", "Tanh"} <= set(operators(graph))
    assert "Mish" not in operators(graph)


def test_a_network_that_draws_random_numbers_is_refused(tmp_path: Path) -> None:
    class Noise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand_like(x)

    class AlwaysDropping(nn.Dropout):
        def train(self, mode: bool = True) -> AlwaysDropping:
            super().train(True)
            return self

    for part, operator in ((Noise(), "RandomUniformLike"), (AlwaysDropping(), "Dropout")):
        model = quantize(chain(part), [BATCH])
        with pytest.raises(ModelError, match=f"{operator} '1/{operator}' draws random numbers"):
            export(model, BATCH, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (lambda: nn.LazyConv2d(16, 3), "parameter '1.weight' has no shape yet"),
        (lambda: torch.jit.script(nn.ReLU()), "'1' is scripted"),
        (lambda: torch.compile(nn.ReLU(), backend="eager"), "'1' is compiled"),
    ],
)
def test_parts_that_cannot_be_placed_are_named(part: Callable[[], nn.Module], why: str) -> None:
    with pytest.raises(ModelError, match=why):
        quantize(chain(part()), [BATCH])


def test_a_layer_in_untraced_code_is_quantized_around_its_own_code(tmp_path: Path) -> None:
    class Python(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = conv(), own.ScaledConv(16, 16, 3, padding=1), conv()

        def forward(self, x: Tensor) -> Tensor:
            y = self.c(self.b(self.a(x)))
            return y if self.training else y + 1  # type: ignore[no-any-return]

    model = quantize(chain(Python()), [BATCH])
    assert {note.name for note in report_of(model).quantized} >= {"1.a", "1.c"}
    exported(model, tmp_path)


@pytest.mark.parametrize(
    "wrap", [own.doubled_output, pytest.param(own.replaced_forward, marks=pytest.mark.slow)]
)
def test_layers_of_a_comparison_are_told_by_what_runs(
    wrap: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    from trt_qat.comparison.layerwise import compare_layers
    from trt_qat.qat.tapped import TorchTapped
    from trt_qat.runners.ort_tapped import OrtTapped

    parts = (wrap(conv()), nn.BatchNorm2d(16), nn.ReLU(), conv(), own.NormAct(16))
    model = quantize(chain(*parts), [BATCH])
    path = export(model, BATCH, tmp_path / "model.onnx")
    found = compare_layers(TorchTapped(model), OrtTapped(path), [{"input": BATCH.numpy()}])
    assert found.first_divergence is None
    assert quantized(model).placed.norms == {}
