"""The reference architectures run, train, trace and export in float, before quantization."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from tests.models import (
    REFERENCE,
    Reference,
    efficientnet_b0,
    mobilenet_v2,
    outputs_of,
    resnet18,
)

ort = pytest.importorskip("onnxruntime")

# An export takes seconds, and tests of what we write export these anyway.
QUICK = {"resnet18", "two_inputs", "functional"}
EXPORTED = [
    pytest.param(reference, marks=[] if name in QUICK else [pytest.mark.slow], id=name)
    for name, reference in REFERENCE.items()
    if reference.traceable
]
# Why torch.fx.symbolic_trace refuses these. Kept as a table, so that a release of torch or
# transformers that changes an answer is noticed.
FX_REFUSES = {
    "yolo": "Proxy object cannot be iterated",
    "yolo_dfl": "Proxy object cannot be iterated",
    "bert": "slice indices must be integers or None or have an __index__ method",
    "untraceable": "symbolically traced variables cannot be used as inputs to control flow",
    "hf_resnet": "symbolically traced variables cannot be used as inputs to control flow",
    "hf_mobilenet_v2": r"int\(\) argument must be a string, a bytes-like object or a real number",
    "hf_vit": "Proxy object cannot be iterated",
    "hf_vit_eager": "Proxy object cannot be iterated",
    "hf_bert": "co_varnames is too small",
    "hf_bert_eager": "co_varnames is too small",
}
every = pytest.mark.parametrize("reference", REFERENCE.values(), ids=str)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def run(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return outputs_of(model(*inputs))


@every
def test_outputs_are_named_finite_and_differ_between_samples(reference: Reference) -> None:
    outputs = run(reference.build(), reference.example_inputs(4))
    assert len(outputs) == len(reference.outputs)
    for output in outputs:
        assert output.shape[0] == 4
        assert output.isfinite().all()
        spread = output.std(0).mean() / output.abs().mean()
        assert spread > 0.05, "a constant answer would hide every quantization error"


@every
def test_build_is_deterministic_and_leaves_the_global_generator_alone(reference: Reference) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, second = reference.build(), reference.build()
    assert torch.equal(torch.get_rng_state(), state)
    assert not first.training
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    inputs = reference.example_inputs(2)
    for a, b in zip(inputs, reference.example_inputs(2), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(run(first, inputs), run(second, inputs), strict=True):
        assert torch.equal(a, b)


@every
def test_every_trainable_parameter_gets_a_gradient(reference: Reference) -> None:
    model = reference.build().train()
    loss = torch.stack([y.square().mean() for y in outputs_of(model(*reference.example_inputs(4)))])
    loss.sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


@every
def test_batch_norm_statistics_were_measured(reference: Reference) -> None:
    for name, module in reference.build().named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_mean.abs().max() > 0, name
            assert module.momentum is not None, name


def test_other_seeds_draw_other_inputs() -> None:
    for reference in REFERENCE.values():
        first, second = reference.example_inputs(2, seed=0), reference.example_inputs(2, seed=1)
        assert not torch.equal(first[0], second[0]), reference.name


@pytest.mark.parametrize("factory", [resnet18, mobilenet_v2, efficientnet_b0])
def test_classifiers_take_small_grey_images(factory: type[nn.Module]) -> None:
    model = factory(in_channels=1, num_classes=7).eval()
    assert run(model, (torch.randn(2, 1, 28, 28),))[0].shape == (2, 7)


@pytest.mark.parametrize("name", sorted(set(REFERENCE) - set(FX_REFUSES)))
def test_fx_traces(name: str) -> None:
    reference = REFERENCE[name]
    model = reference.build()
    traced = fx.symbolic_trace(model)
    assert set(traced.state_dict()) == set(model.state_dict())
    inputs = reference.example_inputs(3)
    for a, b in zip(run(traced, inputs), run(model, inputs), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", sorted(FX_REFUSES))
def test_fx_refuses(name: str) -> None:
    with pytest.raises((fx.proxy.TraceError, TypeError, ValueError), match=FX_REFUSES[name]):
        fx.symbolic_trace(REFERENCE[name].build())


def test_the_untraceable_model_branches_on_its_input() -> None:
    reference = REFERENCE["untraceable"]
    model = reference.build()
    (image,) = reference.example_inputs(2)
    steps: list[int] = []
    model.get_submodule("refine").register_forward_hook(lambda *_: steps.append(1))
    run(model, (image,))
    calm = len(steps)
    run(model, (4 * image,))
    assert len(steps) - calm > calm
    fx.symbolic_trace(model.get_submodule(reference.traced_part))


@pytest.mark.parametrize("reference", EXPORTED)
def test_onnx_export_matches_torch_at_another_batch_size(reference: Reference) -> None:
    model = reference.build()
    example = reference.example_inputs(2)
    program = torch.onnx.export(
        model,
        example,
        dynamo=True,
        verbose=False,
        dynamic_shapes=tuple({0: "batch"} for _ in example),
    )
    assert program is not None
    serialized = program.model_proto.SerializeToString()
    session = ort.InferenceSession(serialized, providers=["CPUExecutionProvider"])
    inputs = reference.example_inputs(5, seed=3)
    names = [value.name for value in session.get_inputs()]
    feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    for got, want in zip(session.run(None, feed), run(model, inputs), strict=True):
        # Relative to the tensor's range: rounding of a deep net is no smaller where a logit is 0.
        np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=1e-4 * float(want.abs().max()))
