"""Graphs of torch.export, as PT2E quantizes them, turned back into modules of torch.nn.

Placement reads layers as modules and operators as torch's functions; an exported graph has neither,
but calls ``aten.conv2d`` with parameters. Fake quantization is taken out on the way.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from trt_qat.qat import foreign
from trt_qat.qat.exported import fold_into, fold_stored, operator_name

_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "add": operator.add,
    "adaptive_avg_pool2d": functional.adaptive_avg_pool2d,
    "avg_pool2d": functional.avg_pool2d,
    "cat": torch.cat,
    "div": operator.truediv,
    "flatten": torch.flatten,
    "gelu": functional.gelu,
    "hardsigmoid": functional.hardsigmoid,
    "hardswish": functional.hardswish,
    "hardtanh": functional.hardtanh,
    "leaky_relu": functional.leaky_relu,
    "matmul": torch.matmul,
    "max_pool2d": functional.max_pool2d,
    "mean": torch.mean,
    "mul": operator.mul,
    "permute": torch.permute,
    "relu": functional.relu,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "softmax": functional.softmax,
    "sub": operator.sub,
    "transpose": torch.transpose,
}
_ELEMENTWISE = frozenset({"add", "sub", "mul", "div"})
_RESHAPES = frozenset({"reshape", "view", "_unsafe_view"})
_NO_OPERATION = frozenset({"alias", "clone", "contiguous", "detach", "dropout", "lift_fresh_copy"})
_CONVOLUTIONS: Mapping[str, type[nn.Module]] = {
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
}
_NORMS = frozenset({"batch_norm", "_native_batch_norm_legit_no_training"})


def lowered(graph_module: fx.GraphModule) -> nn.Module:
    """Return a graph of torch.export without fake quantization, its layers as modules.

    Args:
        graph_module: prepared or converted by PT2E, or any other; changed in place.
    """
    return _Lowering(graph_module).run()


class _Lowering:
    def __init__(self, module: fx.GraphModule) -> None:
        self.module, self.graph = module, module.graph
        self.made: dict[str, nn.Module] = {}
        self.computed: set[str] = set()
        self.folded: set[fx.Node] = set()

    def run(self) -> nn.Module:
        for node in list(self.graph.nodes):
            self._without_quantization(node)
        self.computed = fold_stored(self.module)
        for node in list(self.graph.nodes):
            if node.op == "call_function" and node not in self.folded:
                self._lower(node)
        self.graph.eliminate_dead_code()
        root = nn.Module()
        for name, child in self.module.named_children():
            root.add_module(name, child)
        for name, layer in self.made.items():
            root.add_module(name, layer)
        for name, tensor in (*self.module.named_parameters(), *self.module.named_buffers()):
            if "." not in name:
                _hold(root, name, tensor)
        self._plain_signature()
        made = fx.GraphModule(root, self.graph, "Unquantized")
        made.delete_all_unused_submodules()
        return _as_module(made).eval()

    def _plain_signature(self) -> None:
        """Let the graph take its inputs one by one and return what the model returned."""
        spec = getattr(self.module, "_out_spec", None)
        (output,) = [node for node in self.graph.nodes if node.op == "output"]
        leaves = list(output.args[0]) if isinstance(output.args[0], (list, tuple)) else None
        if spec is not None and leaves is not None:
            output.args = (pytree.tree_unflatten(leaves, spec),)
        self.graph.set_codegen(fx.graph.CodeGen())

    def _without_quantization(self, node: fx.Node) -> None:
        if node.op == "call_module":
            child = self.module.get_submodule(str(node.target))
            if foreign.toolkit(child):
                self._bypass(node, node.args[0])
            elif not node.users and not list(child.children()):
                self.graph.erase_node(node)  # the guards of torch.export
        elif foreign.is_fake_quantization(node):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            stored = source.op == "get_attr" and "dequantize" in str(node.target)
            if stored:
                self._store_float(node, source)
            else:
                self._bypass(node, source)

    def _bypass(self, node: fx.Node, source: Any) -> None:
        node.replace_all_uses_with(source)
        self.graph.erase_node(node)

    def _store_float(self, node: fx.Node, source: fx.Node) -> None:
        """Store the values that a DequantizeLinear of stored codes gives."""
        args = [self._value(x) for x in node.args]
        target: Any = node.target
        value = target(*args, **{k: self._value(v) for k, v in node.kwargs.items()})
        name = f"{str(source.target).replace('.', '_')}_float"
        self.module.register_parameter(name, nn.Parameter(value.detach(), requires_grad=True))
        with self.graph.inserting_before(node):
            self._bypass(node, self.graph.get_attr(name))

    def _value(self, argument: Any) -> Any:
        if not isinstance(argument, fx.Node):
            return argument
        found: Any = self.module
        for part in str(argument.target).split("."):
            found = getattr(found, part)
        return found

    def _lower(self, node: fx.Node) -> None:
        name = operator_name(node.target)
        if name in _CONVOLUTIONS and self._is_stored(node, 1):
            layer = self._convolution(node, _CONVOLUTIONS[name])
            if self._reads_computed(node):  # of QAT: what follows undoes the scale
                self.folded |= fold_into(self.module, node, layer)
            self._call_module(node, layer)
        elif name == "linear" and self._is_stored(node, 1):
            weight, bias = self._tensor(node, 1), self._tensor(node, 2)
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
            self._call_module(node, _with(layer, weight=weight, bias=bias))
        elif name in _NORMS:
            self._norm(node, name)
        elif name in _NO_OPERATION:
            self._bypass(node, node.args[0])
        elif name in _RESHAPES:
            node.target, node.args = torch.reshape, (node.args[0], _free_batch(node))
        elif name in _FUNCTIONS and not (name in _ELEMENTWISE and node.kwargs):
            node.target = _FUNCTIONS[name]
            if name == "softmax":
                node.args = node.args[:2]

    def _is_stored(self, node: fx.Node, position: int) -> bool:
        argument = node.args[position] if position < len(node.args) else None
        return isinstance(argument, fx.Node) and argument.op == "get_attr"

    def _reads_computed(self, node: fx.Node) -> bool:
        weight = node.args[1]
        return isinstance(weight, fx.Node) and str(weight.target) in self.computed

    def _tensor(self, node: fx.Node, position: int) -> Any:
        argument = node.args[position] if position < len(node.args) else None
        return None if argument is None else self._value(argument)

    def _convolution(self, node: fx.Node, kind: Any) -> nn.Module:
        weight, bias = self._tensor(node, 1), self._tensor(node, 2)
        rest: list[Any] = list(node.args[3:])
        rest += [1, 0, 1, 1][len(rest) :]
        stride, padding, dilation, groups = rest
        layer: nn.Module = kind(
            weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]),
            stride=_tuple(stride), padding=padding if isinstance(padding, str) else _tuple(padding),
            dilation=_tuple(dilation), groups=groups, bias=bias is not None,
        )  # fmt: skip
        return _with(layer, weight=weight, bias=bias)

    def _norm(self, node: fx.Node, name: str) -> None:
        weight, bias, mean, variance = (self._tensor(node, i) for i in (1, 2, 3, 4))
        epsilon = node.args[7] if name == "batch_norm" else node.args[6]
        layer: Any = nn.BatchNorm2d(mean.shape[0], eps=float(epsilon), affine=weight is not None)  # type: ignore[arg-type]
        layer.running_mean, layer.running_var = mean.detach(), variance.detach()
        if name != "batch_norm":
            for user in list(node.users):  # getitem 0 of three outputs
                self._bypass(user, node)
        self._call_module(node, _with(layer, weight=weight, bias=bias))

    def _call_module(self, node: fx.Node, layer: nn.Module) -> None:
        argument = node.args[1] if len(node.args) > 1 else None
        path = str(argument.target) if isinstance(argument, fx.Node) else node.name
        name = (
            path.removesuffix("_computed")
            .removesuffix("_float")
            .removesuffix(".weight")
            .replace(".", "_")
        )
        name = name if name and not name.startswith("_") else node.name
        while name in self.made or hasattr(self.module, name):
            name += "_"
        self.made[name] = layer
        setattr(self.module, name, layer)
        node.op, node.target, node.args, node.kwargs = "call_module", name, (node.args[0],), {}


def _hold(root: nn.Module, name: str, tensor: torch.Tensor) -> None:
    if isinstance(tensor, nn.Parameter):
        root.register_parameter(name, tensor)
    else:
        root.register_buffer(name, tensor)


def _as_module(graph_module: fx.GraphModule) -> nn.Module:
    """Return a plain module that runs a graph: a GraphModule's call is bound to its own class."""
    forward = type(graph_module).forward
    plain: nn.Module = type("Unquantized", (nn.Module,), {"forward": forward})()
    for name, child in graph_module.named_children():
        plain.add_module(name, child)
    for name, parameter in graph_module.named_parameters(recurse=False):
        plain.register_parameter(name, parameter)
    for name, buffer in graph_module.named_buffers(recurse=False):
        plain.register_buffer(name, buffer)
    return plain


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _with(layer: Any, *, weight: Any, bias: Any) -> nn.Module:
    if weight is not None:
        layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    made: nn.Module = layer
    return made


def _free_batch(node: fx.Node) -> Any:
    """Return the shape of a reshape with the batch left open, which the example had fixed."""
    shape: Any = node.args[1]
    source = node.args[0]
    held = source.meta.get("val") if isinstance(source, fx.Node) else None
    fixed = isinstance(shape, (list, tuple)) and all(isinstance(x, int) for x in shape)
    if fixed and held is not None and held.dim() and shape and shape[0] == held.shape[0] != -1:
        rest = list(shape[1:])
        if -1 not in rest:
            return [-1, *rest]
        known = 1
        for size in held.shape[1:]:
            known *= int(size)
        for size in rest:
            known //= size if size != -1 else 1
        return [-1, *(known if size == -1 else size for size in rest)]
    return shape
