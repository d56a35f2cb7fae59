"""The exporter's graph rewriting in time linear in nodes, and asked only where it can answer.

Of onnxscript's default rules each is asked at each node, which is a tenth of an export of 200
layers; the only one that ends in two nodes, slices that are a Split, looks through the whole graph
for each node, before it asks whether that node is a Slice: nearly all of an export of 2,000. And
shapes are inferred node by node, twice, though torch's trace has told most of them.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir
from onnx.defs import OpSchema
from onnxscript.optimizer import _constant_folding  # nothing public infers shapes less often
from onnxscript.rewriter import RewriteRule

_Operator = tuple[str, str]


@contextlib.contextmanager
def signatures_once() -> Iterator[None]:
    """Have an operator's signature read off its schema once, and not with every node."""
    try:
        signature: Any = importlib.import_module("onnx_ir.schemas").OpSignature
    except ImportError:  # an older onnx_ir, beside which torch has signatures of its own
        yield
        return
    kept, read = vars(signature)["from_op_schema"], signature.from_op_schema
    known: dict[tuple[str, str, int], Any] = {}

    def from_op_schema(schema: OpSchema) -> Any:
        key = (schema.domain, schema.name, schema.since_version)
        if key not in known:
            known[key] = read(schema)
        return known[key]

    signature.from_op_schema = staticmethod(from_op_schema)
    try:
        yield
    finally:
        signature.from_op_schema = kept


@contextlib.contextmanager
def asked_where_it_matters() -> Iterator[None]:
    """Have rules asked at nodes of the operator that their pattern ends in, and new shapes alone.

    What comes out is the same.
    """
    rule: Any = RewriteRule
    folding: Any = _constant_folding.FoldConstantsPass
    try_rewrite, infer = rule.try_rewrite, folding._do_inference
    ends: dict[Any, _Operator | None] = {}

    def at_its_operator(self: Any, model: Any, graph: Any, node: ir.Node, **options: Any) -> Any:
        if self not in ends:
            ends[self] = _ends_in(self)
        if ends[self] not in (None, (node.domain, node.op_type)):
            return None
        return try_rewrite(self, model, graph, node, **options)

    def unless_known(self: Any, node: ir.Node) -> None:
        if not all(map(_is_known, node.outputs)):
            infer(self, node)

    rule.try_rewrite, folding._do_inference = at_its_operator, unless_known
    try:
        yield
    finally:
        rule.try_rewrite, folding._do_inference = try_rewrite, infer


def _ends_in(rule: Any) -> _Operator | None:
    """Return domain and type of the node that a match begins at, None where it may be any."""
    identifier = rule._target_pattern.output_nodes[0].op_identifier()
    return None if identifier is None else (identifier[0], identifier[1])


def _is_known(value: ir.Value) -> bool:
    if value.type is None or value.shape is None:
        return False
    return all(isinstance(dim, int) or dim.value is not None for dim in value.shape)
