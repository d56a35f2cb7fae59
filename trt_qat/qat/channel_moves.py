"""What is done to the channels of a space, in what writes them, hands them on and reads them."""

from __future__ import annotations

from torch import Tensor, nn

from trt_qat.qat.channels import Space, is_depthwise, own_weight
from trt_qat.qat.quantizers.axes import along_axis


def take_channels(model: nn.Module, space: Space, index: Tensor) -> None:
    """Let channel i of a space be what channel ``index[i]`` was, where it is read as well."""
    for path in (*space.writers, *space.carried):
        module = model.get_submodule(path)
        for tensors in (module._parameters, module._buffers):
            for tensor in tensors.values():
                if tensor is not None and tensor.dim() and len(tensor) == space.size:
                    tensor.data.copy_(tensor.data[index])
    for path in space.readers:
        weight = own_weight(model.get_submodule(path)).data
        weight.copy_(weight[:, index])


def divide_channels(model: nn.Module, space: Space, factors: Tensor) -> None:
    """Divide the channels of a space by factors, and let its readers multiply by them."""
    for path in space.writers:
        for name in ("weight", "bias"):
            parameter = model.get_submodule(path)._parameters.get(name)
            if parameter is not None:
                parameter.data.div_(_shaped(factors, parameter, 0))
    for path in space.readers:
        layer = model.get_submodule(path)
        weight = own_weight(layer).data
        weight.mul_(_shaped(factors, weight, 0 if is_depthwise(layer) else 1))


def _shaped(factors: Tensor, like: Tensor, axis: int) -> Tensor:
    return along_axis(factors.to(like), axis, like.dim())
