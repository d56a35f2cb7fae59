"""Preflight against NVIDIA's own parser on ONNX's node tests: who takes which model.

    python benchmarks/rtx_nodes.py [--limit N] [--out FILE]

The node tests and stored models of the ``onnx`` package (2,033 with onnx 1.23.2; needs pillow) go
to the parser of TensorRT for RTX, and to preflight without it. Operators that TensorRT has as
plugins, which RTX has not, are counted apart.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx

from trt_qat.artifact import platform_facts, versions, write_json
from trt_qat.engine.aot import load
from trt_qat.engine.aot.child import Compiler
from trt_qat.errors import CompilerDied, TrtQatError
from trt_qat.lint.preflight import preflight

RESULT = Path(__file__).parent / "results" / "cpu" / "rtx_nodes.json"


def models(folder: Path) -> Iterator[Path]:
    """Write ONNX's node tests into a folder; yield them and the models that onnx stores."""
    from onnx.backend.test.case import node

    for case in node.collect_testcases(None):
        if case.model is not None:
            path = folder / f"{case.name}.onnx"
            onnx.save(case.model, path)
            yield path
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for pattern in ("pytorch-*/*/model.onnx", "simple/*/model.onnx", "light/*.onnx"):
        yield from sorted(data.glob(pattern))


def theirs(compiler: Compiler, path: Path) -> tuple[str, str]:
    """Return what the parser says of a model, and its words."""
    try:
        answer = compiler.parse(path)
    except CompilerDied as error:
        return "rejects", str(error)
    if answer.parsed:
        return "parses", ""
    text = answer.refusals[0].text if answer.refusals else ""
    return ("plugin" if "lugin" in text else "rejects"), text


def ours(path: Path) -> tuple[str, str]:
    """Return what preflight says of a model, by its rules alone, and by which."""
    try:
        found = preflight(path)
    except TrtQatError:
        return "error", "not readable"
    rules = {finding.rule for finding in found.findings if finding.severity == "error"}
    return ("error" if rules else "clean"), ", ".join(sorted(rules))


def main() -> None:
    """Ask both, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    table: Counter[tuple[str, str]] = Counter()
    missed: Counter[str] = Counter()
    objected: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, Compiler() as compiler:
        for path in list(models(Path(folder)))[: given.limit]:
            verdict, text = theirs(compiler, path)
            mine, rules = ours(path)
            table[verdict, mine] += 1
            if verdict == "rejects" and mine == "clean":
                missed[f"{path.stem}: {text.splitlines()[0][:100]}"] += 1
            if verdict == "parses" and mine == "error":
                objected[f"{path.stem}: {rules}"] += 1
    asked = sum(count for (verdict, _), count in table.items() if verdict != "plugin")
    right = table["parses", "clean"] + table["rejects", "error"]
    document = {
        "command": "python benchmarks/rtx_nodes.py",
        "machine": platform_facts(),
        "versions": {**versions(), "tensorrt-rtx": load.version()},
        "models": sum(table.values()),
        "plugins": sum(count for (verdict, _), count in table.items() if verdict == "plugin"),
        "right": right / asked,
        "false_errors": table["parses", "error"] / asked,
        "table": {f"{verdict}, {mine}": count for (verdict, mine), count in sorted(table.items())},
        "missed": sorted(missed),
        "objected": sorted(objected),
    }
    write_json(given.out, document)
    for row, count in document["table"].items():  # type: ignore[attr-defined]
        print(f"{count:5d}  {row}")
    print(f"right {right / asked:.1%}, false errors {document['false_errors']:.1%}")
    sys.exit(0 if right >= 0.97 * asked else 1)


if __name__ == "__main__":
    main()
