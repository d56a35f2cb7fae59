"""INT8 and FP16 in a row: which is better by both measures, or that they disagree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engine.aot.rtx import needs_rtx
from tests.graph.build import Builder, int8_chain
from tests.runs import command_line
from trt_qat.engine.build.build import build
from trt_qat.engine.evidence.sides import better, moved, sentence
from trt_qat.recipe.specs import BuildSpec


def traffic(kernels: int, size: int | None) -> dict[str, int | None]:
    return {"kernels": kernels, "bytes_read": size, "bytes_written": 0, "bytes_constants": 0}


@pytest.mark.parametrize(
    ("int8", "fp16", "wanted"),
    [
        ((5, 900), (3, 400), "fp16"),
        ((5, 900), (5, 400), "fp16"),
        ((3, 400), (5, 900), "int8"),
        ((5, 400), (3, 900), None),
        ((5, 400), (5, 400), None),
        ((5, None), (3, 400), None),
    ],
)
def test_the_better_one_has_both_measures_on_its_side(
    int8: tuple[int, int | None], fp16: tuple[int, int | None], wanted: str | None
) -> None:
    assert better(traffic(*int8), traffic(*fp16)) == wanted


def test_weights_count_among_what_is_moved() -> None:
    assert moved({**traffic(1, 100), "bytes_constants": 50}) == 150
    assert moved(traffic(1, None)) is None


def test_both_measures_of_both_are_told() -> None:
    sides = {"int8": traffic(5, 9_000_000), "fp16": traffic(3, 4_000_000), "better": "fp16"}
    assert sentence(sides) == (
        "INT8 5 kernels that move 9 MB; FP16 3 kernels that move 4 MB: "
        "by both measures FP16 is the better engine here"
    )
    assert sentence(sides | {"better": None}).endswith("the measures disagree: time both")
    assert sentence({"fp16": None, "why": "no Q/DQ"}) == "not set against FP16: no Q/DQ"


@needs_rtx
def test_a_build_says_it_and_two_builds_are_set_against_each_other(tmp_path: Path) -> None:
    onnx = tmp_path / "int8.onnx"
    onnx.write_bytes(int8_chain().model("out_dq_out").SerializeToString())
    spec = BuildSpec(batch=(1, 8, 8))
    made = build(onnx, tmp_path / "a.engine", target="rtx-4090", spec=spec, backend="rtx")
    sides = made.layers["against_fp16"]
    assert sides["int8"] == made.layers["traffic"]
    assert sides["better"] == "fp16"
    assert sides["why"] == ""
    b = Builder()
    x = b.conv(b.input("x", ["N", 16, 8, 8]), (16, 16), "first", quantized=False, relu=True)
    x = b.conv(x, (16, 16), "second", quantized=False, relu=True)
    (tmp_path / "float.onnx").write_bytes(b.model(x).SerializeToString())
    plain = build(
        tmp_path / "float.onnx", tmp_path / "b.engine", target="rtx-4090", spec=spec, backend="rtx"
    )
    assert "against_fp16" not in plain.layers
    assert plain.layers["traffic"]["kernels"] == sides["fp16"]["kernels"]
    both: list[str | Path] = [tmp_path / "a.layers.json", "--diff", tmp_path / "b.layers.json"]
    document = json.loads(command_line("inspect", *both, "--json").stdout)
    assert document["traffic"] == [made.layers["traffic"], plain.layers["traffic"]]
    shown = command_line("inspect", *both).stdout
    assert "kernels that run" in shown
    assert "MB moved" in shown


@needs_rtx
def test_without_pairs_to_take_out_or_where_it_is_switched_off_nothing_is_set_against(
    tmp_path: Path,
) -> None:
    b = Builder()
    w = b.dequantize(b.quantize(b.float_weight("w", (16, 16, 3, 3)), 0.02, name="wq"), 0.02)
    x = b.node("Conv", b.input("x", [1, 16, 8, 8]), w, name="conv")
    onnx = tmp_path / "weights.onnx"
    onnx.write_bytes(b.model(x).SerializeToString())
    made = build(onnx, tmp_path / "m.engine", backend="rtx")
    assert made.layers["against_fp16"]["fp16"] is None
    assert "no Q/DQ on activations" in made.layers["against_fp16"]["why"]
    off = build(onnx, tmp_path / "m.engine", backend="rtx", spec=BuildSpec(compare_fp16=False))
    assert "against_fp16" not in off.layers
