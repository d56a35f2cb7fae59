"""Which targets TensorRT for RTX compiles for."""

from __future__ import annotations

import pytest

from tests.engine.api import surface
from trt_qat import targets
from trt_qat.engine.aot import capability
from trt_qat.errors import InputError


@pytest.mark.parametrize(
    ("target", "member"),
    [("t4", "SM75"), ("a100", "SM80"), ("a30", "SM80"), ("a10", "SM86"), ("rtx-3090", "SM86"),
     ("l4", "SM89"), ("l40s", "SM89"), ("rtx-4090", "SM89"), ("rtx-5090", "SM120")],
)  # fmt: skip
def test_a_target_has_a_compute_capability(target: str, member: str) -> None:
    assert capability.of_targets([target]) == [member]


def test_every_member_is_one_of_the_compiler() -> None:
    members = set(surface("rtx-1.7.1")["ComputeCapability"] or ())
    assert {capability.member(sm) for sm in capability.KNOWN} == {
        name for name in members if name.startswith("SM")
    }


@pytest.mark.parametrize(
    ("target", "sm"),
    [("orin-agx", "8.7"), ("thor", "11.0"), ("h100", "9.0"), ("h200", "9.0"), ("b200", "10.0")],
)
def test_a_target_that_it_does_not_know_is_refused_by_name(target: str, sm: str) -> None:
    with pytest.raises(InputError, match=rf"{target}: .* has no compute capability {sm} \(.*it k"):
        capability.of_targets([target])


def test_a_dla_is_refused() -> None:
    with pytest.raises(InputError, match=r"orin-agx-dla: .* not for a DLA"):
        capability.of_targets(["orin-agx-dla"])


def test_every_target_is_either_known_or_refused_with_a_reason() -> None:
    for target in targets.TARGETS.values():
        assert (target.sm in capability.KNOWN) == (capability.why_not(target) is None)


def test_several_targets_share_a_plan_but_turing_shares_none() -> None:
    assert capability.of_targets(["rtx-5090", "l4", "rtx-4090"]) == ["SM89", "SM120"]
    with pytest.raises(InputError, match=r"t4 cannot share a plan.*7\.5"):
        capability.of_targets(["rtx-4090", "t4"])
