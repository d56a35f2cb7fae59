"""What users hand over: batches in any form, and modules that cannot be placed."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import fx, nn
from torch.nn.parameter import is_lazy

from trt_qat.data.samples import each_of
from trt_qat.errors import DataError, ModelError
from trt_qat.qat.tensors import as_tensors, tensors_in


def input_batches(model: nn.Module, given: Any) -> Iterator[Any]:
    """Yield batches of inputs as ``model`` takes them.

    Args:
        model: whose forward says how many inputs it takes.
        given: an iterable of batches, as a DataLoader or a list, or one batch: a tensor, an array,
            a dict, or a pair of a dict and targets. A batch may hold targets behind its inputs, or
            under ``labels``; numpy arrays become tensors.

    Raises:
        DataError: it is nothing of these, or it fails on the way.
    """
    if isinstance(given, (torch.Tensor, np.ndarray, Mapping)) or _labelled(model, given):
        given = [given]
    if not isinstance(given, Iterable):
        message = (
            f"calibration_batches is a {type(given).__name__}; give an iterable of batches, such "
            "as a DataLoader or a list of tensors"
        )
        raise DataError(message)
    for batch in each_of(given, "calibration_batches"):
        yield inputs_of(model, batch)


def inputs_of(model: nn.Module, batch: Any) -> Any:
    """Return the inputs in a batch, without targets that the model's forward does not take.

    They go to the device that the model lies on: a DataLoader leaves them on the CPU.
    """
    return beside(model, _inputs_of(model, batch))


def beside(model: nn.Module, inputs: Any) -> Any:
    """Return inputs on the device that a model lies on; as they are where it lies on several."""
    devices = {parameter.device for parameter in model.parameters()}
    if len(devices) != 1 or {tensor.device for tensor in tensors_in(inputs)} <= devices:
        return inputs
    return send_to_device(inputs, devices.pop())


def _inputs_of(model: nn.Module, batch: Any) -> Any:
    signature = inspect.signature(model.forward)
    if isinstance(batch, Mapping):
        kept = dict(batch)
        without = {key: value for key, value in kept.items() if key != "labels"}
        return _tensors(without if _binds(signature, (), without) else kept)
    if isinstance(batch, (tuple, list)):
        members = tuple(batch)
        if len(members) == 2 and (not _binds(signature, members, {}) or _labels(*members)):
            return _tensors(members[0])
        if len(members) == 2 and _keywords(signature, members[0]):
            return _tensors(members[0])
        return _tensors(members)
    return _tensors(batch)


def _tensors(value: Any) -> Any:
    """Return a structure with tensors for its arrays; a structure without any stays what it is."""
    if isinstance(value, (np.ndarray, Mapping, tuple, list)):
        return as_tensors(value)
    return value


def _binds(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _keywords(signature: inspect.Signature, first: Any) -> bool:
    """Tell whether the first of a pair is a whole batch: a dict of the forward's arguments."""
    return isinstance(first, Mapping) and bool(first) and _binds(signature, (), dict(first))


def _labelled(model: nn.Module, given: Any) -> bool:
    """Tell whether what was given is one batch of a dict of inputs, with its targets."""
    if not isinstance(given, tuple) or len(given) != 2 or isinstance(given[1], Mapping):
        return False
    return _keywords(inspect.signature(model.forward), given[0])


def _labels(inputs: Any, targets: Any) -> bool:
    """Tell whether the second of a pair is one class for each sample of an image batch."""
    return (
        isinstance(inputs, (torch.Tensor, np.ndarray))
        and isinstance(targets, (torch.Tensor, np.ndarray))
        and len(inputs.shape) == 4
        and len(targets.shape) == 1
        and len(inputs) == len(targets)
        and not torch.as_tensor(targets).is_floating_point()
    )


def refuse_unplaceable(model: Any, verb: str) -> None:
    """Say in one sentence what to hand over in place of a wrapper or of a compiled model.

    Raises:
        ModelError: ``model`` is no module, or is wrapped, compiled or scripted.
    """
    if not isinstance(model, nn.Module):
        message = f"{verb}: the model is a {type(model).__name__}, not a torch.nn.Module"
        raise ModelError(message)
    if isinstance(model, torch.jit.ScriptModule):
        message = f"{verb}: a scripted or traced model has no Python code; give the module it is of"
        raise ModelError(message)
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        message = f"{verb}: the model is wrapped in {type(model).__name__}; give model.module"
        raise ModelError(message)
    if hasattr(model, "_orig_mod"):
        message = f"{verb}: the model is compiled; give the module that was given to torch.compile"
        raise ModelError(message)
    for name, part in model.named_modules():
        if isinstance(part, torch.jit.ScriptModule) or hasattr(part, "_orig_mod"):
            made = "scripted" if isinstance(part, torch.jit.ScriptModule) else "compiled"
            message = f"{verb}: {name!r} is {made}; put the module that it was made from there"
            raise ModelError(message)
    lazy = next((n for n, p in model.named_parameters() if is_lazy(p)), None)
    if lazy is not None:
        message = f"{verb}: parameter {lazy!r} has no shape yet; run the model once on a batch"
        raise ModelError(message)


def refuse_exported(model: nn.Module, verb: str) -> None:
    """Refuse a graph of torch.export, which calls operators and has no layers.

    Raises:
        ModelError: the model is one.
    """
    if isinstance(model, fx.GraphModule) and "train" in vars(model):  # torch.export's own
        message = (
            f"{verb}: the model is a graph of torch.export, which has neither layers nor modes; "
            "give the module that it was exported from"
        )
        raise ModelError(message)
