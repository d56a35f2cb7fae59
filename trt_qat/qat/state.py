"""What the stages did to a model, kept on the model itself.

So it is copied, pickled, averaged and freed with the model. A process-wide table would keep the
model alive, and know nothing of its copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

_KEY = "_trt_qat"


def kept(model: nn.Module, what: str) -> Any:
    """Return what a stage kept under a name on ``model``, None where there is nothing."""
    return vars(model).get(_KEY, {}).get(what)


def keep(model: nn.Module, what: str, value: Any) -> None:
    """Keep ``value`` on ``model`` under a name: in its attributes, not among its parts."""
    vars(model).setdefault(_KEY, {})[what] = value


def kept_within(model: nn.Module, what: str) -> Iterator[Any]:
    """Yield what was kept on ``model`` and on its parts, as behind a wrapper, outermost first."""
    for module in model.modules():
        found = kept(module, what)
        if found is not None:
            yield found


def unwrapped(model: nn.Module) -> nn.Module:
    """Return what a wrapper of torch's for averaging or for several devices wraps."""
    while isinstance(model, (AveragedModel, nn.DataParallel, DistributedDataParallel)):
        model = model.module
    return model
