"""What a log proves: sparsity found and chosen, kernels skipped for memory, layers, warnings.

TensorRT 8 words sparsity as "Layers eligible for sparse math" and "TRT inference plan picked sparse
implementation"; 10 and 11 as "Found N layer(s) eligible" and "Chose M layer(s)", at verbose
severity. Lines marked (foreignNode) are Myelin's, a line for each of its subgraphs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from trt_qat.engine.evidence import memory
from trt_qat.engine.evidence.explain import Explained, Facts, explain, facts
from trt_qat.engine.evidence.log_layers import line_entry, listing
from trt_qat.engine.evidence.log_text import messages
from trt_qat.engine.evidence.performance import performance
from trt_qat.engine.evidence.profile import Profile
from trt_qat.engine.evidence.profile_table import profile_of

_FOUND = re.compile(
    r"\(Sparsity\) (?:Found (?P<count>\d+) layer\(s\) eligible to use sparse tactics|"
    r"Layers eligible for sparse math):?(?P<names>.*)"
)
_CHOSE = re.compile(
    r"\(Sparsity\) (?:Chose (?P<count>\d+) layer\(s\) using sparse tactics|"
    r"TRT inference plan picked sparse implementation for layers):?(?P<names>.*)"
)
_RUN = "&&&& RUNNING"
_ENGINE = "Engine Layer Information:"
_WORKSPACE = "Some tactics do not have sufficient workspace memory"
# Said of every engine or harmless: not worth a reader's time.
_NOISE = re.compile(
    r"Using default stream|CUDA lazy loading|has Int64 binding|getMaxBatchSize|"
    r"TensorRT was linked against|Check verbose logs for the list of affected weights\.?$|"
    r"encountered issues when converting weights between types and that could affect accuracy|"
    r"If this is not the desired behavior, please modify the weights"
)


@dataclass
class Sparsity:
    """2:4 layers that one backend of TensorRT found, and those it took sparse kernels for."""

    found: int = 0
    chose: int = 0
    found_layers: list[str] = field(default_factory=list)
    chose_layers: list[str] = field(default_factory=list)

    def add(self, what: str, count: int | None, names: list[str]) -> None:
        """Add a line of the log; a line that is printed again adds nothing."""
        known = getattr(self, f"{what}_layers")
        fresh = [name for name in names if name not in known]
        known += fresh
        if names:
            setattr(self, what, getattr(self, what) + len(fresh))
        elif count is not None:
            setattr(self, what, max(getattr(self, what), count))


@dataclass
class BuildLog:
    """What the log says.

    Attributes:
        backends: `Sparsity` of ``cask`` (convolutions, standard kernels) and ``myelin``.
        skipped_tactics: kernels that were not tried because memory was short.
        largest_request_bytes: that such a kernel wanted.
        short_workspace: the workspace limit kept kernels from being tried.
        warnings: each once, in order; errors first.
        layers: of the engine, from the builder's own listing, as entries of the inspector's JSON.
        listing: what the inspector printed into the log, as its JSON; None: nothing.
        explained: what its messages mean.
        facts: version, device and outcome.
        performance: of trtexec's summary, see `trt_qat.engine.evidence.performance`.
        profile: times of layers that trtexec printed; None: it printed none.
        runs: of trtexec in one file; layers, times, facts and counts are of the last.
        engines: whose layers the builder listed in that run; they stand in ``layers`` together.
        prefixed: lines that begin as messages of a logger do.
    """

    backends: dict[str, Sparsity] = field(default_factory=dict)
    skipped_tactics: int = 0
    largest_request_bytes: int = 0
    short_workspace: bool = False
    warnings: list[str] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    listing: dict[str, Any] | None = None
    explained: list[Explained] = field(default_factory=list)
    facts: Facts = field(default_factory=Facts)
    performance: dict[str, float] = field(default_factory=dict)
    profile: Profile | None = None
    runs: int = 0
    engines: int = 0
    prefixed: int = 0

    @property
    def is_one(self) -> bool:
        """Whether the text is a log at all."""
        return bool(
            self.prefixed
            or self.runs
            or self.profile
            or self.layers
            or self.backends
            or self.explained
            or self.skipped_tactics
        )

    @property
    def found(self) -> int | None:
        """2:4 layers in the network; None: the log does not speak of sparsity."""
        return sum(each.found for each in self.backends.values()) if self.backends else None

    @property
    def chose(self) -> int | None:
        """Layers that got a sparse kernel, likewise."""
        return sum(each.chose for each in self.backends.values()) if self.backends else None

    def to_dict(self) -> dict[str, Any]:
        """Return the part of ``layers.json`` that the log decides."""
        sparsity = None
        if self.backends:
            backends = {name: vars(each) for name, each in sorted(self.backends.items())}
            sparsity = {"found": self.found, "chose": self.chose, "backends": backends}
        return {
            "sparsity": sparsity,
            "skipped_tactics": self.skipped_tactics,
            "largest_request_bytes": self.largest_request_bytes,
            "short_workspace": self.short_workspace,
            "warnings": self.warnings,
            "explained": [each.to_dict() for each in self.explained],
            "facts": self.facts.to_dict(),
            "performance": self.performance,
        }


def parse(lines: str | Iterable[str]) -> BuildLog:
    """Read a builder's messages, as a logger gets them or as any program prints them."""
    log = BuildLog()
    said = messages(lines)
    begins = [at for at, message in enumerate(said) if message.text.startswith(_RUN)]
    last = said[begins[-1] :] if len(begins) > 1 else said
    for message in last:
        _read(log, message.text)
    texts = [message.text for message in last]
    short = memory.skipped(texts)
    log.skipped_tactics, log.largest_request_bytes = short.count, short.largest_bytes
    log.runs, log.facts, log.explained = len(begins), facts(last), explain(said)
    log.performance, log.profile = performance(texts), profile_of(texts)
    problems = [each for each in said if each.is_problem and not _is_noise(each.text)]
    problems.sort(key=lambda each: each.severity == "W")
    log.warnings = list(dict.fromkeys(each.text.strip() for each in problems))
    log.listing = listing(last)
    log.prefixed = sum(bool(each.severity) for each in said)
    return log


def _is_noise(text: str) -> bool:
    return bool(_NOISE.search(text)) or memory.is_about(text)


def _read(log: BuildLog, text: str) -> None:
    for what, pattern in (("found", _FOUND), ("chose", _CHOSE)):
        if "(Sparsity)" in text and (match := pattern.search(text)):
            backend = "myelin" if "(foreignNode)" in text[: match.start()] else "cask"
            names = [name for name in match["names"].strip().split(", ") if name.strip()]
            count = match["count"]
            seen = log.backends.setdefault(backend, Sparsity())
            seen.add(what, None if count is None else int(count), names)
    log.short_workspace = log.short_workspace or _WORKSPACE in text
    log.engines += text.startswith(_ENGINE)
    if text.lstrip().startswith("Layer(") and (entry := line_entry(text.lstrip())):
        log.layers.append(entry)
