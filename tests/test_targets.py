"""The table of devices holds together, and a name is found or corrected."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.graph.build import int8_chain
from trt_qat.cli.tables.preflight import render_text
from trt_qat.errors import InputError
from trt_qat.lint.preflight import preflight
from trt_qat.targets import TARGETS, Target, max_opset, parse_version, target

_ASKED = (
    "orin-agx orin-nx orin-nano thor xavier-agx xavier-nx t4 a100 a10 a30 l4 l40s "
    "rtx-3090 rtx-4090 rtx-5090 h100 h200 b200"
)


def test_every_promised_device_is_there() -> None:
    assert set(TARGETS) == set(_ASKED.split())


@pytest.mark.parametrize("entry", TARGETS.values(), ids=lambda entry: entry.name)
def test_peaks_are_consistent(entry: Target) -> None:
    """Sparse is twice dense (sheets round to three digits), and INT8 at least twice FP16."""
    for peak in filter(None, (entry.int8, entry.fp16, entry.fp8, entry.fp4)):
        assert (peak.sparse is None) == (not entry.sparse_2_4)
        if peak.sparse is not None:
            assert peak.sparse == pytest.approx(2 * peak.dense, rel=0.04)
    assert entry.int8 is not None
    assert entry.int8.dense >= 1.9 * entry.fp16.dense
    assert (entry.fp8 is not None) == (entry.sm >= (8, 9))
    assert (entry.fp4 is not None) == (entry.sm >= (10, 0))
    assert (entry.dla_cores > 0) == (entry.dla_int8 is not None)
    assert len(entry.source) > 20


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("a100", "a100"),
        ("NVIDIA A100", "a100"),
        ("Jetson AGX Orin", "orin-agx"),
        ("orin_nano", "orin-nano"),
        ("RTX 4090", "rtx-4090"),
        ("4090", "rtx-4090"),
        ("GeForce RTX 5090", "rtx-5090"),
        ("Tesla T4", "t4"),
        ("agx-thor", "thor"),
    ],
)
def test_spellings(spelling: str, name: str) -> None:
    assert target(spelling).name == name


def test_dla_is_a_target_of_its_own() -> None:
    module = target("orin-agx-dla")
    assert module.on_dla
    assert module.name == "orin-agx-dla"
    assert not target("orin-agx").on_dla


@pytest.mark.parametrize("name", ["a1000", "orin", "rtx", "", "thor-dla", "86"])
def test_unknown_target_names_the_nearest(name: str) -> None:
    with pytest.raises(InputError, match=f"unknown target {name!r}; nearest: .+; all: orin-agx, "):
        target(name)


def test_versions() -> None:
    assert parse_version("10.16.1") == (10, 16)
    assert parse_version("11") == (11, 0)
    newest = [max_opset(v) for v in ((8, 2), (8, 6), (10, 3), (10, 16), (11, 4))]
    assert newest == [13, 17, 20, 24, 25]
    assert parse_version("8.5.2") == (8, 5)
    with pytest.raises(InputError, match=r"older than 8\.0"):
        parse_version("7.2")
    with pytest.raises(InputError, match="is no TensorRT version"):
        parse_version("latest")


def test_jetson_ends_before_tensorrt_11() -> None:
    assert target("orin-nx").supports((10, 3))
    assert not target("orin-nx").supports((11, 3))
    assert not target("b200").supports((10, 3))


@pytest.mark.parametrize(
    ("spelling", "name", "sm"),
    [
        ("sm_86", "sm_86", (8, 6)),
        ("sm86", "sm_86", (8, 6)),
        ("8.9", "sm_89", (8, 9)),
        ("compute_75", "sm_75", (7, 5)),
        ("SM_120", "sm_120", (12, 0)),
        ("sm_90a", "sm_90", (9, 0)),
        ("Xavier", "xavier", (7, 2)),
        ("RTX 2080 Ti", "rtx-2080-ti", (7, 5)),
        ("NVIDIA GeForce RTX 3060 Laptop GPU", "nvidia-geforce-rtx-3060-laptop-gpu", (8, 6)),
        ("rtx-4070-super", "rtx-4070-super", (8, 9)),
        ("RTX 5070", "rtx-5070", (12, 0)),
        ("A40", "a40", (8, 6)),
        ("RTX A4000", "rtx-a4000", (8, 6)),
        ("A6000", "a6000", (8, 6)),
        ("RTX 6000 Ada", "rtx-6000-ada", (8, 9)),
        ("NVIDIA A100-SXM4-40GB", "nvidia-a100-sxm4-40gb", (8, 0)),
    ],
)
def test_a_capability_or_a_product_is_a_target_without_a_roofline(
    spelling: str, name: str, sm: tuple[int, int]
) -> None:
    found = target(spelling)
    assert (found.name, found.sm, found.rated) == (name, sm, False)
    assert found.int8 is not None
    assert preflight(int8_chain().model("out_dq_out"), spelling).roofline is None


@pytest.mark.parametrize("name", ["V100", "GTX 1080 Ti", "gtx-1650", "Quadro T2000", "P4", "sm_61"])
def test_devices_without_int8_cores(name: str) -> None:
    assert target(name).int8 is None


def test_a_capability_that_no_tensorrt_knows() -> None:
    with pytest.raises(InputError, match=r"knows no compute capability 8\.8; known: sm_50, "):
        target("sm_88")


def test_old_devices_end_where_their_support_ended() -> None:
    assert target("xavier-nx").supports((8, 5))
    assert not target("xavier-nx").supports((10, 3))
    assert target("v100").supports((10, 4))
    assert not target("v100").supports((10, 5))
    assert not target("GTX 1080").supports((10, 0))
    assert not target("l4").supports((8, 4))


def test_a_roofline_says_when_its_peaks_are_not_confirmed() -> None:
    model = int8_chain().model("out_dq_out")
    texts = {}
    for name in ("a100", "rtx-5090"):
        out = io.StringIO()
        report = preflight(model, name)
        render_text(report, Console(file=out, width=400))
        texts[name] = out.getvalue()
        assert report.to_dict()["roofline"]["peaks_confirmed"] == TARGETS[name].confirmed
    assert "not confirmed" not in texts["a100"]
    assert "the peaks of this device are not confirmed" in texts["rtx-5090"]
