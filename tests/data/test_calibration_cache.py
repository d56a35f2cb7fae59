"""TensorRT's calibration caches: read to the digit, written so that it reads them back."""

from __future__ import annotations

from pathlib import Path

import pytest

from trt_qat.data import calibration_cache
from trt_qat.data.calibration_cache import CalibrationCache, hexadecimal, packed, parse, unpacked
from trt_qat.data.ranges import Ranges
from trt_qat.errors import DataError, InputError

OLD = """\
TRT-8401-EntropyCalibration2
input: 3caa54fc
371: 3caa54fc
(Unnamed Layer* 64) [Shuffle]_output: 0
366: 0
scope:name/with: colons: 3c010204
"""


def test_scales_are_big_endian_float32() -> None:
    cache = parse(OLD)
    assert cache.scales["input"] == pytest.approx(0.0207925, rel=1e-5)
    # 3c010204 is 1/127: an input in [0, 1].
    assert cache.amax["scope:name/with: colons"] == pytest.approx(1.0, rel=1e-6)


def test_a_scale_of_0_means_no_range() -> None:
    assert parse(OLD).without == ("(Unnamed Layer* 64) [Shuffle]_output", "366")


@pytest.mark.parametrize(
    ("header", "release", "calibrator"),
    [
        ("TRT-7103-EntropyCalibration2", "7.1.3", "EntropyCalibration2"),
        ("TRT-8502-MinMaxCalibration", "8.5.2", "MinMaxCalibration"),
        ("TRT-8601-EntropyCalibration2", "8.6.1", "EntropyCalibration2"),
        ("TRT-100300-MinMaxCalibration", "10.3.0", "MinMaxCalibration"),
        ("TRT-101401-EntropyCalibration2", "10.14.1", "EntropyCalibration2"),
    ],
)
def test_the_header_tells_release_and_calibrator(
    header: str, release: str, calibrator: str
) -> None:
    cache = parse(f"{header}\r\nx: 3f800000\r\n")
    assert (cache.release, cache.calibrator, cache.scales) == (release, calibrator, {"x": 1.0})
    assert packed(release) == int(header.split("-")[1])
    assert unpacked(str(packed(release))) == release


def test_leading_zeros_may_be_left_out_and_are_not_lost() -> None:
    """A scale below 2^-111 begins with zeros; writers leave them out."""
    assert parse("TRT-8400-EntropyCalibration2\nx: 7fffff\n").scales["x"] > 0
    assert hexadecimal(parse("TRT-8400-EntropyCalibration2\nx: 7fffff\n").scales["x"]) == "7fffff"


def test_it_is_written_as_it_was_read(tmp_path: Path) -> None:
    cache = parse(OLD)
    again = calibration_cache.load(cache.save(tmp_path / "c.cache"))
    assert again == cache
    assert (tmp_path / "c.cache").read_text().startswith("TRT-8401-EntropyCalibration2\ninput: 3c")


def test_it_becomes_the_ranges_of_a_recipe(tmp_path: Path) -> None:
    saved = parse(OLD).ranges().save(tmp_path / "ranges.json")
    ranges = Ranges.load(saved)
    assert ranges.algorithm == "entropy"
    assert ranges.amax["input"] == pytest.approx(127 * 0.0207925, rel=1e-5)
    assert "366" not in ranges.amax


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins ''"),
        ("input: 3caa54fc\n", "begins 'input: 3caa54fc'"),
        ("TRT-8601-EntropyCalibration2\ninput: 3caa54fg\n", "line 2: 'input: 3caa54fg' is no"),
        ("TRT-8601-EntropyCalibration2\ninput: 3caa54fc00\n", "has 10 hexadecimal digits"),
        ("TRT-8601-EntropyCalibration2\ninput:\n", "line 2: 'input:' is no tensor"),
        ("TRT-8601-EntropyCalibration2\ninput: 3caa54fc\nconv1", "line 3: 'conv1' is no tensor"),
        ("TRT-8601-EntropyCalibration2\ninput: 7fc00000\n", "a scale of nan"),
        ("TRT-8601-EntropyCalibration2\ninput: 7f800000\n", "a scale of inf"),
        ("TRT-8601-EntropyCalibration2\ninput: bcaa54fc\n", "finite and not negative"),
        ("TRT-8601-EntropyCalibration2\n", "holds no tensor behind its first line"),
        ("TRT-8601-EntropyCalibration2\na: 3c\na: 3d\n", "'a' stands there twice"),
        ("TRT-8601-EntropyCalibration2\na: 3caa54fc\nb: 3caa", "line 3: 'b' has .* is cut off"),
    ],
)
def test_a_damaged_cache_is_one_sentence_with_its_line(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse(text, "c.cache")


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (OLD, True),
        (
            "TRT-8.6.1-EntropyCalibration2\nx: 3c\n",
            True,
        ),  # its header is no header, and parse says so
        ("input: 3caa54fc\n371: 3caa54fc\n", True),  # its first line was lost
        ("loss: 3\nlr: 4\n", False),
        ("[W] told: deadbeef\n", False),
        ("", False),
    ],
)
def test_a_cache_is_known_by_its_lines(text: str, known: bool) -> None:
    assert calibration_cache.is_cache(text) is known


@pytest.mark.parametrize("release", ["11.0", "eight", "8"])
def test_a_release_without_calibrators_is_refused(release: str) -> None:
    with pytest.raises(InputError, match=release):
        CalibrationCache(release, "EntropyCalibration2", {"x": 1.0}).text()


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), 1e300])
def test_a_scale_that_float32_does_not_hold_is_refused(scale: float) -> None:
    with pytest.raises(InputError, match="cannot stand in a calibration cache"):
        hexadecimal(scale)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_cache_that_an_editor_or_powershell_saved_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "c.cache"
    path.write_bytes(OLD.replace("\n", "\r\n").encode(encoding))
    assert calibration_cache.load(path) == parse(OLD)
