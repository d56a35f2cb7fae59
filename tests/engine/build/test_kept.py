"""``build.keep_fp32`` under weak typing: what is part of an INT8 layer cannot stay FP32."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gpu import net
from tests.graph.build import Builder
from trt_qat.engine.build import network_io
from trt_qat.engine.build.kept import cause_of, refuse_fused
from trt_qat.engine.build.options import resolve
from trt_qat.errors import InputError
from trt_qat.recipe.specs import BuildSpec

V8, V10 = (8, 6), (10, 3)
# As TensorRT 8.6.0 printed it for `net`'s network with keep_fp32 = ("add",).
FAILED = (
    "[E] 2: [optimizer.cpp::filterQDQFormats::4670] Error Code 2: Internal Error (Assertion "
    "!n->candidateRequirements.empty() failed. All of the candidates were removed, which points to "
    "the node being incorrectly marked as an int8 node.)"
)


def refused(path: Path, *names: str, version: tuple[int, int] = V8, **given: object) -> None:
    spec = BuildSpec.model_validate({"keep_fp32": names} | given)
    options = resolve(spec, version, quantized=True)
    refuse_fused(path, spec, options, network_io.read(path), version)


@pytest.mark.parametrize("name", ["add", "relu0", "conv1"])
def test_what_is_fused_with_an_int8_layer_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = net.write_for(V8, tmp_path / "small.onnx")
    layer = "conv0" if name == "relu0" else "conv1"
    message = rf"computes '{name}' inside the INT8 layer of '{layer}'.*leave it out of build\.keep"
    with pytest.raises(InputError, match=message):
        refused(path, name)


def test_a_node_outside_of_int8_layers_stays_fp32(tmp_path: Path) -> None:
    b = Builder()
    y = b.qdq(b.conv(b.qdq(b.input("x", ["N", 16, 8, 8])), (16, 16)))
    path = tmp_path / "m.onnx"
    path.write_bytes(b.model(b.node("Softmax", y, name="softmax")).SerializeToString())
    refused(path, "softmax")
    with pytest.raises(InputError, match="'conv'"):
        refused(path, "softmax", "conv")


def test_strong_typing_and_an_fp32_remainder_keep_anything(tmp_path: Path) -> None:
    path = net.write_for(V8, tmp_path / "small.onnx")
    refused(path, "add", version=V10)
    refused(path, "add", remainder="fp32")
    refused(path)


def test_the_assertion_is_explained_by_the_constraint_where_there_is_one() -> None:
    spec = BuildSpec(keep_fp32=("add",))
    said = cause_of([FAILED], spec, resolve(spec, V8, quantized=True))
    assert "a node of build.keep_fp32 = ['add'] lies between Q/DQ" in said
    assert "Mend: leave it out of build.keep_fp32" in said
    plain = BuildSpec()
    said = cause_of([FAILED], plain, resolve(plain, V8, quantized=True))
    assert "a pair around an operator that TensorRT 8 does not quantize" in said
    assert cause_of(["[I] done"], spec, resolve(spec, V8, quantized=True)) == ""
