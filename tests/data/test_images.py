"""One image file, at its own range and the right way up."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trt_qat.data import load
from trt_qat.data.images import read_image
from trt_qat.errors import DataError
from trt_qat.recipe.specs import CalibrationSpec, DataSpec

DEEP = np.asarray([[0, 300, 4660], [32768, 65534, 65535]], np.uint16)


def saved(path: Path, array: Any, **options: Any) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_of_grey_are_divided_by_65535(tmp_path: Path, name: str) -> None:
    found = read_image(saved(tmp_path / name, DEEP))
    assert found.shape == (1, 2, 3)
    np.testing.assert_allclose(found[0], DEEP / 65535, rtol=1e-6)


def test_a_compressed_tiff_of_16_bits_too(tmp_path: Path) -> None:
    found = read_image(saved(tmp_path / "a.tif", DEEP, compression="tiff_deflate"))
    np.testing.assert_allclose(found[0], DEEP / 65535, rtol=1e-6)


def test_a_portable_graymap_of_16_bits_too(tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 3 2 65535\n" + DEEP.astype(">u2").tobytes())
    np.testing.assert_allclose(read_image(path)[0], DEEP / 65535, rtol=1e-6)


def test_floats_are_taken_as_they_are(tmp_path: Path) -> None:
    values = np.asarray([[-1.5, 0.25], [0.5, 300.0]], np.float32)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.tif", values))[0], values)


def test_floats_that_are_no_numbers_are_refused_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", np.asarray([[1.0, np.nan]], np.float32))
    with pytest.raises(DataError, match=r"a\.tif: holds NaN"):
        read_image(path)


def test_8_bits_are_divided_by_255(tmp_path: Path) -> None:
    colours = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    found = read_image(saved(tmp_path / "a.png", colours))
    np.testing.assert_allclose(found, colours.transpose(2, 0, 1) / 255, rtol=1e-6)


def test_grey_is_repeated_where_three_channels_are_asked_for(tmp_path: Path) -> None:
    found = read_image(saved(tmp_path / "a.png", DEEP), channels=3)
    assert found.shape == (3, 2, 3)
    np.testing.assert_array_equal(found[0], found[2])


def test_16_bits_are_resized_without_being_cut_to_8(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16)
    found = read_image(saved(tmp_path / "a.png", ramp), size=8)
    assert found.shape == (1, 8, 8)
    assert 0 < found.max() < 1 / 255
    assert len(np.unique(found)) > 32


@pytest.mark.parametrize("turn", [3, 6, 8])
def test_the_camera_s_orientation_is_applied(tmp_path: Path, turn: int) -> None:
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40)
    exif = image.getexif()
    exif[0x0112] = turn
    image.save(tmp_path / "a.png", exif=exif)
    quarters = {3: 2, 6: 3, 8: 1}[turn]
    expected = np.rot90(np.asarray(image), quarters) / 255
    np.testing.assert_allclose(read_image(tmp_path / "a.png")[0], expected, rtol=1e-6)


def test_16_bits_a_colour_are_refused_by_name(tmp_path: Path) -> None:
    """Pillow reads the upper eight bits and says nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" + struct.pack(">HHH", 300, 300, 65535))
    content = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(DataError, match=r"a\.png: 16 bits a colour, of which Pillow keeps 8; save"):
        read_image(path)


def test_integers_of_no_known_range_are_refused_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", np.asarray([[1, 100_000]], np.int32))
    with pytest.raises(DataError, match=r"a\.tif: mode 'I' of TIFF, integers of no known range"):
        read_image(path)


def test_grey_whose_zero_is_white_is_refused_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", DEEP, tiffinfo={262: 0})
    if Image.open(path).tag_v2.get(262) != 0:  # type: ignore[attr-defined]
        pytest.skip("this Pillow writes its own")
    with pytest.raises(DataError, match="its zero is white"):
        read_image(path)


def test_an_image_too_large_to_be_meant_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a.png", DEEP)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    with pytest.raises(DataError, match=r"a\.png: cannot be read as an image \(Image size"):
        read_image(path)


def test_a_folder_of_16_bit_images_keeps_dark_and_light_apart(tmp_path: Path) -> None:
    for label, level in enumerate((300, 65535)):
        (tmp_path / "images" / str(label)).mkdir(parents=True)
        for index in range(20):
            deep = np.full((4, 4), level - index, np.uint16)
            saved(tmp_path / "images" / str(label) / f"{index}.png", deep)
    spec = DataSpec(source="images")
    data = load(spec, CalibrationSpec(samples=4), tmp_path)
    assert data.train.images[data.train.labels == 0].max() < 0.01
    assert data.train.images[data.train.labels == 1].min() > 0.99
