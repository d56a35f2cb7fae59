"""What a builder's log proves: sparsity found and chosen, kernels skipped for memory, warnings.

TensorRT 8 words sparsity as "Layers eligible for sparse math" and "TRT inference plan picked sparse
implementation"; 10 and 11 as "Found N layer(s) eligible" and "Chose M layer(s)", at verbose
severity. Lines marked (foreignNode) are Myelin's, a line for each of its subgraphs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

_PREFIX = re.compile(
    r"^(?:\[[\d/]+-[\d:]+\] )?(?:\[TRT\] )?\[(?P<letter>[VIWEF])\] (?:\[TRT\] )?|"
    r"^\[TensorRT\] (?P<word>VERBOSE|INFO|WARNING|ERROR): "
)
_FOUND = re.compile(
    r"\(Sparsity\) (?:Found (?P<count>\d+) layer\(s\) eligible to use sparse tactics|"
    r"Layers eligible for sparse math):?(?P<names>.*)"
)
_CHOSE = re.compile(
    r"\(Sparsity\) (?:Chose (?P<count>\d+) layer\(s\) using sparse tactics|"
    r"TRT inference plan picked sparse implementation for layers):?(?P<names>.*)"
)
_SKIPPED = re.compile(r"Skipping tactic .*? insufficient memory on requested size of (\d+)")
_WORKSPACE = "Some tactics do not have sufficient workspace memory"
_LAYER = re.compile(
    r"^Layer\((?P<type>\w+)\): (?P<name>.+?), Tactic: (?P<tactic>\S+), (?P<in>.*) -> (?P<out>.*)$"
)
# Said of every engine or harmless: not worth a reader's time.
_NOISE = re.compile(
    r"Using default stream|CUDA lazy loading|has Int64 binding|getMaxBatchSize|"
    r"TensorRT was linked against|Check verbose logs for the list of affected weights$"
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
        layers: of the engine, from the builder's own listing: name, type, tactic.
    """

    backends: dict[str, Sparsity] = field(default_factory=dict)
    skipped_tactics: int = 0
    largest_request_bytes: int = 0
    short_workspace: bool = False
    warnings: list[str] = field(default_factory=list)
    layers: list[dict[str, str]] = field(default_factory=list)

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
        }


def parse(lines: Iterable[str]) -> BuildLog:
    """Read a builder's messages, as a logger gets them or as ``trtexec --verbose`` prints them."""
    log = BuildLog()
    errors: list[str] = []
    for raw in lines:
        for line in raw.splitlines():
            match = _PREFIX.match(line)
            text = line[match.end() :] if match else line
            severity = (match["letter"] or match["word"][0]) if match else ""
            _read(log, text)
            if severity in ("W", "E", "F") and not _NOISE.search(text):
                (log.warnings if severity == "W" else errors).append(text.strip())
    log.warnings = list(dict.fromkeys([*errors, *log.warnings]))
    return log


def _read(log: BuildLog, text: str) -> None:
    for what, pattern in (("found", _FOUND), ("chose", _CHOSE)):
        if match := pattern.search(text):
            backend = "myelin" if "(foreignNode)" in text[: match.start()] else "cask"
            names = [name for name in match["names"].strip().split(", ") if name.strip()]
            count = match["count"]
            seen = log.backends.setdefault(backend, Sparsity())
            seen.add(what, None if count is None else int(count), names)
    if match := _SKIPPED.search(text):
        log.skipped_tactics += 1
        log.largest_request_bytes = max(log.largest_request_bytes, int(match[1]))
    log.short_workspace = log.short_workspace or _WORKSPACE in text
    if match := _LAYER.match(text):
        log.layers.append({key: match[key] for key in ("name", "type", "tactic")})
