"""Reading off a region's graph, quantizers inserted, who reads what quantized."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx
from torch.utils import _pytree as pytree

from trt_qat.qat.placement.callsite import QUANTIZERS
from trt_qat.qat.placement.own_path import OwnPath, Reads
from trt_qat.qat.placement.trace import Region


def own_path_of(region: Region) -> OwnPath:
    """Return what a run of the owner's own code has to know of the graph of ``region``."""
    plan = OwnPath()
    for node in region.graph.nodes:
        site, ordinal, scope = (node.meta.get(key) for key in ("site", "ordinal", "scope"))
        if node.op == "output":
            tensors = list(_tensors(node))
            plan.returned, plan.returns = _reads(node), len(tensors)
        elif scope is not None:
            plan.leaves.add(scope.path)
            if reads := _reads(node):
                plan.modules[scope] = reads
        elif site is not None:
            plan.lines.add((site.scope, site.line))
            plan.scopes.add(site.scope)
            if reads := _reads(node):
                plan.operations[site] = plan.by_order[ordinal] = reads
    return plan


def _reads(node: fx.Node) -> Reads:
    return {
        position: str(given.target)
        for position, given in enumerate(_tensors(node))
        if given is not None and _is_quantizer(given)
    }


def _tensors(node: fx.Node) -> Iterator[fx.Node | None]:
    """Yield the maker of every tensor that a node is given; None within a tuple of tensors."""
    for leaf in pytree.tree_leaves((node.args, node.kwargs)):
        if isinstance(leaf, fx.Node):
            count = 1 if _is_quantizer(leaf) else leaf.meta.get("tensors", 0)
            yield from ([leaf] if count == 1 else [None] * count)


def _is_quantizer(node: fx.Node) -> bool:
    return node.op == "call_module" and str(node.target).startswith(f"{QUANTIZERS}.")
