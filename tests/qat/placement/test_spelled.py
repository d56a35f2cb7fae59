"""What each operation is to the rules, whatever its spelling."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.qat.placement.planned import Forward, Planned, net, two
from tests.qat.test_placement_rules import IMAGE, conv
from trt_qat.qat import placement
from trt_qat.qat.placement.kinds import Kind

SPELLED: tuple[tuple[Forward, Kind], ...] = (
    (lambda m, x: F.relu(x), Kind.POINTWISE),
    (lambda m, x: x.clamp(0, 6), Kind.POINTWISE),
    (lambda m, x: x + 1, Kind.POINTWISE),
    (lambda m, x: x * m.scale, Kind.POINTWISE),
    (lambda m, x: x - 1, Kind.POINTWISE),
    (lambda m, x: x + m.other(x), Kind.ADD),
    (lambda m, x: torch.add(x, m.other(x), alpha=2), Kind.ADD),
    (lambda m, x: x * m.other(x), Kind.MUL),
    (lambda m, x: x - m.other(x), Kind.DIFFERENCE),
    (lambda m, x: x / m.other(x), Kind.DIFFERENCE),
    (lambda m, x: x + x, Kind.POINTWISE),
    (lambda m, x: torch.cat([x, m.other(x)]), Kind.CONCAT),
    (lambda m, x: x.flatten(1), Kind.COMMUTE),
    (lambda m, x: F.interpolate(x, scale_factor=2), Kind.COMMUTE),
    (lambda m, x: F.interpolate(x, scale_factor=2, mode="nearest"), Kind.COMMUTE),
    (lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear"), Kind.AVERAGE),
    (lambda m, x: m.up(x), Kind.COMMUTE),
    (lambda m, x: m.smooth(x), Kind.AVERAGE),
    (lambda m, x: F.pad(x, (1, 1)), Kind.COMMUTE),
    (lambda m, x: F.pad(x, (1, 1), "constant", 0.0), Kind.COMMUTE),
    (lambda m, x: F.pad(x, (1, 1), value=2.0), Kind.FLOAT),
    (lambda m, x: F.pad(x, (1, 1, 1, 1), "reflect"), Kind.FLOAT),
    (lambda m, x: x.mean((2, 3)), Kind.AVERAGE),
    (lambda m, x: F.softmax(x, 1), Kind.FLOAT),
    (lambda m, x: x @ m.other(x), Kind.MATMUL),
    (lambda m, x: x @ m.matrix, Kind.WEIGHTED),
    (lambda m, x: m.matrix @ x, Kind.FLOAT),
    (lambda m, x: F.conv2d(x, m.kernel), Kind.WEIGHTED),
    (lambda m, x: F.linear(x, m.matrix), Kind.WEIGHTED),
    (lambda m, x: F.linear(x, F.normalize(m.matrix)), Kind.WEIGHTED),
    (lambda m, x: m.norm(x), Kind.POINTWISE),
    (lambda m, x: m.norm(m.other(x)), Kind.BATCH_NORM),
    (lambda m, x: m.of_batch(m.other(x)), Kind.FLOAT),
    (lambda m, x: F.batch_norm(m.other(x), m.mean, m.var), Kind.BATCH_NORM),
    (lambda m, x: F.batch_norm(m.other(x), None, None, training=True), Kind.FLOAT),
    (lambda m, x: F.batch_norm(m.other(x), m.mean, m.var, training=True), Kind.FLOAT),
    (lambda m, x: x.topk(2, 1)[0], Kind.FLOAT),
    (lambda m, x: x.chunk(2, 1)[1], Kind.COMMUTE),
)


@pytest.mark.parametrize(("forward", "kind"), SPELLED)
def test_what_an_operation_is_to_the_rules(forward: Forward, kind: Kind) -> None:
    parts = {"other": conv(16, 16), "up": nn.Upsample(scale_factor=2), "norm": nn.BatchNorm2d(16),
             "smooth": nn.Upsample(scale_factor=2, mode="bilinear"),
             "of_batch": nn.BatchNorm2d(16, track_running_stats=False)}  # fmt: skip
    model = net(forward, **parts)
    model.register_parameter("scale", nn.Parameter(torch.ones(16, 1, 1)))
    model.register_parameter("matrix", nn.Parameter(torch.ones(8, 8)))
    model.register_parameter("kernel", nn.Parameter(torch.ones(4, 16, 3, 3)))
    model.register_buffer("mean", torch.zeros(16))
    model.register_buffer("var", torch.ones(16))
    flow = placement.build_flow(placement.trace(model, IMAGE))
    *_, last, output = (v for v in flow.vertices if v.kind not in (Kind.CONSTANT, Kind.META))
    assert output.kind is Kind.OUTPUT
    assert last.kind is kind


def test_an_operation_on_sizes_alone_carries_no_activation() -> None:
    model = two(lambda m, x: x.reshape(x.size(0), x.shape[1], -1, x.size(3)))
    planned = Planned(model)
    assert planned.kind("size") is Kind.META
    assert planned.pairs == "a>reshape x>a [reshape>b]"
