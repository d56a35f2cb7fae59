"""``--fix``: write a mended copy of a QDQ ONNX, and say what changed and by how much."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto

from trt_qat.errors import GraphError, InputError, first_line
from trt_qat.graph import load, mends
from trt_qat.graph.mends import Change
from trt_qat.graph.preflight import chosen_rules
from trt_qat.graph.qdq import Graph
from trt_qat.graph.shapes import InputShapes, infer
from trt_qat.graph.tensors import Array, type_name

__all__ = ["Change", "FixReport", "fix"]

_FLOATS: Mapping[int, str] = {
    TensorProto.FLOAT: "f4",
    TensorProto.FLOAT16: "f2",
    TensorProto.DOUBLE: "f8",
}
_INTEGERS: Mapping[int, str] = {
    TensorProto.INT64: "i8",
    TensorProto.INT32: "i4",
    TensorProto.BOOL: "?",
}
_ROUNDS = 100  # each round makes at least one change; no graph in the tests needs ten


@dataclass(frozen=True)
class FixReport:
    """What was mended.

    Attributes:
        model: Path that was read.
        out: Path that was written.
        changes: Every edit, in order.
        largest_difference: Largest absolute difference of an output on onnxruntime before and
            after, Q/DQ computed in float; None if it could not be run.
        largest_output: Largest absolute output before, to set the difference against.
        not_compared: Why it could not be run, empty if it was.
    """

    model: str
    out: str
    changes: tuple[Change, ...]
    largest_difference: float | None
    largest_output: float | None
    not_compared: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of ``trt-qat preflight --fix --json``'s ``fix``."""
        changes = [{"rule": c.rule, "node": c.node, "what": c.what} for c in self.changes]
        return {**vars(self), "changes": changes}


def fix(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    select: Collection[str] = (),
    ignore: Collection[str] = (),
    shapes: InputShapes | None = None,
    seed: int = 0,
) -> FixReport:
    """Mend what can be mended on the graph alone, and write the result to a new file.

    Args:
        path: The model; it is not touched.
        out: Where the mended model is written, weights inside it; it appears complete or not at
            all.
        select: Rule ids or prefixes whose mends to apply; none: all.
        ignore: Rule ids or prefixes to leave alone.
        shapes: Shape to feed an input for the comparison; default: its own, a batch of 1.
        seed: Of the random inputs of the comparison.

    Raises:
        GraphError: the model cannot be read, or exceeds 2 GiB with its weights.
        InputError: ``out`` is the model itself, or an unknown rule.
    """
    wanted = {rule.id for rule in chosen_rules(select, ignore)}
    if Path(out).exists() and Path(out).samefile(path):
        msg = f"{out}: the mended model would overwrite the one it is made from; name another file"
        raise InputError(msg)
    before = load.embed_weights(load.load_graph(path))
    after, changes = mended(before, wanted)
    _write(after, Path(out))
    difference, largest, reason = _compare(before, after, shapes, seed)
    return FixReport(str(path), str(out), tuple(changes), difference, largest, reason)


def mended(model: ModelProto, rules: Collection[str]) -> tuple[ModelProto, list[Change]]:
    """Return a mended copy of a model, and the changes.

    Raises:
        GraphError: the model is not well formed.
    """
    copy = ModelProto()
    copy.CopyFrom(load.without_functions(model))
    changes: list[Change] = []
    for _ in range(_ROUNDS):
        made: list[Change] = []
        for mend in mends.ALL:
            if _rule_of(mend) in rules:
                made += mend(Graph(copy))
        if not made:
            break
        changes += made
    _drop_unused(copy)
    return copy, changes


def _rule_of(mend: mends.Mend) -> str:
    return _RULES[mend]


_RULES: Mapping[mends.Mend, str] = {
    mends.fold_casts: "QDQ004",
    mends.fold_int32: "QDQ010",
    mends.remove_doubled: "QDQ108",
    mends.merge_equal_pairs: "QDQ106",
    mends.quantize_shortcuts: "QDQ101",
    mends.unsplit_residuals: "QDQ103",
    mends.share_concat_scales: "QDQ102",
    mends.remove_dangling: "QDQ107",
}


def _drop_unused(model: ModelProto) -> None:
    """Drop initialisers that no node reads any more."""
    used = {name for node in model.graph.node for name in load.reads(node)}
    used |= {value.name for value in model.graph.output}
    for i in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[i].name not in used:
            del model.graph.initializer[i]


def _write(model: ModelProto, out: Path) -> None:
    data = model.SerializeToString()
    try:
        handle, name = tempfile.mkstemp(dir=out.parent, prefix=out.name, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).replace(out)
    except OSError as error:
        msg = f"{out}: cannot be written: {error.strerror or error}"
        raise InputError(msg) from error


def _compare(
    before: ModelProto, after: ModelProto, shapes: InputShapes | None, seed: int
) -> tuple[float | None, float | None, str]:
    """Return the largest output difference, the largest output, or why neither is known."""
    try:
        feeds = _feeds(Graph(before), shapes, seed)
        one, two = _run(before, feeds), _run(after, feeds)
    except GraphError as error:
        return None, None, str(error)
    floats = [(a, b) for a, b in zip(one, two, strict=True) if a.dtype.kind == "f" and a.size]
    gaps = [float(np.max(np.abs(a.astype(np.float64) - b))) for a, b in floats]
    sizes = [float(np.max(np.abs(a))) for a, _ in floats]
    return max(gaps, default=0.0), max(sizes, default=0.0), ""


def _feeds(graph: Graph, shapes: InputShapes | None, seed: int) -> dict[str, Array]:
    known = infer(graph, shapes)
    draw = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for name in graph.inputs:
        dims, kind = known.known(name), known.types.get(name, 0)
        if dims is None:
            msg = f"input {name!r} has a dynamic dimension; give its shape"
            raise GraphError(msg)
        if kind in _FLOATS:
            feeds[name] = draw.standard_normal(dims).astype(_FLOATS[kind])
        elif kind in _INTEGERS:
            feeds[name] = np.ones(dims, _INTEGERS[kind])  # an index that every table has
        else:
            msg = f"input {name!r} of type {type_name(kind)} is not fed at random"
            raise GraphError(msg)
    return feeds


def _run(model: ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # Q and DQ in float: integer kernels may saturate on CPUs without VNNI and hide what changed.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return [np.asarray(value) for value in session.run(None, dict(feeds))]
    except Exception as error:  # onnxruntime's classes share no base but Exception
        msg = f"onnxruntime cannot run it: {first_line(error)}"
        raise GraphError(msg) from error
