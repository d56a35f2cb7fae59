"""The data flow within a part: names, tuples, chains of unary operations, norms, depth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.qat import own_code as own
from tests.qat.placement.planned import Forward, Planned, in_parts, net, two
from tests.qat.test_placement_rules import IMAGE, conv
from trt_qat.qat.placement.kinds import Kind
from trt_qat.qat.placement.scales import ScaleGroups

# Names


def path_of(model: nn.Module, name: str, x: Tensor = IMAGE) -> list[str]:
    return [v.path for v in Planned(model, x).flow.vertices if v.node.name.startswith(name)]


def test_operations_are_named_by_their_place() -> None:
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.inner = conv(), Inner()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.inner(self.a(x)) + 1
            return y

    model = net(lambda m, x: torch.tanh(m.block(x)), block=Block())
    assert path_of(model, "block_a") == ["block.a"]
    assert path_of(model, "relu") == ["block.inner.relu"]
    assert path_of(model, "add") == ["block.add"]
    assert path_of(model, "tanh") == ["tanh"]
    made = in_parts(lambda m, x: m.p(x), p=Block())
    named = {v.node.name: v.path for v in made.flow.vertices}
    assert named["relu"] == "p.inner.relu"
    assert named["add"] == "p.add"
    assert named["a"] == "p.a"


def test_the_product_of_a_layers_own_code_has_the_layers_name() -> None:
    assert path_of(two(lambda m, x: m.s(x), s=own.StandardizedConv(16, 16, 3)), "conv2d") == ["s"]
    made = in_parts(lambda m, x: m.p(x), p=nn.Sequential(conv(), own.StandardizedConv(16, 16, 3)))
    assert "p.1" in [v.path for v in made.flow.of(Kind.WEIGHTED)]


def test_several_products_have_the_names_of_their_parameters() -> None:
    rows = torch.randn(2, 4, 32)
    attention = nn.MultiheadAttention(32, 2, batch_first=True)
    model = net(lambda m, x: m.att(x, x, x, need_weights=False)[0], att=attention)
    assert sorted(v.path for v in Planned(model, rows).flow.of(Kind.WEIGHTED)) == [
        "att.in_proj", "att.out_proj",
    ]  # fmt: skip
    wide = nn.MultiheadAttention(32, 2, batch_first=True, kdim=16, vdim=16)
    model = net(lambda m, x: m.att(x, x[..., :16], x[..., :16], need_weights=False)[0], att=wide)
    assert sorted(v.path for v in Planned(model, rows).flow.of(Kind.WEIGHTED)) == [
        "att.k_proj", "att.out_proj", "att.q_proj", "att.v_proj",
    ]  # fmt: skip

    class Twice(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(F.linear(x, self.weight), F.normalize(self.weight))

    model = net(lambda m, x: m.twice(x), twice=Twice(32, 32))
    assert [v.path for v in Planned(model, rows).flow.of(Kind.WEIGHTED)] == [
        "twice", "twice.linear_1",
    ]  # fmt: skip


# Tuples, chains, norms


def test_members_of_a_chunk_are_slices_and_others_come_out_of_float_operations() -> None:
    made = Planned(two(lambda m, x: (lambda h: torch.cat([h[1], h[0]], 1))(x.chunk(2, 1))))
    assert made.kind("chunk") is Kind.META
    assert made.kind("getitem") is Kind.COMMUTE
    assert made.pairs == "a>getitem a>getitem_1 x>a [cat>b]"
    made = Planned(net(lambda m, x: m.b(m.a(x).topk(16, 1)[0]), a=conv(), b=conv()))
    assert made.kind("getitem") is Kind.FLOAT

    def whole_too(m: Any, x: Tensor) -> Any:
        halves = m.a(x).chunk(2, 1)
        return m.b(halves[0]), halves

    made = Planned(net(whole_too, a=conv(16, 32), b=conv()))
    assert made.kind("chunk") is Kind.COMMUTE
    model = net(lambda m, x: m.b(x) + m.w.chunk(2)[0] + x.shape[1], b=conv())
    model.register_parameter("w", nn.Parameter(torch.ones(2, 1, 1)))
    made = Planned(model)
    assert made.kind("chunk") is Kind.CONSTANT
    assert made.kind("add") is Kind.POINTWISE


def test_unary_operations_that_meet_again_are_one() -> None:
    def kinds(forward: Forward) -> dict[str, Kind]:
        made = Planned(net(forward, a=conv(), b=conv(), c=conv()))
        return {v.node.name: v.kind for v in made.flow.vertices}

    mish = kinds(lambda m, x: m.b((lambda y: y * torch.tanh(F.softplus(y)))(m.a(x))))
    assert (mish["mul"], mish["tanh"], mish["softplus"]) == (Kind.POINTWISE, Kind.META, Kind.META)
    nested = kinds(lambda m, x: m.b((lambda y: (lambda z: z + z.sigmoid())(y * y.tanh()))(m.a(x))))
    assert [nested[n] for n in ("add", "sigmoid", "mul", "tanh")] == [
        Kind.POINTWISE, Kind.META, Kind.META, Kind.META,
    ]  # fmt: skip
    apart = kinds(lambda m, x: m.b(m.a(x) * torch.tanh(m.c(x))))
    assert (apart["mul"], apart["tanh"]) == (Kind.MUL, Kind.POINTWISE)
    read = kinds(lambda m, x: (lambda y: (m.b(y * F.relu(y.tanh())), y.tanh()))(m.a(x)))
    assert read["mul"] is Kind.POINTWISE

    def inner_read(m: Any, x: Tensor) -> Any:
        y = m.a(x)
        gate = torch.tanh(F.softplus(y))
        return m.b(y * gate) + gate

    assert kinds(inner_read)["mul"] is Kind.MUL


def test_other_readers_of_what_they_start_from_stay() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        y = m.a(x)
        return m.b(y * torch.sigmoid(y)) + m.c(y)

    made = Planned(net(forward, a=conv(), b=conv(), c=conv()))
    (a,) = (v for v in made.flow.vertices if v.node.name == "a")
    assert [u.node.name for u in a.users] == ["c", "mul"]
    assert made.pairs == "a>c mul>b x>a"


@pytest.mark.parametrize(
    ("forward", "kind"),
    [
        (lambda m, x: m.n(m.a(x)), Kind.BATCH_NORM),
        (lambda m, x: m.n(F.conv2d(x, m.a.weight)), Kind.BATCH_NORM),
        (lambda m, x: m.n(F.relu(m.a(x))), Kind.POINTWISE),
        (lambda m, x: m.n(x), Kind.POINTWISE),
        (lambda m, x: (lambda y: (m.n(y), y))(m.a(x)), Kind.POINTWISE),
        (lambda m, x: m.n(m.hooked(x)), Kind.POINTWISE),
    ],
)
def test_a_norm_is_one_of_a_layer_that_it_alone_reads(forward: Forward, kind: Kind) -> None:
    hooked = conv()
    hooked.register_forward_hook(lambda *_: None)
    model = net(forward, a=conv(), n=nn.BatchNorm2d(16), hooked=hooked)
    made = Planned(model)
    assert made.kind("n") is kind


def test_depth_counts_the_layers_of_the_longest_way() -> None:
    model = net(lambda m, x: m.b(F.relu(m.a(x))) + m.c(x), a=conv(), b=conv(), c=conv())
    depths = {v.node.name: v.depth for v in Planned(model).flow.vertices}
    assert depths == {"x": 0, "a": 1, "relu": 1, "b": 2, "c": 1, "add": 2, "output": 2}


def test_constants_read_no_activations() -> None:
    model = net(lambda m, x: m.b(x) * torch.full_like(x, 2.0) + x.shape[1], b=conv())
    made = Planned(model)
    (like,) = (v for v in made.flow.vertices if v.node.name == "full_like")
    (x,) = made.flow.of(Kind.INPUT)
    assert not like.inputs
    assert [u.node.name for u in x.users] == ["b"]


def test_scale_groups_join_and_keep_the_first_representative() -> None:
    made = Planned(two(lambda m, x: x))
    a, b, c, d = made.flow.vertices[:4]
    groups = ScaleGroups()
    groups.join(a, b)
    groups.join(c, d)
    assert groups.group(b) is a
    assert groups.group(d) is not groups.group(b)
    groups.join(b, d)
    groups.join(d, a)
    assert {groups.group(v) for v in (a, b, c, d)} == {a}
