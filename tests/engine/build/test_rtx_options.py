"""What TensorRT for RTX lacks is said before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engine.aot.rtx import needs_rtx
from tests.graph.build import Builder, int8_chain
from trt_qat.engine.aot.options import check
from trt_qat.engine.build.backend import checked
from trt_qat.engine.build.build import build
from trt_qat.engine.build.network_io import read
from trt_qat.errors import CheckFailed, GraphError, InputError
from trt_qat.recipe.specs import BuildSpec


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dla_core": 0}, r"build\.dla_core: TensorRT for RTX lacks it, for it compiles for GPUs"),
        ({"timing_cache_only": True}, r"build\.timing_cache_only: .* nothing is timed"),
        ({"refit": "all"}, r"build\.refit = 'all': TensorRT for RTX lacks it: .* individual does"),
        ({"typing": "weak"}, r"build\.typing = 'weak': TensorRT for RTX has strong typing only"),
    ],
)
def test_options_that_it_lacks_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(BuildSpec(**given))
    check(BuildSpec(refit="individual", typing="strong"))


def test_a_backend_that_is_misspelt_is_corrected() -> None:
    with pytest.raises(
        InputError, match="allowed are auto, tensorrt, rtx; did you mean 'tensorrt'"
    ):
        checked("tensorr")


@needs_rtx
def test_options_that_change_nothing_are_named(tmp_path: Path) -> None:
    path, said = tmp_path / "m.onnx", list[str]()
    path.write_bytes(int8_chain().model("out_dq_out").SerializeToString())
    spec = BuildSpec(batch=(1, 1, 1), optimization_level=2, workspace_mib=256, compare_fp16=False)
    build(path, tmp_path / "m.engine", spec=spec, backend="rtx", say=said.append)
    assert "optimization_level changes nothing in a plan of TensorRT for RTX" in " ".join(said)


@needs_rtx
def test_what_its_parser_refuses_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    b = int8_chain()
    path = tmp_path / "m.onnx"
    path.write_bytes(b.model(b.node("Det", "out_dq_out", name="det")).SerializeToString())
    with pytest.raises(GraphError, match=r"m\.onnx: TensorRT for RTX \S+ cannot import it: .*det"):
        build(path, tmp_path / "m.engine", backend="rtx", preflight=False)
    assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]


def test_what_preflight_calls_an_error_is_not_built(tmp_path: Path) -> None:
    b = Builder()
    x = b.input("x", [1, 16, 8, 8])
    path = tmp_path / "m.onnx"
    y = b.conv(b.qdq(x, zero=3), (16, 16))
    path.write_bytes(b.model(y).SerializeToString())
    pytest.importorskip("tensorrt_rtx_bindings")
    with pytest.raises(
        CheckFailed, match=r"preflight finds \d+ errors? for TensorRT .*; the first"
    ):
        build(path, tmp_path / "m.engine", backend="rtx")
    assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]


def test_an_input_of_text_is_refused(tmp_path: Path) -> None:
    b = Builder()
    out = b.node("Identity", b.input("words", [2], kind=8))
    (tmp_path / "m.onnx").write_bytes(b.model(out, kind=8).SerializeToString())
    with pytest.raises(GraphError, match=r"'words' has a type that no array has; allowed: .*int8"):
        read(tmp_path / "m.onnx")
