"""The checks of what a run's files say: sizes, preflight, sparsity, kernels, latency, versions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from trt_qat.gate.significance import ratio_interval
from trt_qat.gate.snapshot import Latency, Preflight, Snapshot, Timing
from trt_qat.recipe.specs import Tolerances
from trt_qat.wording import counted

Status = Literal["passed", "failed", "skipped", "info"]
Form = Literal["percent", "number", "bytes", "ms"]
Value = float | int | str | None


@dataclass(frozen=True)
class Check:
    """One thing that was judged.

    Attributes:
        name: of the check, the same in every report.
        status: passed, failed, skipped (cannot be judged here) or info (is not judged).
        baseline: the baseline's value.
        candidate: the run's.
        message: the evidence, for people.
        details: the evidence, for programs.
        form: how the two values are shown.
    """

    name: str
    status: Status
    baseline: Value = None
    candidate: Value = None
    message: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    form: Form = "number"

    def to_dict(self) -> dict[str, Any]:
        """Return the stable JSON form."""
        return {
            "name": self.name,
            "status": self.status,
            "baseline": self.baseline,
            "candidate": self.candidate,
            "message": self.message,
            "details": self.details,
        }


def shown(value: Value, form: Form) -> str:
    """Return a value as people read it."""
    if value is None or isinstance(value, str):
        return value or ""
    if form == "percent":
        return f"{value:.2%}"
    if form == "bytes":
        return f"{value:,} B"
    if form == "ms":
        return f"{value:.4g} ms"
    return f"{value:.6g}"


def artefact_checks(known: Snapshot, found: Snapshot, tolerances: Tolerances) -> Iterator[Check]:
    """Yield every check that is not of a metric."""
    yield from _images(known, found)
    yield from _sizes(known, found, tolerances)
    yield from _preflight(known.preflight, found.preflight)
    yield from _sparsity(known, found)
    yield from _kernels(known, found, tolerances)
    yield from _latency(known.latency, found.latency, tolerances)
    yield from _versions(known, found)


def _images(known: Snapshot, found: Snapshot) -> Iterator[Check]:
    base, cand = known.test.images_sha256, found.test.images_sha256
    if base is None and cand is None:
        return
    if base is None or cand is None:
        text = "only one of the two says which pixels it saw"
        yield Check("test images", "skipped", _short(base), _short(cand), text)
        return
    same = base == cand
    text = (
        "the same"
        if same
        else (
            "the same samples with other pixels: was the preprocessing changed on purpose? --update"
        )
    )
    yield Check("test images", "passed" if same else "failed", _short(base), _short(cand), text)


def _short(digest: str | None) -> str | None:
    return digest and digest[:12]


def _absent(name: str, base: Any, cand: Any, file: str) -> Check | None:
    """Return the check of a part that one of the two lacks; None if both have it, or neither."""
    if (base is None) == (cand is None):
        return None
    who = "this run" if cand is None else "the baseline"
    return Check(name, "skipped", message=f"{who} has no {file}")


def _sizes(known: Snapshot, found: Snapshot, tolerances: Tolerances) -> Iterator[Check]:
    for file in sorted(known.sizes.keys() | found.sizes.keys()):
        base, cand = known.sizes.get(file), found.sizes.get(file)
        name = f"size {file}"
        if base is None or cand is None:
            yield _absent(name, base, cand, file) or Check(name, "skipped")
            continue
        growth = cand / base - 1
        yield Check(
            name,
            "failed" if growth > tolerances.size_growth else "passed",
            base,
            cand,
            f"{growth:+.1%}; allowed: {tolerances.size_growth:+.1%}",
            {"growth": growth, "tolerance": tolerances.size_growth},
            form="bytes",
        )


def _preflight(base: Preflight | None, cand: Preflight | None) -> Iterator[Check]:
    if (gap := _absent("preflight", base, cand, "preflight.json")) is not None:
        yield gap
    if base is None or cand is None:
        return
    if (base.target, base.tensorrt) != (cand.target, cand.tensorrt):
        text = (
            f"judged for {_device(cand)}, the baseline for {_device(base)}: not comparable; "
            "if the target was changed on purpose, --update"
        )
        yield Check("preflight", "failed", _device(base), _device(cand), text)
        return
    for name, old, new in (
        ("preflight errors", base.errors, cand.errors),
        ("preflight warnings", base.warnings, cand.warnings),
    ):
        text = "more than before" if new > old else ""
        yield Check(name, "failed" if new > old else "passed", old, new, text)
    fresh = sorted(cand.rules.keys() - base.rules.keys())
    text = f"new: {', '.join(fresh)}; what they mean: docs/rules.md" if fresh else ""
    yield Check(
        "preflight rules",
        "failed" if fresh else "passed",
        ", ".join(base.rules) or "none",
        ", ".join(cand.rules) or "none",
        text,
        {"new": fresh, "baseline": base.rules, "candidate": cand.rules},
    )
    fewer = cand.int8 < base.int8
    text = "fewer layers are INT8 in and out" if fewer else ""
    yield Check("layers INT8 in and out", _failed(fewer), base.int8, cand.int8, text)


def _failed(condition: bool) -> Status:
    return "failed" if condition else "passed"


def _device(preflight: Preflight) -> str:
    words = (
        preflight.target or "no target",
        preflight.tensorrt and f"TensorRT {preflight.tensorrt}",
    )
    return ", ".join(word for word in words if word)


def _sparsity(known: Snapshot, found: Snapshot) -> Iterator[Check]:
    base, cand = known.sparsity, found.sparsity
    if (gap := _absent("2:4 proven", base, cand, "compare.json")) is not None:
        yield gap
    if base is None or cand is None:
        return
    fewer = cand.proven < base.proven
    text = f"of {counted(cand.reported, 'layer')} reported 2:4"
    text += "; fewer than before" if fewer else ""
    yield Check("2:4 proven", _failed(fewer), base.proven, cand.proven, text)


def _kernels(known: Snapshot, found: Snapshot, tolerances: Tolerances) -> Iterator[Check]:
    base, cand = known.kernels, found.kernels
    if (gap := _absent("sparse kernels", base, cand, "Found and Chose in layers.json")) is not None:
        yield gap
    if base is None or cand is None:
        return
    fewer = cand.found < base.found
    text = "TensorRT finds fewer layers eligible" if fewer else ""
    yield Check("sparse found", _failed(fewer), base.found, cand.found, text)
    least = base.chosen * (1 - tolerances.chosen_loss)
    text = f"at least {least:g}; builds of one graph differ"
    failed = cand.chosen < least or (base.chosen > 0 and cand.chosen == 0)
    yield Check("sparse chosen", _failed(failed), base.chosen, cand.chosen, text)


def _latency(base: Latency | None, cand: Latency | None, limits: Tolerances) -> Iterator[Check]:
    if (gap := _absent("latency", base, cand, "bench.json")) is not None:
        yield gap
    if base is None or cand is None:
        return
    if base.device != cand.device:
        text = "measured on different devices: not comparable"
        yield Check("latency", "skipped", base.device, cand.device, text)
        return
    for spec in sorted(base.specs.keys() | cand.specs.keys()):
        old, new = base.specs.get(spec), cand.specs.get(spec)
        name = f"latency {spec}"
        if old is None or new is None:
            yield _absent(name, old, new, f"{spec} in bench.json") or Check(name, "skipped")
        else:
            yield _ratio(name, old, new, limits.latency_growth)


def _ratio(name: str, old: Timing, new: Timing, tolerated: float) -> Check:
    """Slower is judged as worse is: more than the interval explains, and more than tolerated."""
    ends = [(timing.p50, timing.low, timing.high) for timing in (old, new)]
    ratio, (low, high) = ratio_interval(*ends)
    slower = low > 1 and ratio > 1 + tolerated
    text = f"p50 ratio {ratio:.3f} (95 % {low:.3f} to {high:.3f}); allowed: {1 + tolerated:.3f}"
    details = {"ratio": ratio, "ci95": [low, high], "tolerance": tolerated}
    return Check(name, _failed(slower), old.p50, new.p50, text, details, form="ms")


def _versions(known: Snapshot, found: Snapshot) -> Iterator[Check]:
    base, cand = known.versions, found.versions
    if not base or not cand:
        yield Check("versions", "info", message="not recorded by one of the two")
        return
    changed = {
        name: [base.get(name), cand.get(name)]
        for name in sorted(base.keys() | cand.keys())
        if base.get(name) != cand.get(name)
    }
    said = [
        f"{name} {old or 'absent'} -> {new or 'absent'}" for name, (old, new) in changed.items()
    ]
    yield Check("versions", "info", message=", ".join(said) or "the same", details=changed)
