"""The text of a graph: deterministic, one node a line, no values."""

from __future__ import annotations

from tests.graph.build import Builder, int8_chain
from trt_qat.graph.text import dump


def test_a_small_graph() -> None:
    b = Builder()
    x = b.qdq(b.input("x", ["N", 16, 8, 8]), name="in")
    model = b.model(b.node("Relu", b.conv(x, (16, 8), kernel=1), name="act"))
    assert dump(model) == (
        "# opset 17\n"
        "input  x: float[N,16,8,8]\n"
        'QuantizeLinear "in_q" (x) -> in_q_out {per-tensor int8}\n'
        'DequantizeLinear "in_dq" (in_q_out) -> in_dq_out {per-tensor int8}\n'
        'DequantizeLinear "conv_dq" (conv_codes: int8[8,16,1,1]) -> conv_dq_out '
        "{axis 0, scales [8] int8}\n"
        'Conv "conv" (in_dq_out, conv_dq_out, conv_bias: float[8]) -> conv_out '
        "{group=1, kernel_shape=[1,1], pads=[0,0,0,0]}\n"
        'Relu "act" (conv_out) -> act_out\n'
        "output act_out: float[...]\n"
    )


def test_values_do_not_appear() -> None:
    one, two = int8_chain(), int8_chain()
    for tensor in two.initializers:
        if tensor.name == "in_q_scale" or tensor.name.endswith("codes"):
            tensor.raw_data = bytes(reversed(tensor.raw_data))
    assert dump(one.model("out_dq_out")) == dump(two.model("out_dq_out"))


def test_zero_points_and_types_appear() -> None:
    one, two = Builder(), Builder()
    texts = [dump(b.model(b.qdq(b.input("x", [1]), 0.1, z))) for b, z in ((one, None), (two, 3))]
    assert texts[0] != texts[1]
