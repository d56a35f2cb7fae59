"""What NVIDIA's own code said of a model that preflight judged."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Refused:
    """One thing that it refuses.

    Attributes:
        stage: ``parser`` or ``builder``.
        text: its own words.
        node: ONNX node; empty where it names none.
        source: file and line of its code.
        rule: of preflight, that speaks of it.
        shared: TensorRT has the same code; otherwise only TensorRT for RTX is known to say so.
    """

    stage: str
    text: str
    node: str
    source: str
    rule: str
    shared: bool


@dataclass(frozen=True)
class Confirmation:
    """The verdict on a whole model.

    Attributes:
        by: who said so, with its version.
        parsed: whether the parser accepts it.
        built: whether the builder makes a plan; None: it was not asked, and ``note`` says why.
        refused: by either.
        warnings: of either, each once.
        targets: compute capabilities that it was built for.
        agreement: predicted and listed precisions, layer by layer; None without a build.
        against_fp16: kernels and bytes of this network and of its FP16 form; None: not asked.
        note: why it was not built; empty if it was.
        scope: what this evidence says and what it does not.
    """

    by: str
    parsed: bool
    built: bool | None
    refused: tuple[Refused, ...] = ()
    warnings: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    agreement: dict[str, Any] | None = None
    against_fp16: dict[str, Any] | None = None
    note: str = ""
    scope: str = ""

    @property
    def sentence(self) -> str:
        """The verdict as a line."""
        parser = "accepts it" if self.parsed else "refuses it"
        line = f"{self.by}: the parser {parser}"
        if self.built is not None:
            builder = "builds it" if self.built else "does not build it"
            line += f", the builder {builder} for {', '.join(self.targets)}"
        return f"{line}; not built: {self.note}" if self.note else line

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document's ``confirmation``."""
        plain = asdict(self)
        listed = ("refused", "warnings", "targets")
        return plain | {key: list(plain[key]) for key in listed}
