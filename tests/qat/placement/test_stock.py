"""stock: whether a module's call runs torch's own code, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import spectral_norm

from tests.qat import own_code as own
from trt_qat.qat.placement.stock import own_code, stock_class
from trt_qat.qat.quantize import quantize
from trt_qat.qat.sparsify import sparsify


def conv() -> nn.Conv2d:
    return nn.Conv2d(16, 16, 3)


class ByDunderCall(nn.ReLU):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = super().__call__(x) + 1
        return y


class OwnPadding(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):  # type: ignore[no-untyped-def]
        return super()._conv_forward(x * 2, weight, bias)


class Setting:
    """A descriptor that takes what is set, and may be read for something else."""

    def __get__(self, instance: object, owner: type) -> float:
        return 2.0

    def __set__(self, instance: object, value: float) -> None:
        """Keep nothing."""


class BySetting(nn.ReLU):
    slope = Setting()


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Conv2d(3, 4, 1), nn.Conv2d),
        (own.BareConv(3, 4, 1), nn.Conv2d),
        (own.BareNorm(4), nn.BatchNorm2d),
        (nn.Identity(), nn.Identity),
        (nn.Sequential(), nn.Sequential),
        (nn.MultiheadAttention(4, 2).out_proj, nn.Linear),
    ],
)
def test_torchs_classes_and_subclasses_in_name_alone_are_stock(
    module: nn.Module, expected: type[nn.Module]
) -> None:
    assert stock_class(module) is expected
    assert own_code(module) is None


@pytest.mark.parametrize(
    ("module", "code"),
    [
        (own.SameConv(3, 4, 1), "SameConv.forward"),
        (own.NormAct(4), "NormAct.forward"),
        (own.Doubling(), "Doubling.forward"),
        (own.SquaredWeightLinear(3, 4), "SquaredWeightLinear.weight"),
        (ByDunderCall(), "ByDunderCall.__call__"),
        (BySetting(), "BySetting.slope"),
        (OwnPadding(3, 4, 1), "OwnPadding._conv_forward"),
        (own.weight_normed(conv()), "a parametrization"),
        (own.replaced_forward(conv()), "a forward set on the instance"),
        (own.ReadsWeight(conv()), "ReadsWeight.forward"),
    ],
)
def test_what_a_subclass_or_an_instance_adds_is_named(module: nn.Module, code: str) -> None:
    assert own_code(module) == code
    assert own_code(module, hooked=True) == code
    assert stock_class(module) is None


@pytest.mark.parametrize(
    "wrap", [own.doubled_output, own.shifted_input, own.watched, own.pruned, spectral_norm]
)
def test_hooks_count_unless_they_do_not_matter_to_the_question(
    wrap: Callable[[nn.Module], nn.Module],
) -> None:
    module = wrap(conv())
    assert own_code(module) == "a hook"
    assert stock_class(module) is None
    assert stock_class(module, hooked=True) is nn.Conv2d


def test_only_methods_that_a_call_runs_count_on_an_instance() -> None:
    """Ultralytics keeps the name of a layer's class under ``type``, a method of every module."""
    module = conv()
    module.type = "torch.nn.Conv2d"  # type: ignore[method-assign, assignment]
    assert stock_class(module) is nn.Conv2d
    module._conv_forward = lambda x, weight, bias: x  # type: ignore[method-assign, assignment]
    assert own_code(module) == "a _conv_forward set on the instance"


def test_hooks_that_were_removed_do_not_count() -> None:
    module = conv()
    module.register_forward_hook(lambda *_: None).remove()
    assert stock_class(module) is nn.Conv2d


def test_modelopts_classes_are_what_they_were_made_from() -> None:
    """They are layers of ours by then; of a subclass, what it adds still counts."""
    model = nn.Sequential(conv(), own.BareConv(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 1))
    sparsify(model, torch.randn(2, 16, 8, 8))
    assert type(model[1]) is not own.BareConv
    assert [stock_class(model[i]) for i in (0, 1)] == [nn.Conv2d, nn.Conv2d]
    quantize(model, [torch.randn(2, 16, 8, 8)])
    assert [stock_class(model[i]) for i in (0, 1)] == [nn.Conv2d, nn.Conv2d]
    own.watched(model[1])
    assert own_code(model[1]) == "a hook"
