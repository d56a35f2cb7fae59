"""Comparing what two runners return for the same feeds: the candidate against the reference."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.comparison.bisect import Bisection
from trt_qat.comparison.bisect import bisect as run_bisection
from trt_qat.comparison.layerwise import (
    MIN_LOCAL_SQNR_DB,
    ROUNDING,
    LayerComparison,
    LayerDifference,
    Layers,
    tapped,
    worst_of,
)
from trt_qat.comparison.rebuild import Rebuild, rebuildable
from trt_qat.comparison.tally import Tally, TensorDifference
from trt_qat.errors import DataError, TrtQatError
from trt_qat.measure.difference import Difference
from trt_qat.runners import polygraphy as polygraphy_bridge
from trt_qat.runners.open import runner
from trt_qat.runners.ort_tapped import OrtTapped
from trt_qat.runners.protocol import Feed, Outputs, Runner, TensorSpec, fixed_batch

MIN_AGREEMENT = 0.999
MIN_SQNR_DB = 20.0
"""For outputs without classes: noise of a tenth of the signal's amplitude."""


BISECTION_SAMPLES = 32

ROUNDING_SQNR_DB = 90.0
"""Of two runs of one model with other fusions; a tie of rounding that falls otherwise leaves 80."""


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; `to_dict` is its JSON."""

    ref: str
    cand: str
    samples: int
    outputs: tuple[TensorDifference, ...]
    passed: bool
    layers: tuple[LayerDifference, ...] = ()
    first_divergence: LayerDifference | None = None
    accuracy: dict[str, float] = field(default_factory=dict)
    bisection: Bisection | None = None
    worst_layer: LayerDifference | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the stable JSON form."""
        document = asdict(self)
        document["outputs"] = list(document["outputs"])
        document["layers"] = list(document["layers"])
        if not self.accuracy:
            del document["accuracy"]
        if self.bisection is None:
            del document["bisection"]
        else:
            document["bisection"] = self.bisection.to_dict()
        return document


def compare(
    ref: str | Runner,
    cand: str | Runner,
    feeds: Feed | Iterable[Feed],
    *,
    labels: NDArray[np.int64] | None = None,
    min_agreement: float = MIN_AGREEMENT,
    min_sqnr_db: float = MIN_SQNR_DB,
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
        labels: ``(samples,) int64``; with them the accuracies of the first output are compared.
        min_agreement: of argmax, for a pass, of every output that has classes.
        min_sqnr_db: for a pass, of every output that has none.
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
    left, right = _runner(ref), _runner(cand)
    compiled = rebuildable(right, left) if bisect else None
    both = _Both(left, right, keep=save_outputs is not None)
    both.run(feeds, labels, layers=False if bisect else layers)
    if save_outputs is not None:
        polygraphy_bridge.save_outputs(Path(save_outputs), both.kept)
    outputs = both.tally.outputs()
    passed = all(_passes(output, min_agreement, min_sqnr_db) for output in outputs)
    unasked = bisect is None and not passed and right.name.startswith("trt")
    halves = _bisected(both, compiled, unasked=unasked)
    found = both.layers if halves is None else halves
    return Comparison(
        ref=ref if isinstance(ref, str) else ref.name,
        cand=cand if isinstance(cand, str) else cand.name,
        samples=both.tally.samples,
        outputs=outputs,
        passed=passed,
        layers=found.layers if found is not None else (),
        first_divergence=found.first_divergence if found is not None else None,
        accuracy=both.tally.accuracy(),
        bisection=halves,
        worst_layer=worst_of(both.layers.layers, MIN_LOCAL_SQNR_DB) if both.layers else None,
    )


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

    def __init__(self, left: Runner, right: Runner, *, keep: bool) -> None:
        self.left, self.right, self.keep = left, right, keep
        self.tally = Tally()
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
        found = Difference(with_classes=False)
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


def compare_outputs(
    ref: tuple[str, Outputs],
    cand: tuple[str, Outputs],
    *,
    labels: NDArray[np.int64] | None = None,
    min_agreement: float = MIN_AGREEMENT,
    min_sqnr_db: float = MIN_SQNR_DB,
) -> Comparison:
    """Compare outputs that were computed before; each side is its name and its outputs."""
    tally = Tally()
    tally.update(ref[1], cand[1], labels)
    outputs = tally.outputs()
    return Comparison(
        ref=ref[0],
        cand=cand[0],
        samples=tally.samples,
        outputs=outputs,
        passed=all(_passes(output, min_agreement, min_sqnr_db) for output in outputs),
        accuracy=tally.accuracy(),
    )


def _passes(output: TensorDifference, min_agreement: float, min_sqnr_db: float) -> bool:
    if output.argmax_agreement is not None:
        return output.argmax_agreement >= min_agreement
    return output.sqnr_db is None or output.sqnr_db >= min_sqnr_db
