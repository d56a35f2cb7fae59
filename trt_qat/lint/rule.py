"""What a preflight rule is: one function, a stable id, a severity, a page in docs/rules.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from trt_qat.errors import visible
from trt_qat.graph.node import STANDARD_DOMAINS
from trt_qat.graph.qdq import Graph, Node
from trt_qat.graph.shapes import Shapes
from trt_qat.lint.fate import Layer
from trt_qat.targets import Target, Version

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, where, and what to do about it.

    Attributes:
        rule: Stable id, ``QDQ001``.
        severity: ``error``: TensorRT refuses the graph or computes something else; ``warning``: it
            will be slower or less exact than it could be; ``info``: worth knowing.
        node: Name of the node; empty for the graph as a whole.
        message: One sentence on what is wrong.
        mend: One sentence on how to mend it.
        confirmed: Whether NVIDIA's own code agrees; None: it was not asked, or does not say.
        confirmed_by: Who said so, and its words.
    """

    rule: str
    severity: Severity
    node: str
    message: str
    mend: str
    confirmed: bool | None = None
    confirmed_by: str | None = None

    def __str__(self) -> str:
        """Return it as a line; a node's name may hold anything."""
        where = f" {self.node}:" if self.node else ""
        return visible(f"{self.rule} {self.severity}{where} {self.message} {self.mend}")

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the JSON document's ``findings``."""
        return {
            "rule": self.rule,
            "severity": self.severity,
            "node": self.node,
            "message": self.message,
            "mend": self.mend,
            "confirmed": self.confirmed,
            "confirmed_by": self.confirmed_by,
        }


@dataclass(frozen=True)
class Hit:
    """What a rule's function yields: a `Finding` less what the rule knows itself.

    Attributes:
        node: Name of the node.
        message: One sentence on what is wrong.
        mend: One sentence on how to mend it.
        severity: Where a hit is less or more severe than its rule.
    """

    node: str
    message: str
    mend: str
    severity: Severity | None = None


@dataclass(frozen=True)
class Context:
    """All that a rule may look at.

    Attributes:
        graph: The main graph or a body inside it.
        shapes: Of the main graph; empty for a body.
        layers: The weighted layers of the graph.
        target: The device, None if none was named.
        tensorrt: ``(major, minor)``, None if none was named.
    """

    graph: Graph
    shapes: Shapes
    layers: tuple[Layer, ...]
    target: Target | None
    tensorrt: Version | None

    @property
    def is_quantized(self) -> bool:
        """The graph has a Q or DQ."""
        return any(n.is_quantize() or n.is_dequantize() for n in self.graph.nodes)

    @property
    def is_main(self) -> bool:
        """The graph is the model's own and no body of an If, Loop or Scan."""
        return self.graph.parent is None

    def imported(self) -> Iterator[Node]:
        """Yield the operators of ONNX that become layers: what is fixed is folded before."""
        for node in self.graph.nodes:
            if node.domain in STANDARD_DOMAINS and not self.graph.is_fixed(node.output):
                yield node

    @cached_property
    def fused(self) -> frozenset[Node]:
        """The nodes that are part of an INT8 or FP8 layer."""
        done = [layer for layer in self.layers if layer.fate.precision in ("int8", "fp8")]
        return frozenset(node for x in done for node in (x.node, *x.epilogue.fused))


Check = Callable[[Context], Iterator[Hit]]


@dataclass(frozen=True)
class Rule:
    """A rule of the registry.

    Attributes:
        id: Stable id.
        title: A few words.
        severity: What its findings have unless a hit says otherwise.
        check: The function.
    """

    id: str
    title: str
    severity: Severity
    check: Check


RULES: dict[str, Rule] = {}


def rule(id_: str, title: str, severity: Severity) -> Callable[[Check], Check]:
    """Enter a function into the registry under an id that no other rule has."""

    def enter(check: Check) -> Check:
        if id_ in RULES:
            msg = f"two rules have the id {id_}"
            raise ValueError(msg)
        RULES[id_] = Rule(id_, title, severity, check)
        return check

    return enter
