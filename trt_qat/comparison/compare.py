"""Comparing what two runners return for the same feeds: the candidate against the reference."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trt_qat.comparison.bisect import Bisection
from trt_qat.comparison.bisect import bisect as run_bisection
from trt_qat.comparison.judged import MIN_SQNR_DB, Limits
from trt_qat.comparison.layerwise import (
    MIN_LOCAL_SQNR_DB,
    ROUNDING,
    LayerComparison,
    Layers,
    tapped,
    worst_of,
)
from trt_qat.comparison.rebuild import Rebuild, rebuildable
from trt_qat.comparison.result import (
    Comparison,
    Verdict,
    compare_outputs,
    judged_outputs,
    verdict_of,
)
from trt_qat.comparison.tally import Tally, TensorDifference
from trt_qat.errors import DataError, TrtQatError
from trt_qat.graph.load import load_graph
from trt_qat.measure.difference import Difference
from trt_qat.measure.outputs import Axes
from trt_qat.runners import polygraphy as polygraphy_bridge
from trt_qat.runners.bare import spec_of
from trt_qat.runners.open import runner
from trt_qat.runners.ort import OrtRunner
from trt_qat.runners.ort_tapped import OrtTapped
from trt_qat.runners.protocol import Feed, Outputs, Runner, TensorSpec, fixed_batch

__all__ = ["Comparison", "compare", "compare_outputs"]

BISECTION_SAMPLES = 32

ROUNDING_SQNR_DB = 90.0
"""Of two runs of one model with other fusions; a tie of rounding that falls otherwise leaves 80."""


def compare(
    ref: str | Runner,
    cand: str | Runner,
    feeds: Feed | Iterable[Feed],
    *,
    labels: NDArray[np.int64] | None = None,
    min_agreement: float | None = None,
    min_sqnr_db: float = MIN_SQNR_DB,
    axes: Axes | None = None,
    inputs: str = "given",
    layers: bool | None = None,
    bisect: bool | None = None,
    save_outputs: str | Path | None = None,
) -> Comparison:
    """Run both on the same feeds and compare their outputs, and what is between.

    Batches are taken one by one and forgotten, so memory does not grow with their number.

    Args:
        ref: the reference, a SPEC or a runner, one of Polygraphy's too.
        cand: the candidate, likewise.
        feeds: one batch or several, arrays by input name, or a DataLoader of Polygraphy's.
        labels: ``(samples,) int64``, or ``(samples, H, W)`` of maps; with them the accuracies of
            the first output are compared.
        min_agreement: of answers, for a pass, of every output that has classes, as far as so many
            samples can tell (`trt_qat.measure.agreement.allowed`); None: 0.999, and 0.99 where
            every pixel has an answer.
        min_sqnr_db: for a pass, of every output that has none.
        axes: which outputs have classes, and along which axis; None: by rank, type and name.
        inputs: what the feeds are, in words; what begins with "random" fails no calibrated network.
        layers: compare inner tensors too (`trt_qat.comparison.layerwise`); absent: where both
            sides show them, which ``ort:`` and ``torch:`` do, and names match.
        bisect: find the first fused group that differs (`trt_qat.comparison.bisect`), on the
            first 32 samples; absent: where an engine does not pass against the ONNX it was built
            from and can be built again here.
        save_outputs: write the outputs of both there, as Polygraphy's RunResults; they are held
            in memory until then.

    Raises:
        DataError: no feeds, outputs that do not correspond, NaN or infinity, or ``layers`` is true
            and no inner tensor can be compared.
    """
    ref, cand = (spec_of(side) if isinstance(side, str) else side for side in (ref, cand))
    left, right = _runner(ref), _runner(cand)
    compiled = rebuildable(right, left) if bisect else None
    both = _Both(left, right, keep=save_outputs is not None, axes=axes or Axes())
    both.run(feeds, labels, layers=False if bisect else layers)
    if save_outputs is not None:
        polygraphy_bridge.save_outputs(Path(save_outputs), both.kept)
    outputs = judged_outputs(both.tally, Limits(min_agreement, min_sqnr_db))
    passed = all(output.passed for output in outputs)
    unasked = bisect is None and not passed and right.name.startswith("trt")
    halves = _bisected(both, compiled, unasked=unasked)
    names = [spec if isinstance(spec, str) else spec.name for spec in (ref, cand)]
    undecided = not passed and inputs.startswith("random") and _calibrated(left, right)
    verdict: Verdict = "undecided" if undecided else verdict_of(passed)
    return replace(_result(both, halves, names, outputs), verdict=verdict, inputs=inputs)


def _result(
    both: _Both,
    halves: Bisection | None,
    names: Sequence[str],
    outputs: tuple[TensorDifference, ...],
) -> Comparison:
    found = both.layers if halves is None else halves
    return Comparison(
        ref=names[0],
        cand=names[1],
        samples=both.tally.samples,
        outputs=outputs,
        passed=all(output.passed for output in outputs),
        layers=found.layers if found is not None else (),
        first_divergence=found.first_divergence if found is not None else None,
        accuracy=both.tally.accuracy(),
        changed=both.tally.changed(),
        bisection=halves,
        worst_layer=worst_of(both.layers.layers, MIN_LOCAL_SQNR_DB) if both.layers else None,
    )


def _calibrated(*runners: Runner) -> bool:
    """Tell whether one of them has ranges that were measured; an engine may have."""
    return any(
        _has_ranges(runner.path)
        if isinstance(runner, OrtRunner)
        else runner.__class__.__module__ == "trt_qat.engine.execution.runner"
        for runner in runners
    )


def _has_ranges(path: Path) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in load_graph(path).graph.node)


def _bisected(both: _Both, compiled: Rebuild | None, *, unasked: bool) -> Bisection | None:
    if compiled is not None:
        return run_bisection(OrtTapped(compiled.reference), compiled, [both.few])
    if unasked:
        # What was compared counts, even if the engine cannot be built again here.
        with contextlib.suppress(TrtQatError):
            return _bisected(both, rebuildable(both.right, both.left), unasked=False)
    return None


class _Both:
    """Two runners on the same feeds: what is left of it.

    Attributes:
        tally: of the outputs.
        layers: what was found of inner tensors; None: they were not compared.
        few: the first samples, for what has to be run again and again.
        kept: name and outputs of each side, if they are to be kept.
    """

    def __init__(self, left: Runner, right: Runner, *, keep: bool, axes: Axes) -> None:
        self.left, self.right, self.keep = left, right, keep
        self.tally = Tally(axes)
        self.layers: Layers | None = None
        self._as_observed = False
        self.few: Feed = {}
        self.kept: tuple[tuple[str, list[Outputs]], ...] = ((left.name, []), (right.name, []))

    def run(
        self,
        feeds: Feed | Iterable[Feed],
        labels: NDArray[np.int64] | None,
        *,
        layers: bool | None,
    ) -> None:
        """Run both, and compare inner tensors where they can be or ``layers`` says so."""
        left, right = self.left, self.right
        with left, right:
            inner = None
            if layers is not False:
                inner = _layer_comparison(left, right, required=bool(layers))
            for batch in _batches(feeds, (left, right)):
                _check_batch(batch)
                self.few = self.few or _few(right, batch)
                pair = self._outputs(batch, inner)
                self.tally.update(*pair, labels)
                if self.keep:
                    for (_, outputs), given in zip(self.kept, pair, strict=True):
                        outputs.append(given)
        if not self.tally.samples:
            message = "compare: no feeds; give at least one batch"
            raise DataError(message)
        self.layers = inner.result() if inner is not None else None

    def _outputs(self, batch: Feed, inner: LayerComparison | None) -> tuple[Outputs, Outputs]:
        """Return the outputs of both; of the layer-wise runs where those tell them as well.

        The candidate is run by itself on the first batch, and on every batch if its outputs are
        not those of the layer-wise run but for rounding.
        """
        # Fails first where a feed does not fit: it knows its inputs.
        plain = None if self._as_observed else _finite(self.right, batch)
        if inner is None:
            assert plain is not None
            return _finite(self.left, batch), plain
        wanted, seen = inner.update(batch)
        if plain is None:
            return _finite(self.left, batch, wanted), _finite(self.right, batch, seen)
        self._as_observed = seen is not None and not self.tally.samples and _alike(plain, seen)
        return _finite(self.left, batch, wanted), plain


def _alike(plain: Outputs, seen: Outputs) -> bool:
    """Tell whether two runs of one model differ by rounding at most."""
    for name, array in plain.items():
        found = Difference()
        found.update(array, np.atleast_1d(seen[name]), name)
        noisy = found.sqnr_db is not None and found.sqnr_db < ROUNDING_SQNR_DB
        if noisy and found.max_abs > ROUNDING:
            return False
    return True


def _runner(given: str | Runner) -> Runner:
    if isinstance(given, str):
        return runner(given)
    if polygraphy_bridge.is_polygraphy(given):
        return polygraphy_bridge.PolygraphyRunner(given)
    return given


def _batches(feeds: Feed | Iterable[Feed], runners: Sequence[Runner]) -> Iterable[Feed]:
    if isinstance(feeds, Mapping):
        return [feeds]
    inputs: Mapping[str, TensorSpec] = next((r.inputs for r in runners if r.inputs), {})
    return polygraphy_bridge.with_metadata(feeds, inputs)


def _check_batch(batch: Feed) -> None:
    """Check what is fed: a Q takes NaN for a number, and both sides would agree on it."""
    for name, array in batch.items():
        if not isinstance(array, np.ndarray):
            kind = f"{type(array).__module__}.{type(array).__name__}"
            message = f"compare: input {name!r} is a {kind}; feeds are numpy arrays by input name"
            raise DataError(message)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            message = f"compare: input {name!r} holds NaN or infinity; mend the data"
            raise DataError(message)


def _few(runner: Runner, batch: Feed) -> Feed:
    """Return what a bisection is run on: a batch is run again for every build."""
    if fixed_batch(runner.inputs) is not None:
        return batch
    return {name: array[:BISECTION_SAMPLES] for name, array in batch.items()}


def _layer_comparison(left: Runner, right: Runner, *, required: bool) -> LayerComparison | None:
    ref, cand = tapped(left), tapped(right)
    if ref is not None and isinstance(cand, OrtTapped):
        found = LayerComparison(ref, cand)
        if found.matched:
            return found
    if required:
        message = (
            f"compare: the layers of {left.name} and {right.name} cannot be compared; the "
            "candidate must be ort:FILE.onnx, the reference ort: or torch:, with names in common, "
            "as trt_qat.export gives them"
        )
        raise DataError(message)
    return None


def _finite(runner: Runner, batch: Feed, known: Outputs | None = None) -> Outputs:
    """Run a batch, unless its outputs are known; outputs with at least one dimension.

    Raises:
        DataError: an output holds NaN or infinity.
    """
    found = runner.infer(batch) if known is None else known
    outputs = {name: np.atleast_1d(array) for name, array in found.items()}
    for name, array in outputs.items():
        if not np.isfinite(array).all():
            message = f"{runner.name}: output {name!r} holds NaN or infinity"
            raise DataError(message)
    return outputs
