"""Whatever a file holds, reading it ends in a document or in one sentence."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from random import Random
from typing import Any

import onnx
import pytest

from tests.engine.evidence.test_log_layers import LISTED
from tests.engine.evidence.test_plan_header import plan
from tests.engine.evidence.test_times import QAT, latencies, profile_of
from trt_qat.engine.evidence.reading import read
from trt_qat.engine.evidence.trust import inspect_file
from trt_qat.errors import InputError

RECORDED = Path(__file__).parents[2] / "recordings"
CACHE = "TRT-8601-EntropyCalibration2\ninput: 3caa54fc\n371: 3caa54fc\n366: 0\n"
ODD: tuple[Any, ...] = (None, 0, -1, 1.5, "", "x", [], {}, [1], {"Name": 3}, True)


def samples(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in (RECORDED / "layer_info").glob("*.*")}
    found |= {path.name: path.read_bytes()[:40_000] for path in (RECORDED / "rtx").glob("*.log")}
    found["x.log"] = LISTED.encode()
    found["c.cache"] = CACHE.encode()
    found["x.engine"] = plan()
    found["p.json"] = profile_of(QAT, folder / "p.json").read_bytes()[:4000]
    found["t.json"] = latencies(folder / "t.json", 0.4, count=20).read_bytes()
    return found


def damaged(raw: bytes, draw: Random) -> bytes:
    """Return a file cut off, cut short, with flipped bytes, or with its lines out of order."""
    at = draw.randrange(len(raw) + 1)
    flipped = bytearray(raw)
    for _ in range(5):
        flipped[draw.randrange(len(raw))] = draw.randrange(256)
    lines = raw.split(b"\n")
    draw.shuffle(lines)
    return draw.choice([raw[:at], raw[at:], bytes(flipped), b"\n".join(lines[:100])])


def test_a_damaged_file_never_ends_in_a_traceback(tmp_path: Path) -> None:
    draw = Random(0)
    for name, raw in samples(tmp_path).items():
        path = tmp_path / f"damaged{Path(name).suffix}"
        for _ in range(12):
            path.write_bytes(damaged(raw, draw))
            try:
                json.dumps(inspect_file(path))
            except InputError as error:
                assert path.name in str(error)  # noqa: PT017 - either outcome is right


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value[:6])
    found = [path]
    for key, item in inside:
        nested = isinstance(item, (dict, list))
        found += places(item, (*path, key)) if nested else [(*path, key)]
    return found


@pytest.mark.parametrize("name", ["8-detailed.json", "11.json"])
def test_odd_values_in_json_never_end_in_a_traceback(tmp_path: Path, name: str) -> None:
    text = (RECORDED / "layer_info" / name).read_text()
    whole = json.loads(text, strict=False)
    draw, path = Random(0), tmp_path / "odd.json"
    for place in draw.sample(places(whole)[1:], 60):
        copy = json.loads(text, strict=False)
        holder = copy
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = draw.choice(ODD)
        path.write_text(json.dumps(copy))
        try:
            json.dumps(read(path))
        except InputError as error:
            assert "odd.json" in str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        (CACHE, "trt-qat calibration cache 1"),
        (CACHE.replace("\n", "\r\n"), "trt-qat calibration cache 1"),
        ("[W] told\n", "trt-qat layers 1"),
    ],
)
def test_a_file_is_recognised_by_its_content(tmp_path: Path, text: str, schema: str) -> None:
    path = tmp_path / "whatever.txt"
    path.write_bytes(text.encode())
    assert read(path)["schema"] == schema


@pytest.mark.parametrize("text", ["hello\n", "", "a,b\n1,2\n", '"text"', "3", "null"])
def test_what_is_none_of_these_says_what_was_expected(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=r"--exportProfile=FILE or --exportTimes=FILE"):
        read(path)


def test_what_is_compressed_or_empty_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    for content, said in (
        (gzip.compress(LISTED.encode()), "gzip: unpack it first"),
        (b"\n", "an empty file"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=said):
            read(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"Layers": ' + "1" * 6000 + "}", "[]"])
def test_json_that_no_parser_likes_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"x\.json"):
        read(path)


def test_json_that_escapes_nothing_is_read(tmp_path: Path) -> None:
    """trtexec prints names as they are, and a share of 0 ms as ``nan``."""
    path = tmp_path / "p.json"
    row = '{ "name" : "C:\\models\\new", "averageMs" : 1, "percentage" : -nan }'
    path.write_text(f'[ {{ "count" : 1 }}, {row} ]')
    assert read(path)["layers"][0]["name"] == "C:\\models\\new"


@pytest.mark.parametrize("value", ["nan", "-1", "inf"])
def test_times_that_are_none_are_one_sentence(tmp_path: Path, value: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(f'[{{"count": 3}}, {{"name": "conv", "averageMs": {value}}}]')
    with pytest.raises(InputError, match=r"'conv' takes .* ms, so nothing was timed"):
        read(path)


def test_an_onnx_is_sent_to_preflight(tmp_path: Path) -> None:
    tensor = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    same = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([same], "g", [tensor], [onnx.ValueInfoProto(name="y")])
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph), path)
    with pytest.raises(InputError, match="an ONNX model by its first bytes: `trt-qat preflight`"):
        read(path)
