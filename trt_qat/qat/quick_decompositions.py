"""Exports without the exporter's second and third trace, where they would change nothing.

torch.onnx traces the captured program anew to take apart what it cannot translate, and to make
operations in place functional: 45 % of an export of 200 layers. A deployed network is nearly always
made of operations that it translates as they are. Of such a graph the few that it would take apart
are replaced here node by node; a graph with any other goes torch's way. Where it computes in one
type of floating point alone, no operand is cast to that of another, which would be one more run.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx
from torch.onnx._internal.exporter import _fx_passes  # nothing public leaves casts out

from trt_qat.qat.deploy import OPERATORS

_aten: Any = torch.ops.aten

_VIEWS = {
    _aten.chunk.default,
    _aten.contiguous.default,
    _aten.dropout.default,
    _aten.expand.default,
    _aten.flatten.using_ints,
    _aten.permute.default,
    _aten.reshape.default,
    _aten.select.int,
    _aten.slice.Tensor,
    _aten.split.Tensor,
    _aten.split_with_sizes.default,
    _aten.squeeze.dim,
    _aten.transpose.int,
    _aten.unbind.int,
    _aten.unsqueeze.default,
    _aten.view.default,
    operator.getitem,
}
"""Translated as they are; what they return may be their input's memory."""

_VALUES = {
    _aten.add.Tensor,
    _aten.addmm.default,
    _aten.avg_pool2d.default,
    _aten.bmm.default,
    _aten.cat.default,
    _aten.clamp.default,
    _aten.conv1d.default,
    _aten.conv2d.default,
    _aten.conv3d.default,
    _aten.div.Tensor,
    _aten.elu.default,
    _aten.exp.default,
    _aten.gelu.default,
    _aten.hardsigmoid.default,
    _aten.hardswish.default,
    _aten.hardtanh.default,
    _aten.layer_norm.default,
    _aten.leaky_relu.default,
    _aten.linear.default,
    _aten.matmul.default,
    _aten.max_pool2d.default,
    _aten.mean.dim,
    _aten.mul.Tensor,
    _aten.pad.default,
    _aten.relu.default,
    _aten.relu6.default,
    _aten.sigmoid.default,
    _aten.silu.default,
    _aten.softmax.int,
    _aten.stack.default,
    _aten.sub.Tensor,
    _aten.sum.dim_IntList,
    _aten.tanh.default,
    _aten.upsample_bilinear2d.vec,
    _aten.upsample_nearest2d.vec,
    _aten._native_batch_norm_legit_no_training.default,
    *OPERATORS,
}
"""Translated as they are; what they return is new memory."""

_SIZES = {
    _aten.sym_size.int,
    operator.add,
    operator.floordiv,
    operator.mul,
    operator.sub,
    _aten._assert_tensor_metadata.default,  # the exporter drops it
}

_IN_PLACE = {
    _aten.add_.Tensor: _aten.add.Tensor,
    _aten.clamp_.default: _aten.clamp.default,
    _aten.div_.Tensor: _aten.div.Tensor,
    _aten.elu_.default: _aten.elu.default,
    _aten.hardsigmoid_.default: _aten.hardsigmoid.default,
    _aten.hardswish_.default: _aten.hardswish.default,
    _aten.hardtanh_.default: _aten.hardtanh.default,
    _aten.leaky_relu_.default: _aten.leaky_relu.default,
    _aten.mul_.Tensor: _aten.mul.Tensor,
    _aten.relu_.default: _aten.relu.default,
    _aten.relu6_.default: _aten.relu6.default,
    _aten.sigmoid_.default: _aten.sigmoid.default,
    _aten.silu_.default: _aten.silu.default,
    _aten.sub_.Tensor: _aten.sub.Tensor,
    _aten.tanh_.default: _aten.tanh.default,
}

_ARITHMETIC = {_aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor, _aten.div.Tensor}

AS_THEY_ARE = frozenset(_VIEWS | _VALUES | _SIZES)
_POOLS_AND_NORMS = {_aten.batch_norm.default, _aten.adaptive_avg_pool2d.default}
_OWNERS = _VALUES | _POOLS_AND_NORMS | set(_IN_PLACE)
_READERS = _VALUES | _POOLS_AND_NORMS | _SIZES


@contextlib.contextmanager
def decomposed_where_needed() -> Iterator[None]:
    """Have exported programs decomposed only where that changes more than is replaced here."""
    program: Any = torch.export.ExportedProgram
    passes: Any = _fx_passes
    decompose, promote = program.run_decompositions, passes.insert_type_promotion_nodes
    of_one_type: set[fx.GraphModule] = set()

    def run_decompositions(self: Any, *args: Any, **options: Any) -> Any:
        if not functional(self.graph_module):
            return decompose(self, *args, **options)
        if computes_in_one_type(self.graph_module.graph):
            of_one_type.add(self.graph_module)
        return self

    def insert_type_promotion_nodes(module: fx.GraphModule) -> None:
        if module not in of_one_type:
            promote(module)

    program.run_decompositions = run_decompositions
    passes.insert_type_promotion_nodes = insert_type_promotion_nodes
    try:
        yield
    finally:
        program.run_decompositions = decompose
        passes.insert_type_promotion_nodes = promote


def functional(module: fx.GraphModule) -> bool:
    """Make ``module``'s graph one of operations that torch.onnx translates as they are.

    Returns:
        Whether it is such a graph now; if not, nothing of it was changed.
    """
    graph = module.graph
    plan: list[tuple[fx.Node, Callable[[fx.Node], None]]] = []
    for node in graph.nodes:
        if node.op == "get_attr":
            return False
        if node.op != "call_function" or node.target in AS_THEY_ARE:
            continue
        replace = _replacement(node)
        if replace is None:
            return False
        plan.append((node, replace))
    for node, replace in plan:
        replace(node)
    if plan:
        graph.lint()  # the exporter writes the code anew, when it has dropped assertions
    return True


def computes_in_one_type(graph: fx.Graph) -> bool:
    """Tell whether every value is of one type of floating point, but for a weight's codes.

    Sizes may shape a tensor; a number that is an operand is of another type.
    """
    kinds: set[torch.dtype] = set()
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and not _holds_codes(node):
            kinds.add(value.dtype)
        if node.target in _ARITHMETIC and any(
            not isinstance(operand, fx.Node)
            or not isinstance(operand.meta.get("val"), torch.Tensor)
            for operand in node.args[:2]
        ):
            return False
    return len(kinds) == 1 and kinds.pop().is_floating_point


def _holds_codes(node: fx.Node) -> bool:
    return node.op == "placeholder" and all(user.target in OPERATORS for user in node.users)


def _replacement(node: fx.Node) -> Callable[[fx.Node], None] | None:
    """Return what makes ``node`` an operation that is translated as it is, None if nothing does."""
    if node.target in _IN_PLACE and _owns_memory(node.args[0], node):
        return _out_of_place
    if node.target is _aten.batch_norm.default:
        weight, bias, mean, variance, training = node.args[1:6]
        known = all(isinstance(arg, fx.Node) for arg in (weight, bias, mean, variance))
        return _as_inference_norm if known and not training else None
    if node.target is _aten.adaptive_avg_pool2d.default:
        return _as_mean if list(_ints(node.args[1])) == [1, 1] else None
    if node.target is _aten.to.dtype:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        same = len(node.args) == 2 and source.meta["val"].dtype == node.args[1]
        return _drop if same and not node.kwargs else None
    return None


def _ints(value: Any) -> Iterator[Any]:
    return iter(value if isinstance(value, (list, tuple)) else (value, value))


def _owns_memory(changed: Any, node: fx.Node) -> bool:
    """Tell whether only readers after ``node`` see that it writes into ``changed``."""
    if not isinstance(changed, fx.Node) or changed.target not in _OWNERS:
        return False
    return all(user is node or user.target in _READERS for user in changed.users)


def _out_of_place(node: fx.Node) -> None:
    changed = node.args[0]
    assert isinstance(changed, fx.Node)
    node.target = _IN_PLACE[node.target]
    for user in list(changed.users):
        if user is not node and node < user:  # it reads what was written
            user.replace_input_with(changed, node)


def _as_inference_norm(node: fx.Node) -> None:
    x, weight, bias, mean, variance, _, momentum, eps = node.args[:8]
    assert isinstance(mean, fx.Node)
    assert isinstance(variance, fx.Node)
    value = node.meta["val"]
    graph = node.graph
    with graph.inserting_before(node):
        norm = graph.call_function(
            _aten._native_batch_norm_legit_no_training.default,
            (x, weight, bias, mean, variance, momentum, eps),
        )
        first = graph.call_function(operator.getitem, (norm, 0))
    norm.meta = dict(node.meta) | {"val": (value, mean.meta["val"], variance.meta["val"])}
    first.meta = dict(node.meta)
    node.replace_all_uses_with(first)
    graph.erase_node(node)


def _as_mean(node: fx.Node) -> None:
    node.target = _aten.mean.dim
    node.args = (node.args[0], [-1, -2], True)


def _drop(node: fx.Node) -> None:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    node.replace_all_uses_with(source)
    node.graph.erase_node(node)
