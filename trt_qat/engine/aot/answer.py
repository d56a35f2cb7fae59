"""What NVIDIA's compiler is asked, and what it answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trt_qat.errors import visible

_NO_DRIVER = re.compile(
    r"(?:\\n|\n)?\[checkMacros\.cpp::catchCudaError::\d+\].*?\(cudaError \d+:.*?\)\)", re.S
)


@dataclass(frozen=True)
class Refusal:
    """What the parser or the builder refuses, in its own words.

    Attributes:
        text: of NVIDIA's.
        node: name of the ONNX node; empty where it names none.
        operator: of that node.
        code: of the parser's ``ErrorCode``; empty for the builder.
        source: file and line of NVIDIA's code that said so.
    """

    text: str
    node: str = ""
    operator: str = ""
    code: str = ""
    source: str = ""

    def __str__(self) -> str:
        """Return it as a line, NVIDIA's source behind it."""
        where = f" at {self.node}" if self.node else ""
        return visible(f"{self.text}{where}" + (f" ({self.source})" if self.source else ""))


@dataclass(frozen=True)
class Answer:
    """What came of a network.

    Attributes:
        version: of TensorRT for RTX.
        parsed: whether the parser accepts the ONNX.
        built: whether a plan came out; None: none was asked for, or nothing was parsed.
        refusals: of the parser; of the builder where the parser accepts.
        warnings: each once.
        sha256: of the plan; empty where there is none.
        size: of the plan in bytes.
        seconds: that parsing and building took.
        peak_mib: memory that the process had at most; None where the system does not tell.
    """

    version: str
    parsed: bool
    built: bool | None
    refusals: tuple[Refusal, ...] = ()
    warnings: tuple[str, ...] = ()
    sha256: str = ""
    size: int = 0
    seconds: float = 0.0
    peak_mib: int | None = None


@dataclass(frozen=True)
class Job:
    """What is built.

    Attributes:
        onnx: of the network; its weights lie where it says.
        plan: where the plan is written.
        log: where everything that the compiler says is written.
        capabilities: members of ``ComputeCapability``; none: every GPU from 8.0 on.
        profiles: optimization profiles: input to min, opt and max.
        flags: ``BuilderFlag`` members to set.
        cleared: ``BuilderFlag`` members to clear.
        values: attributes of the config; text names a member of an enumeration.
        pools: limits of ``MemoryPoolType`` members, in bytes.
    """

    onnx: Path
    plan: Path
    log: Path
    capabilities: Sequence[str] = ()
    profiles: Sequence[Mapping[str, Sequence[Sequence[int]]]] = ()
    flags: Sequence[str] = ()
    cleared: Sequence[str] = ()
    values: Mapping[str, int | str] = field(default_factory=dict)
    pools: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the request."""
        paths = {name: str(getattr(self, name)) for name in ("onnx", "plan", "log")}
        return vars(self) | paths


def _own_words(text: str) -> str:
    """Return a message without what follows from there being no driver on this machine."""
    return _NO_DRIVER.sub("", text).strip()


def answer_of(told: Mapping[str, Any], version: str) -> Answer:
    """Return the answer in the last document of `worker.Worker`."""
    refusals = [
        Refusal(
            text=_own_words(each["desc"]),
            node=each["node_name"],
            operator=each["node_operator"],
            code=each["code"],
            source=f"{Path(each['file']).name}:{each['line']}" if each["file"] else "",
        )
        for each in told["refusals"]
    ]
    if told["parsed"] and told["built"] is False:
        refusals = [Refusal(_own_words(text)) for text in told["errors"]]
    return Answer(
        version=version,
        parsed=told["parsed"],
        built=told["built"],
        refusals=tuple(refusals),
        warnings=tuple(told["warnings"]),
        sha256=told.get("sha256", ""),
        size=told.get("bytes", 0),
        seconds=told["parse_seconds"] + told.get("build_seconds", 0.0),
        peak_mib=told["peak_mib"],
    )
