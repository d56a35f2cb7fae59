"""How sharp a minimum is, and training that looks for a flat one (SAM, Foret et al., 2010.01412).

Sharpness is the growth of the loss on the way of ``rho`` along its gradient: the first-order
estimate of the worst point in a ball around the weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trt_qat.errors import DataError
from trt_qat.qat.averaging import batch_norms, norms_taking_in
from trt_qat.qat.evaluate import eval_mode

BATCHES = 8
"""On which sharpness is measured."""


@contextmanager
def perturbed(model: nn.Module, rho: float) -> Iterator[None]:
    """Move the weights by ``rho`` along their gradient inside the block, and back at its end.

    A step of SAM in any loop: ``loss(...).backward()``, then inside the block
    ``optimizer.zero_grad()`` and ``loss(...).backward()`` once more, then ``optimizer.step()``.
    Statistics of BatchNorm stand still inside.

    Args:
        model: whose parameters have gradients; without any nothing moves.
        rho: length of the move, over all parameters.
    """
    trained = [p for p in model.parameters() if p.grad is not None]
    grads = [p.grad.detach().clone() for p in trained if p.grad is not None]
    before = [p.detach().clone() for p in trained]
    length = _length(grads)
    try:
        with torch.no_grad():
            if length > 0:
                for parameter, gradient in zip(trained, grads, strict=True):
                    parameter.add_(gradient, alpha=rho / length)
        with norms_taking_in(batch_norms(model), 0.0):
            yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(trained, before, strict=True):
                parameter.copy_(value)


def sharpness(
    model: nn.Module, batches: Iterable[Any], loss: Callable[[Any], Tensor], rho: float = 0.05
) -> float:
    """Return by how much the mean loss grows on a way of ``rho`` uphill.

    Args:
        model: in any mode, which it keeps; evaluated, its gradients are cleared.
        batches: whatever ``loss`` takes; the first `BATCHES` count.
        loss: from one of them to a scalar, which runs the model.
        rho: length of the way, over all parameters.

    Raises:
        DataError: there is no batch.
    """
    grown = []
    with eval_mode(model), torch.enable_grad():
        for batch in itertools.islice(batches, BATCHES):
            model.zero_grad(set_to_none=True)
            here = loss(batch)
            here.backward()  # type: ignore[no-untyped-call]
            with perturbed(model, rho), torch.no_grad():
                grown.append(float(loss(batch)) - float(here.detach()))
    model.zero_grad(set_to_none=True)
    if not grown:
        message = "sharpness: there is no batch; give at least one"
        raise DataError(message)
    return sum(grown) / len(grown)


def _length(gradients: list[Tensor]) -> float:
    if not gradients:
        return 0.0
    each = torch.stack([gradient.float().norm() for gradient in gradients])
    return float(each.norm())
