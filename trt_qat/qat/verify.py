"""Holding the file that export has written against the model, before it takes its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from modelopt.torch.quantization.nn import TensorQuantizer
from onnx import ValueInfoProto
from torch import Tensor, nn
from torch.utils import _pytree as pytree  # as in `trt_qat.qat.placement.calls`

from trt_qat.errors import ExportMismatch, InputError, ModelError, first_line
from trt_qat.graph.islands import Cut, Point
from trt_qat.graph.load import load_graph
from trt_qat.graph.qdq import Graph
from trt_qat.qat.gap import TOLERANCE
from trt_qat.qat.matched import Disagreement, Match, Matched
from trt_qat.qat.placement.calls import call_model, mode, tensors_of
from trt_qat.qat.placement.rewrite import Echo

HINT = "nothing is written; export.verify = false, ExportSpec(verify=False), writes it unchecked"

LARGE_ELEMENTS = 4_000_000
"""Of the compared tensors of a batch. Beyond it the second batch is copies of the first: the
islands must give as many copies of what they gave, and torch need not run once more."""

_NAMED = 6
"""Nodes in a message."""


@dataclass(frozen=True)
class Verified:
    """What was held against the model.

    Attributes:
        batches: sizes of the batches.
        points: quantization points of the file that were compared on each.
        outputs: outputs of the network, likewise.
        tolerance: of the largest magnitude of a tensor of float32.
        worst: largest error found, in the same unit.
        worst_at: the tensor that it was found at.
        unmatched: points that no quantizer of the model is known for: they are part of what lies
            between two others.
    """

    batches: tuple[int, ...]
    points: int
    outputs: int
    tolerance: float
    worst: float
    worst_at: str
    unmatched: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what a sidecar says."""
        lists = {"batches": list(self.batches), "unmatched": list(self.unmatched)}
        return {"checked": True, **asdict(self), **lists}


def verify(model: nn.Module, path: Path, inputs: Any, *, name: str, dynamic: bool) -> Verified:
    """Compare a file with the model that it was exported from, at every quantization point.

    Args:
        model: fake-quantized; the part of it that was exported.
        path: of the file.
        inputs: what it was traced with: a tensor, a tuple, or a dict by argument name.
        name: what messages call the file.
        dynamic: the batch is dynamic: two sizes are compared, and not that of the trace.

    Raises:
        ExportMismatch: they differ; the message names the first tensor and its nodes.
        ModelError: the model computes NaN, or takes no batch but one.
    """
    check = _Check(model, Graph(load_graph(path)), name)
    check.must_keep_promises(dynamic=dynamic)
    with mode(model, training=False), _exact():
        if not dynamic:
            return check.verified([(_rows(inputs), check.batch(inputs))])
        return check.verified(_two_batches(check, inputs))


def _two_batches(check: _Check, inputs: Any) -> list[tuple[int, Matched | None]]:
    """Compare on two batches of other sizes than that of the trace, where the model takes them.

    A larger one shows what was cut to the traced size, a smaller one what was looped over it, and
    one sample what the model does otherwise for one. Some models take multiples only.
    """
    traced = _rows(inputs)
    copies = traced + 1
    found: list[tuple[int, Matched | None]] = []
    for size in dict.fromkeys((1, copies, 2 * traced, traced)):
        first = not found
        matched = check.batch(resized(inputs, size), copies if first else 1)
        if matched is None:
            continue
        found.append((size, matched))
        if first and matched.copies and matched.elements * copies > LARGE_ELEMENTS:
            found.append((size * copies, matched))
        if len(found) == 2:
            return found
    message = (
        f"export: a dynamic batch was asked for, and {type(check.model).__name__} takes no two "
        f"sizes of it ({check.refused}); set export.dynamic_batch = false"
    )
    raise ModelError(message)


def resized(inputs: Any, size: int) -> Any:
    """Return inputs with another number of samples along the first dimension of every tensor.

    Where there are too few, they are repeated; each repetition is rolled along the last dimension,
    so that samples differ, and ids and masks of one sample stay together.
    """

    def one(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.dim() or not len(value):
            return value
        parts = []
        for repetition, start in enumerate(range(0, size, len(value))):
            part = value[: size - start]
            parts.append(part.roll(repetition, -1) if repetition and value.dim() > 1 else part)
        return torch.cat(parts)

    return pytree.tree_map(one, inputs)


def _rows(inputs: Any) -> int:
    return next((len(t) for t in tensors_of(inputs) if t.dim()), 1)


@contextmanager
def _exact() -> Iterator[None]:
    """Let a GPU multiply in float32: TF32 is as far off as half precision."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


class _Check:
    """A file and its model; what is found out on one batch is known for the next."""

    def __init__(self, model: nn.Module, graph: Graph, name: str) -> None:
        self.model, self.graph, self.name = model, graph, name
        self.refused = ""
        self.merged: set[str] = set()
        self.orders: dict[nn.Module, list[int]] = {}
        self.tried: list[dict[nn.Module, list[int]]] = []
        self.whole: dict[str, None] = {}
        self._cut()

    def _cut(self) -> None:
        cut = Cut(self.graph, whole=self.whole)
        self.quantizers = quantizers_of(self.model, cut.points)
        unknown = [point.node for point in cut.points if point.node not in self.quantizers]
        if unknown:
            self.whole |= dict.fromkeys(unknown)
            cut = Cut(self.graph, whole=self.whole)
        self.cut = cut

    def must_keep_promises(self, *, dynamic: bool) -> None:
        """Check what can be read off the file without running it."""
        fixed = [v.name for v in self.graph.proto.input if _has_fixed_batch(v)]
        if dynamic and fixed:
            message = (
                f"export: a dynamic batch was asked for, and the file fixes that of {fixed[0]!r}: "
                "the model's code turns the batch size into a number, as int(x.shape[0]) and "
                "loops over samples do; mend it, or set export.dynamic_batch = false"
            )
            raise ExportMismatch(message)
        if self.cut.uncut:
            message = (
                f"export: {self.cut.uncut[0]!r} and the DequantizeLinear behind it are no pair of "
                f"one scale and zero point 0; {HINT}"
            )
            raise ExportMismatch(message)

    def batch(self, inputs: Any, copies: int = 1) -> Matched | None:
        """Return what is found on one batch; None where the model does not take it."""
        kept: tuple[nn.Module, ...] = ()
        while True:
            match = Match(
                self.cut, self.name, self.quantizers, self.merged, copies, self.orders, kept
            )
            if not self._run(match, inputs):
                return None
            found = match.result()
            if found.nan:
                message = (
                    f"export: the model computes NaN in {found.nan!r}; give example inputs that it "
                    "computes numbers of, and check its weights"
                )
                raise ModelError(message)
            if not found.uneven:
                if not found.disagreements:
                    break
                if not (kept := self._reordered(match, kept)):
                    break
                continue
            # Calls on equal values may be one pair in the file, and a call that nothing comes of
            # none. If it is neither, the pairs stay in, and ties may fall to either side.
            again = [name for name in found.uneven if name in self.merged]
            self.merged |= set(found.uneven)
            if again:
                self.whole |= dict.fromkeys(again)
                self._cut()
        if found.disagreements:
            first = min(found.disagreements, key=lambda disagreement: disagreement.place)
            raise ExportMismatch(self._message(first, _rows(inputs)))
        return found

    def _reordered(self, match: Match, kept: tuple[nn.Module, ...]) -> tuple[nn.Module, ...]:
        """Return the quantizers whose calls the next run keeps; none: it would change nothing.

        The first run keeps none, the second shows an order, and each after it checks that.
        """
        orders = match.kept.orders()
        if kept and orders in self.tried:
            return ()
        self.tried.append(orders)
        self.orders |= orders
        return tuple({*kept, *match.several()})

    def verified(self, found: list[tuple[int, Matched | None]]) -> Verified:
        """Return the sum of what was found.

        Raises:
            ModelError: the model does not take its own example.
        """
        known = [(size, matched) for size, matched in found if matched is not None]
        if not known:
            message = f"export: the model does not take its example inputs: {self.refused}"
            raise ModelError(message)
        worst = max((matched for _, matched in known), key=lambda matched: matched.worst)
        return Verified(
            batches=tuple(size for size, _ in known),
            points=known[0][1].points,
            outputs=known[0][1].outputs,
            tolerance=TOLERANCE,
            worst=worst.worst,
            worst_at=worst.worst_at,
            unmatched=tuple(self.whole),
        )

    def _run(self, match: Match, inputs: Any) -> bool:
        given = tensors_of(inputs)
        self._must_be(len(self.graph.inputs), len(given), "inputs", "tensors are given")
        for name, tensor in zip(self.graph.inputs, given, strict=True):
            match.give(name, tensor)
        try:
            with match.watching():
                result = call_model(self.model, inputs)
        except (InputError, RuntimeError, ValueError, IndexError, AssertionError) as error:
            self.refused = first_line(error)
            return False
        outputs = tensors_of(result)
        self._must_be(len(self.graph.outputs), len(outputs), "outputs", "tensors are returned")
        for name, tensor in zip(self.graph.outputs, outputs, strict=True):
            match.expect(name, tensor)
        return True

    def _must_be(self, here: int, there: int, what: str, verb: str) -> None:
        if here != there:
            message = f"export: the file has {here} {what} where {there} {verb}; {HINT}"
            raise ExportMismatch(message)

    def _message(self, first: Disagreement, size: int) -> str:
        by = ", ".join(first.nodes[:_NAMED]) + (", ..." if len(first.nodes) > _NAMED else "")
        return (
            f"export: the file does not compute what the model does, first at tensor "
            f"{first.tensor!r}{f' (computed by {by})' if by else ''} on a batch of {size}: "
            f"{first.what}; {HINT}"
        )


def _has_fixed_batch(value: ValueInfoProto) -> bool:
    dims = value.type.tensor_type.shape.dim
    return len(dims) > 0 and dims[0].HasField("dim_value")


def quantizers_of(model: nn.Module, points: Iterable[Point]) -> dict[str, nn.Module]:
    """Return point -> the quantizer that it was exported from, for those that are known.

    A node is named by the path of the module that it was traced in: the quantizer, or a layer that
    holds one of its input, of its output, or both in turn.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    seen: Counter[str] = Counter()
    found: dict[str, nn.Module] = {}
    for point in points:
        path = point.node.rpartition("/")[0]
        module = modules.get(path)
        if module is not None and not isinstance(module, (TensorQuantizer, Echo)):
            held = (getattr(module, f"{side}_quantizer", None) for side in ("input", "output"))
            own = [q for q in held if isinstance(q, TensorQuantizer) and q.is_enabled]
            module = own[seen[path] % len(own)] if own else None
        seen[path] += 1
        if module is not None:
            found[point.node] = module
    return found
