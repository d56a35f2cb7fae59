"""Nodes that a weakly typed build cannot keep in FP32: those that are part of an INT8 layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from trt_qat.capabilities import dotted
from trt_qat.engine import compat
from trt_qat.engine.build.configure import matching
from trt_qat.engine.build.network_io import Network
from trt_qat.engine.build.options import Options
from trt_qat.engine.evidence.explain import cause
from trt_qat.errors import InputError
from trt_qat.graph import load
from trt_qat.graph.qdq import Graph
from trt_qat.graph.shapes import infer
from trt_qat.lint.fate import read_layers
from trt_qat.recipe.specs import BuildSpec

_MARKED = re.compile(r"candidateRequirements\.empty\(\)|incorrectly marked as an int8 node")
_MEND = "leave it out of build.keep_fp32, or take the layer out of INT8 (quantize.exclude)"


def refuse_fused(
    onnx: Path, spec: BuildSpec, options: Options, described: Network, version: compat.Version
) -> None:
    """Refuse to keep in FP32 what TensorRT 8 computes inside an INT8 layer.

    Its Q/DQ optimizer marks the fused layer INT8, the constraint takes every INT8 kernel away, and
    the build ends in an assertion (``candidateRequirements.empty()``), seen with 8.6.0.

    Raises:
        InputError: a node that is to be kept is fused with an INT8 layer.
    """
    weak = not options.strong and spec.remainder == "fp16" and version < compat.STRONG_SINCE
    names = matching(spec.keep_fp32, described) if weak else ()
    if not names:
        return
    graph = Graph(load.load_graph(onnx))
    for layer in read_layers(graph, infer(graph), None):
        inside = [node.name for node in (layer.node, *layer.epilogue.fused) if node.name in names]
        if layer.fate.precision == "int8" and inside:
            what = ", ".join(map(repr, inside))
            message = (
                f"build.keep_fp32: TensorRT {dotted(version)} computes {what} inside the INT8 "
                f"layer of {layer.node.name!r} and cannot keep a part of it in FP32; {_MEND}, "
                "or build strongly typed with TensorRT 10"
            )
            raise InputError(message)


def cause_of(lines: Sequence[str], spec: BuildSpec, options: Options) -> str:
    """Return what the gravest error of a build's log means and its mend; empty: not known.

    Args:
        lines: of the log.
        spec: of the build.
        options: of it.
    """
    held = spec.keep_fp32 and not options.strong and spec.remainder == "fp16"
    if held and any(_MARKED.search(line) for line in lines):
        return (
            f"that is, a node of build.keep_fp32 = {list(spec.keep_fp32)} lies between Q/DQ: it is "
            f"computed inside an INT8 layer, and the constraint leaves no kernel. Mend: {_MEND}"
        )
    return cause(lines)
