"""What a training step keeps and hands on for learned scales, and for fixed ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.qat.quantizers.learned import on_learned_grid
from trt_qat.qat.quantizers.fake_quant import activation_quantizer, fake_quantize
from trt_qat.qat.quantizers.learned_scales import learn_scales


def values(seed: int = 0) -> Tensor:
    return torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("axis", "of_weight"), [(None, False), (None, True), (0, True)])
def test_one_tensor_of_the_inputs_size_is_kept_for_the_gradient(
    axis: int | None, of_weight: bool
) -> None:
    """As many as with a fixed scale: activations are what the memory of a step goes to."""
    sizes: list[int] = []

    def pack(kept: Tensor) -> Tensor:
        sizes.append(kept.numel())
        return kept

    scale = torch.full(() if axis is None else (8,), 0.1, requires_grad=True)
    x = values().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
        on_learned_grid(x, scale, axis, of_weight=of_weight)
    assert sum(size >= x.numel() for size in sizes) == 1


@pytest.mark.parametrize("learns", [False, True], ids=["fixed", "learned"])
def test_a_gradient_in_another_order_is_the_same_and_leaves_in_that_of_the_values(
    learns: bool,
) -> None:
    """Behind the transposes of attention it comes in one that makes every later pass slower."""
    found = []
    strided = values(1).transpose(2, 3)
    for given in (strided.contiguous(), strided):
        made = activation_quantizer()
        made.amax = torch.tensor(1.5)
        if learns:
            learn_scales(made)
        x = values().requires_grad_()
        seen: list[bool] = []
        y = fake_quantize(x * 1, made)
        edge = y.grad_fn.next_functions[0][0]  # type: ignore[union-attr]
        edge.register_prehook(lambda got, seen=seen: seen.append(got[0].is_contiguous()))  # type: ignore[union-attr]
        y.backward(given)  # type: ignore[no-untyped-call]
        assert seen == [True]
        found.append([x.grad, *(p.grad for p in made.parameters())])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("axis", "of_weight"), [(None, False), (0, True)])
def test_half_precision_stays_half(kind: torch.dtype, axis: int | None, of_weight: bool) -> None:
    scale = torch.full(() if axis is None else (8,), 0.1, dtype=kind, requires_grad=True)
    x = values().to(kind).requires_grad_()
    made = on_learned_grid(x, scale, axis, of_weight=of_weight)
    made.sum().backward()  # type: ignore[no-untyped-call]
    assert made.dtype is kind
    for leaf in (x, scale):
        assert leaf.grad is not None
        assert leaf.grad.dtype is kind
        assert bool(leaf.grad.isfinite().all())
