"""``--fix``: write a mended copy of a QDQ ONNX, and say what changed and by how much."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from onnx import ModelProto, NodeProto

from trt_qat.errors import CheckFailed, GraphError, InputError
from trt_qat.graph import functions, large, load, tensors
from trt_qat.graph.qdq import Graph
from trt_qat.graph.shapes import InputShapes
from trt_qat.lint import releases
from trt_qat.lint.preflight import chosen_rules
from trt_qat.mend import constants, judge, mends, pads, refused, retype, shifted, symmetric, trial
from trt_qat.mend.mends import Change
from trt_qat.mend.precision import Half
from trt_qat.mend.trial import Feeds
from trt_qat.targets import Version, parse_version

__all__ = ["Change", "FixReport", "Half", "fix"]

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
        rounding_difference: The same difference when nothing but the inputs is rounded to FP16;
            only with ``half``. Where INT8 rounding amplifies the least change, so it does here.
        not_compared: Why it could not be run, empty if it was.
    """

    model: str
    out: str
    changes: tuple[Change, ...]
    largest_difference: float | None
    largest_output: float | None
    rounding_difference: float | None
    not_compared: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of ``trt-qat preflight --fix --json``'s ``fix``."""
        changes = [{"rule": c.rule, "node": c.node, "what": c.what} for c in self.changes]
        return {**vars(self), "changes": changes}


def fix(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    tensorrt: str | None = None,
    select: Collection[str] = (),
    ignore: Collection[str] = (),
    shapes: InputShapes | None = None,
    half: Half | None = None,
    feeds: Sequence[Feeds] = (),
    tolerance: float | None = None,
    seed: int = 0,
) -> FixReport:
    """Mend what can be mended on the graph alone, and write the result to a new file.

    Nothing is written that computes something else: outputs on onnxruntime are compared before.

    Args:
        path: The model; it is not touched.
        out: Where the mended model is written, weights inside it, or beside it where they are
            more than one file holds; it appears complete or not at all.
        tensorrt: The version that it is meant for: what only old releases need is done for them.
        select: Rule ids or prefixes whose mends to apply; none: all.
        ignore: Rule ids or prefixes to leave alone.
        shapes: Shape to feed an input for the comparison; default: its own, a batch of 1.
        half: Cast the float remainder to FP16 as well (QDQ201); None: leave its type.
        feeds: Batches, arrays by input name, to compare on and to measure FP16 ranges on; none: one
            random batch.
        tolerance: Part of the largest output that an output may differ by; None: 0.1 where a mend
            rounds otherwise or types change, 1e-4 where none does.
        seed: Of the random inputs.

    Raises:
        GraphError: the model cannot be read, or has outputs that are not finite in FP16.
        CheckFailed: an output differs by more, or the mended copy does not run; nothing is written.
        InputError: ``out`` is the model itself or a file of its weights, an unknown rule or
            version, or a pattern of ``half`` that matches nothing.
    """
    wanted = {rule.id for rule in chosen_rules(select, ignore)}
    version = None if tensorrt is None else parse_version(tensorrt)
    loaded = load.load_graph(path)
    _refuse_own_files(Path(out), Path(path), loaded)
    before = load.embed_weights(loaded)
    after, changes = mended(before, wanted, version)
    fed, reason = _feeds(before, feeds, shapes, seed)
    if half is not None and "QDQ201" in wanted:
        after, cast = retype.to_half(after, half, fed, given=bool(feeds))
        _drop_unused(after)
        changes += cast
    gap = judge.Gap()
    if fed:
        gap = judge.compared(before, after, fed, half=half is not None)
        limit = judge.allowed(changes, tolerance, half=half is not None)
        if changes and gap.beyond(limit):
            _refuse(before, changes, fed, gap, limit, version)
    _write(after, Path(out))
    rounding = gap.rounding if half is not None else None
    seen = (gap.largest, gap.output, rounding, reason)
    return FixReport(str(path), str(out), tuple(changes), *seen)


def mended(
    model: ModelProto, rules: Collection[str], version: Version | None = None
) -> tuple[ModelProto, list[Change]]:
    """Return a mended copy of a model, and the changes.

    Raises:
        GraphError: the model is not well formed.
    """
    copy = ModelProto()
    copy.CopyFrom(functions.without_functions(model))
    changes: list[Change] = []
    chosen = list(mends.ALL)
    if version is not None and version < releases.ZERO_POINT_OPTIONAL:
        chosen.append(constants.add_zero_points)
    if version is not None and version < releases.KERNEL_SHAPE_INFERRED:
        chosen.append(refused.state_kernels)
    graph: Graph | None = None  # what most mends leave as it is, and is costly to index
    for _ in range(_ROUNDS):
        made: list[Change] = []
        for mend in chosen:
            if _wanted(mend, rules):
                graph = graph or Graph(copy)
                if done := mend(graph):
                    made, graph = [*made, *done], None
        if not made:
            break
        changes += made
    _drop_unused(copy)
    if changes:
        _sort_nodes(copy)
    return copy, changes


def _sort_nodes(model: ModelProto) -> None:
    """Put producers first, as ONNX asks; moving a pair may have turned them round."""
    order = load.topological_order(model.graph)
    if order != sorted(order):
        copies = [NodeProto.FromString(model.graph.node[i].SerializeToString()) for i in order]
        del model.graph.node[:]
        model.graph.node.extend(copies)


def _wanted(mend: mends.Mend, rules: Collection[str]) -> bool:
    return any(rule in rules for rule in _RULES[mend])


_RULES: Mapping[mends.Mend, tuple[str, ...]] = {
    constants.fold_parameters: ("QDQ004",),
    constants.fold_casts: ("QDQ004",),
    constants.fold_int32: ("QDQ010",),
    constants.fold_codes: ("QDQ017",),
    constants.state_axes: ("QDQ311",),
    constants.add_zero_points: ("QDQ312",),
    constants.unlist_scales: ("QDQ125",),
    symmetric.weights: ("QDQ001", "QDQ002"),
    shifted.activations: ("QDQ001", "QDQ002"),
    symmetric.activations: ("QDQ001", "QDQ002"),
    pads.move_pairs: ("QDQ119",),
    refused.fold_scalars: ("QDQ019",),
    refused.rename_dimensions: ("QDQ020",),
    refused.rename_pairs: ("QDQ021",),
    refused.state_kernels: ("QDQ317",),
    mends.remove_doubled: ("QDQ108",),
    mends.merge_equal_pairs: ("QDQ106",),
    mends.quantize_shortcuts: ("QDQ101",),
    mends.unsplit_residuals: ("QDQ103",),
    mends.share_concat_scales: ("QDQ102",),
    mends.remove_dangling: ("QDQ107",),
}

MENDED = frozenset({"QDQ201"}.union(*_RULES.values()))
"""Rules whose findings `fix` can mend, QDQ201 with ``half``."""


def _drop_unused(model: ModelProto) -> None:
    """Drop initialisers that no node reads any more, from the inputs too where they are named."""
    used = {name for node in model.graph.node for name in load.reads(node)}
    used |= {value.name for value in model.graph.output}
    dropped = {t.name for t in model.graph.initializer if t.name not in used}
    for entries in (model.graph.initializer, model.graph.input):
        for i in reversed(range(len(entries))):
            if entries[i].name in dropped:
                del entries[i]


def _refuse(
    before: ModelProto,
    changes: Sequence[Change],
    feeds: Sequence[Feeds],
    gap: judge.Gap,
    limit: float,
    version: Version | None,
) -> NoReturn:
    def alone(rule: str) -> ModelProto:
        return mended(before, {rule}, version)[0]

    rule = judge.culprit(before, changes, feeds, gap, alone)
    raise CheckFailed(judge.sentence(gap, limit, changes, rule))


def _refuse_own_files(out: Path, model: Path, loaded: ModelProto) -> None:
    """Refuse to write over the model or over its external weights.

    Raises:
        InputError: it would.
    """
    own = {model}
    for tensor in tensors.tensors_of(loaded.graph):
        if tensors.is_external(tensor):
            own.add(model.parent / (tensors.external_entry(tensor, "location") or ""))
    if out.exists() and any(out.samefile(file) for file in own):
        msg = f"{out}: the mended model would overwrite the one it is made from; name another file"
        raise InputError(msg)


def _write(model: ModelProto, out: Path) -> None:
    try:
        large.write(model, out)
    except OSError as error:
        msg = f"{out}: cannot be written: {error.strerror or error}"
        raise InputError(msg) from error


def _feeds(
    model: ModelProto, given: Sequence[Feeds], shapes: InputShapes | None, seed: int
) -> tuple[Sequence[Feeds], str]:
    """Return what to run the model on; nothing, and why, where it does not run."""
    try:
        feeds = given or [trial.random_feeds(Graph(model), shapes, seed)]
        trial.run(model, feeds[:1])
    except GraphError as error:
        if given:
            raise
        return (), str(error)
    return feeds, ""
