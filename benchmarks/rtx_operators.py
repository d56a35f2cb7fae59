"""Which element types NVIDIA's own parser takes in at each operator, asked one by one.

    python benchmarks/rtx_operators.py [--only OP] [--out FILE]

For each operator of ONNX the node tests that the parser of TensorRT for RTX takes as they are, with
every input but those of the varied type made a constant; then the same models with each element
type that ONNX allows there, and where one is refused once more with all that has the old type in
it. One form that is taken is enough. The answers are the measured half of the table in
``trt_qat/lint/operators.py``; ``tests/lint/test_operators.py`` compares the two. Needs pillow.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, defs, numpy_helper

from trt_qat.artifact import platform_facts, versions, write_json
from trt_qat.engine.aot import load
from trt_qat.engine.aot.child import Compiler
from trt_qat.errors import CompilerDied

RESULT = Path(__file__).parent / "results" / "cpu" / "rtx_operators.json"
STANDARD = ("", "ai.onnx")
ONE_OUTPUT = ("LayerNormalization",)  # the others are refused, whatever their types (QDQ024)
VARIADIC = ("Concat", "Max", "Mean", "Min", "Sum")
TYPES = {
    "tensor(float)": TensorProto.FLOAT,
    "tensor(float16)": TensorProto.FLOAT16,
    "tensor(bfloat16)": TensorProto.BFLOAT16,
    "tensor(double)": TensorProto.DOUBLE,
    "tensor(int32)": TensorProto.INT32,
    "tensor(int64)": TensorProto.INT64,
    "tensor(int8)": TensorProto.INT8,
    "tensor(uint8)": TensorProto.UINT8,
    "tensor(bool)": TensorProto.BOOL,
}


class Asked:
    """The parser, with a folder for the models that it is asked about."""

    def __init__(self, compiler: Compiler, folder: Path) -> None:
        self._compiler = compiler
        self._path = folder / "model.onnx"

    def refusal(self, model: onnx.ModelProto) -> str:
        """Return the parser's words where it refuses a model, else nothing."""
        onnx.save(model, self._path)
        try:
            answer = self._compiler.parse(self._path)
        except CompilerDied as error:
            return str(error).replace(str(self._path), "model.onnx")
        if answer.parsed:
            return ""
        return answer.refusals[0].text.splitlines()[-1] if answer.refusals else "refused"


def cases() -> Iterator[tuple[onnx.ModelProto, Mapping[str, Any]]]:
    """Yield the node tests of a single standard operator, and the values of their inputs."""
    from onnx.backend.test.case import node

    for case in node.collect_testcases(None):
        model = case.model
        if model is None or model.functions or len(model.graph.node) != 1:
            continue
        if model.graph.node[0].op_type in VARIADIC and len(model.graph.node[0].input) == 1:
            continue  # of one tensor they are an Identity
        if model.graph.node[0].domain in STANDARD and model.graph.node[0].input:
            if model.graph.node[0].op_type in ONE_OUTPUT:
                model.graph.node[0].output[:] = model.graph.node[0].output[:1]
                del model.graph.output[1:]
            names = [value.name for value in model.graph.input]
            values = case.data_sets[0][0] if case.data_sets else []
            yield model, dict(zip(names, values, strict=False))


def variables(model: onnx.ModelProto) -> dict[str, tuple[int, list[str]]]:
    """Return the type variables of the operator's inputs: where first used, and what is allowed."""
    node = model.graph.node[0]
    opset = next(each.version for each in model.opset_import if each.domain in STANDARD)
    schema = defs.get_schema(node.op_type, opset, "")
    allowed = {each.type_param_str: each.allowed_type_strs for each in schema.type_constraints}
    found: dict[str, tuple[int, list[str]]] = {}
    for position, name in enumerate(node.input):
        variable = schema.inputs[min(position, len(schema.inputs) - 1)].type_str
        if name and variable in allowed and variable not in found:
            found[variable] = position, [each for each in allowed[variable] if each in TYPES]
    return found


def tensors_of(model: onnx.ModelProto, variable: str) -> set[str]:
    """Return the inputs and outputs whose type is one type variable of the operator."""
    node = model.graph.node[0]
    opset = next(each.version for each in model.opset_import if each.domain in STANDARD)
    schema = defs.get_schema(node.op_type, opset, "")
    return {
        name
        for names, formal in ((node.input, schema.inputs), (node.output, schema.outputs))
        for position, name in enumerate(names)
        if formal[min(position, len(formal) - 1)].type_str == variable
    }


def tensors_like(model: onnx.ModelProto, some: set[str]) -> set[str]:
    """Return all inputs and outputs that have the element type of some of them."""
    values = (*model.graph.input, *model.graph.output)
    kinds = {value.type.tensor_type.elem_type for value in values if value.name in some}
    return {value.name for value in values if value.type.tensor_type.elem_type in kinds}


def varied(
    model: onnx.ModelProto, values: Mapping[str, Any], same: set[str], kind: int
) -> onnx.ModelProto:
    """Return a model with some tensors of another type, unless 0, and its other inputs constant."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    kept = []
    for value in made.graph.input:
        if value.name in same:
            value.type.tensor_type.elem_type = kind or value.type.tensor_type.elem_type
        elif hasattr(values.get(value.name), "dtype"):
            array = values[value.name]
            made.graph.initializer.append(numpy_helper.from_array(array, value.name))
            continue
        kept.append(value)
    del made.graph.input[:]
    made.graph.input.extend(kept)
    for value in made.graph.output:
        if value.name in same:
            value.type.tensor_type.elem_type = kind or value.type.tensor_type.elem_type
    return made


def answers(asked: Asked, only: str | None) -> dict[str, dict[str, dict[str, str]]]:
    """Return by operator and position of its input what the parser says to each type."""
    table: dict[str, dict[str, dict[str, str]]] = {}
    for model, values in cases():
        op = model.graph.node[0].op_type
        if only not in (None, op):
            continue
        rows = table.setdefault(op, {})
        for variable, (position, allowed) in variables(model).items():
            own = tensors_of(model, variable)
            if asked.refusal(varied(model, values, own, 0)):
                continue  # for another reason than its types
            row = rows.setdefault(str(position), {})
            for name in allowed:
                for same in (own, tensors_like(model, own)):
                    if row.get(name, "unasked"):
                        row[name] = asked.refusal(varied(model, values, same, TYPES[name]))
    return {op: dict(sorted(rows.items())) for op, rows in sorted(table.items())}


def main() -> None:
    """Ask about every operator and write the answers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder, Compiler() as compiler:
        table = answers(Asked(compiler, Path(folder)), given.only)
    short = {
        op: {
            position: {name[7:-1]: words[:160] for name, words in sorted(row.items())}
            for position, row in rows.items()
        }
        for op, rows in table.items()
    }
    document = {
        "command": "python benchmarks/rtx_operators.py",
        "machine": platform_facts(),
        "versions": {**versions(), "tensorrt-rtx": load.version()},
        "operators": short,
    }
    write_json(given.out, document)
    taken = sum(
        any(not w for row in rows.values() for w in row.values()) for rows in short.values()
    )
    print(f"{len(short)} operators, {taken} of them taken in at least one type")


if __name__ == "__main__":
    main()
