"""Everything that reads a model, run on damaged ones: a report comes of it, or one InputError."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.graph.mutations import mutated
from tests.lint.violations import CASES
from trt_qat.engine.aot.child import Compiler
from trt_qat.engine.confirm.preflight import preflight as ask
from trt_qat.errors import CompilerDied, InputError
from trt_qat.graph.load import load_graph
from trt_qat.graph.text import dump
from trt_qat.lint.preflight import preflight
from trt_qat.lint.reports import to_junit, to_sarif
from trt_qat.lint.rules import RULES
from trt_qat.mend.fix import mended
from trt_qat.mend.precision import Half
from trt_qat.mend.retype import to_half

_TARGETS = (None, "t4", "a100", "orin-agx-dla", "rtx-5090")
_VERSIONS = (None, "8.6", "10.3", "11.4")


def judge(file: Path, draw: Random) -> str:
    """Run everything that reads a model; return ``report`` or the class of the error."""
    try:
        report = preflight(file, draw.choice(_TARGETS), tensorrt=draw.choice(_VERSIONS))
        json.dumps(report.to_dict())
        json.dumps(to_sarif(report))
        to_junit(report)
        model = load_graph(file)
        dump(model)
        after, _ = mended(model, set(RULES))
    except InputError as error:
        return type(error).__name__
    with contextlib.suppress(InputError):  # more than preflight, it asks for valid ONNX
        to_half(after, Half(), (), given=False)
    return "report"


def confirmed(compiler: Compiler) -> Callable[[Path, Random], str]:
    """Return what puts a model to NVIDIA's parser, one in eight to its builder too.

    Its process may die; ours says so in a finding, or in one error where it died of time or memory.
    """

    def judge(file: Path, draw: Random) -> str:
        target = "rtx-4090" if not draw.randrange(8) else None
        try:
            report = ask(file, target, confirm="rtx", compiler=compiler)
        except (InputError, CompilerDied) as error:
            return type(error).__name__
        json.dumps(report.to_dict())
        json.dumps(to_sarif(report))
        to_junit(report)
        told = report.confirmation
        assert told is not None
        if any(refused.stage == "crash" for refused in told.refused):
            return "their process died"
        return "built" if told.built else "accepted" if told.parsed else "refused"

    return judge


def fuzz(
    count: int, seed: int, folder: Path, judged: Callable[[Path, Random], str] = judge
) -> Counter[str]:
    """Judge ``count`` damaged models; the same seed gives the same ones."""
    draw = Random(seed)
    sources = [case.bad().SerializeToString() for case in CASES]
    sources += [case.good().SerializeToString() for case in CASES]
    outcomes: Counter[str] = Counter()
    file = folder / "damaged.onnx"
    for index in range(count):
        file.write_bytes(mutated(draw.choice(sources), draw))
        try:
            outcomes[judged(file, draw)] += 1
        except BaseException:
            kept = folder / f"crash-{seed}-{index}.onnx"
            file.replace(kept)
            sys.stderr.write(f"seed {seed}, model {index}: kept as {kept}\n")
            raise
    return outcomes
