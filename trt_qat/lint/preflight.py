"""What TensorRT will do with a QDQ ONNX, told from the file alone, without a GPU."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto

from trt_qat import targets
from trt_qat.errors import InputError, nearest
from trt_qat.graph.load import load_graph
from trt_qat.graph.qdq import Graph
from trt_qat.graph.shapes import InputShapes, Shapes, infer
from trt_qat.lint.confirmation import Confirmation
from trt_qat.lint.fate import Layer, LayerFate, quantizable, read_layers
from trt_qat.lint.roofline import Roofline, roofline
from trt_qat.lint.rule import SEVERITIES, Context, Finding, Rule, Severity
from trt_qat.lint.rules import RULES
from trt_qat.targets import Version
from trt_qat.wording import counted, other_formats, sparse_words

__all__ = ["Finding", "LayerFate", "PreflightReport", "preflight"]


@dataclass(frozen=True)
class PreflightReport:
    """What preflight found.

    Attributes:
        model: Path as given, empty for a model in memory.
        target: Name of the device, None if none was named.
        tensorrt: Version as given, None if none was named.
        layers: Fate of every Conv, ConvTranspose, Gemm and MatMul with a constant weight.
        findings: Errors first, then warnings, then infos.
        quantizable: Layers that INT8 could pay for.
        roofline: Floor of every layer on the target; None without a target.
        confirmation: What NVIDIA's own code said of the model; None: it was not asked.
    """

    model: str
    target: str | None
    tensorrt: str | None
    layers: tuple[LayerFate, ...]
    findings: tuple[Finding, ...]
    quantizable: int
    roofline: Roofline | None = None
    confirmation: Confirmation | None = None

    def count(self, severity: Severity) -> int:
        """Return how many findings have a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def passed(self, *, strict: bool = False) -> bool:
        """Tell whether there is no error, and with ``strict`` no warning either."""
        return not self.count("error") and not (strict and self.count("warning"))

    @property
    def summary(self) -> dict[str, int]:
        """The counts of the JSON document's ``summary``."""
        both = sum(bool(x.input_int8 and x.output_int8) for x in self.layers)
        others = {
            "fp8": sum(layer.precision == "fp8" for layer in self.layers),
            "weight_only": sum(bool(layer.weight_only) for layer in self.layers),
        }
        return {
            "layers": len(self.layers),
            "quantizable": self.quantizable,
            "int8": sum(layer.precision == "int8" for layer in self.layers),
            "int8_in_int8_out": both,
            **{key: count for key, count in others.items() if count},
            "sparse_found": sum(layer.sparse == "found" for layer in self.layers),
            "sparse_likely": sum(layer.sparse_likely for layer in self.layers),
            "errors": self.count("error"),
            "warnings": self.count("warning"),
        }

    @property
    def headline(self) -> str:
        """What matters most as a line: INT8, 2:4 and its kernels, what was found."""
        found = self.summary
        int8 = (
            f"INT8 in {found['int8']} of {counted(found['layers'], 'layer')} "
            f"({found['int8_in_int8_out']} INT8 in and out)"
        )
        if more := other_formats(found):
            int8 = more if not found["int8"] else f"{int8}, {more}"
        sparse = sparse_words(found["sparse_found"], found["sparse_likely"])
        told = f"{counted(found['errors'], 'error')}, {counted(found['warnings'], 'warning')}"
        return f"{int8}; {sparse}; {told}"

    @property
    def counts(self) -> str:
        """The summary as a line."""
        nouns = {"layers": "layer", "errors": "error", "warnings": "warning"}
        return ", ".join(
            counted(value, nouns[key]) if key in nouns else f"{value} {key.replace('_', ' ')}"
            for key, value in self.summary.items()
        )

    def __str__(self) -> str:
        """Return the findings and the counts; the command prints the layers too."""
        return "\n".join([*map(str, self.findings), self.counts])

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of ``trt-qat preflight --json``."""
        document: dict[str, Any] = {
            "model": self.model,
            "target": self.target,
            "tensorrt": self.tensorrt,
            "summary": self.summary,
            "layers": [layer.to_dict() for layer in self.layers],
            "findings": [finding.to_dict() for finding in self.findings],
        }
        if self.confirmation is not None:
            document["confirmation"] = self.confirmation.to_dict()
        if self.roofline is not None:
            document["roofline"] = self.roofline.to_dict()
        return document


def preflight(
    path_or_model: str | os.PathLike[str] | ModelProto,
    target: str | targets.Target | None = None,
    *,
    tensorrt: str | None = None,
    select: Collection[str] = (),
    ignore: Collection[str] = (),
    shapes: InputShapes | None = None,
) -> PreflightReport:
    """Judge a QDQ ONNX as TensorRT will, whoever made it.

    Args:
        path_or_model: An ``.onnx`` file, or a model in memory.
        target: A device of `trt_qat.targets`; without one the rules about devices and the roofline
            are left out.
        tensorrt: A version such as ``10.16``; without one the rules about versions are left out.
        select: Rule ids or prefixes of them (``QDQ1``) to apply; none: all.
        ignore: Rule ids or prefixes to leave out.
        shapes: Shape to assume for an input, by name; a batch that is not fixed counts as 1.

    Returns:
        Findings, the fate of every weighted layer and, with a target, the roofline.

    Raises:
        GraphError: the file cannot be read, or is not what it claims to be.
        InputError: an unknown target, version, rule or input.
    """
    device = targets.target(target) if isinstance(target, str) else target
    version = None if tensorrt is None else targets.parse_version(tensorrt)
    rules = chosen_rules(select, ignore)
    in_memory = isinstance(path_or_model, ModelProto)
    model = path_or_model if isinstance(path_or_model, ModelProto) else load_graph(path_or_model)
    contexts = list(_contexts(Graph(model), device, version, shapes))
    name = "" if in_memory else os.fspath(path_or_model)
    return _report(name, contexts, rules, tensorrt)


def _report(
    model: str, contexts: Sequence[Context], rules: Sequence[Rule], tensorrt: str | None
) -> PreflightReport:
    device = contexts[0].target
    layers = [layer for context in contexts for layer in context.layers]
    findings = [found for context in contexts for rule in rules for found in _apply(rule, context)]
    findings.sort(key=lambda found: SEVERITIES.index(found.severity))  # stable: rule order within
    return PreflightReport(
        model=model,
        target=None if device is None else device.name,
        tensorrt=tensorrt,
        layers=tuple(layer.fate for layer in layers),
        findings=tuple(findings),
        quantizable=sum(map(quantizable, layers)),
        roofline=_roofline(device, layers),
    )


def chosen_rules(select: Collection[str], ignore: Collection[str]) -> list[Rule]:
    """Return the rules that ``select`` names and ``ignore`` does not, in the order of their ids.

    Raises:
        InputError: an entry matches no rule.
    """
    for entry in (*select, *ignore):
        if not any(id_.startswith(entry.upper()) for id_ in RULES) or not entry:
            close = ", ".join(nearest(entry.upper(), RULES, count=3))
            msg = f"no preflight rule is called {entry!r}; nearest: {close}"
            raise InputError(msg)
    wanted = tuple(entry.upper() for entry in select) or ("",)
    left = tuple(entry.upper() for entry in ignore)
    ids = (id_ for id_ in sorted(RULES) if id_.startswith(wanted))
    return [RULES[id_] for id_ in ids if not (left and id_.startswith(left))]


def _contexts(
    top: Graph,
    target: targets.Target | None,
    version: Version | None,
    inputs: InputShapes | None,
) -> Iterator[Context]:
    for graph in top.walk():
        shapes = infer(graph, inputs) if graph is top else Shapes()
        layers = read_layers(graph, shapes, target)
        yield Context(graph, shapes, tuple(layers), target, version)


def _apply(rule: Rule, context: Context) -> Iterator[Finding]:
    for hit in rule.check(context):
        severity = hit.severity or rule.severity
        yield Finding(rule.id, severity, hit.node, hit.message, hit.mend)


def _roofline(target: targets.Target | None, layers: list[Layer]) -> Roofline | None:
    if target is None or not target.rated:
        return None
    return roofline(target, [(layer.node.name, layer.cost) for layer in layers])
