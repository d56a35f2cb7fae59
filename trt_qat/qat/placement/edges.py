"""Reading off a region's graph, quantizers inserted, who reads what quantized."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeGuard

from torch import fx
from torch.utils import _pytree as pytree

from trt_qat.qat.placement.callsite import QUANTIZERS
from trt_qat.qat.placement.kinds import takes_member
from trt_qat.qat.placement.own_path import Cut, Operation, OwnPath, Reads
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
            plan.modules[scope] = _reads(node)
        elif site is not None:
            plan.lines.add((site.scope, site.line))
            plan.scopes.add(site.scope)
            if not (reads := _reads(node)):
                continue
            operation = plan.operations.setdefault(site, Operation())
            plan.by_order[ordinal] = operation
            if _is_second_cut(node):
                operation.cuts.append(Cut(reads, _quantizers_behind(node)))
            else:
                operation.reads = reads
    return plan


def _reads(node: fx.Node) -> Reads:
    found: Reads = {}
    for position, given in enumerate(_tensors(node)):
        if given is None:
            continue
        if _is_quantizer(given):
            found[position] = str(given.target)
        elif takes_member(given) and _is_second_cut(cut := given.args[0]):
            found[position] = _reads(cut)[0]
    return found


def _is_second_cut(node: Any) -> TypeGuard[fx.Node]:
    """Tell whether a node cuts the quantized tensor where another cuts the float one."""
    return isinstance(node, fx.Node) and node.meta.get("cut_of") in node.graph.nodes


def _quantizers_behind(cut: fx.Node) -> frozenset[str]:
    readers = (reader for member in cut.users for reader in member.users)
    return frozenset(str(reader.target) for reader in readers if _is_quantizer(reader))


def _tensors(node: fx.Node) -> Iterator[fx.Node | None]:
    """Yield the maker of every tensor that a node is given; None within a tuple of tensors."""
    for leaf in pytree.tree_leaves((node.args, node.kwargs)):
        if isinstance(leaf, fx.Node):
            count = 1 if _is_quantizer(leaf) else leaf.meta.get("tensors", 0)
            yield from ([leaf] if count == 1 else [None] * count)


def _is_quantizer(node: fx.Node) -> bool:
    return node.op == "call_module" and str(node.target).startswith(f"{QUANTIZERS}.")
