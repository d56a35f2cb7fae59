"""Reading one image file at its own range: 8 or 16 bits, or floats, turned as its camera says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.errors import BackendUnavailable, DataError

Pixels = NDArray[np.float32]

_DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
_WHITE_IS_ZERO, _PHOTOMETRIC = 0, 262
_DEEP_COLOURS = (";16B", ";16L", ";16N")


def read_image(path: Path, *, channels: int | None = None, size: int | None = None) -> Pixels:
    """Return an image as ``(C, H, W) float32``.

    8 bits become [0, 1] by 255 and 16 bits by 65,535; floats are taken as they are. The EXIF
    orientation is applied. Images of one channel, 16-bit and float ones among them, stay so unless
    three are asked for.

    Args:
        path: of the file.
        channels: 1 or 3; None: as in the file.
        size: pixels; resized to ``size`` x ``size``, bilinearly.

    Raises:
        DataError: the file is no image, or one that cannot be read at its range.
        BackendUnavailable: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        message = "a folder of images needs pillow: pip install 'trt-qat[train]'"
        raise BackendUnavailable(message) from error
    try:
        with Image.open(path) as opened:
            divisor = _divisor(path, opened)  # before its pixels are read, and the raw mode is gone
            turned = ImageOps.exif_transpose(opened)
            if divisor is None:
                gray = channels == 1 or (channels is None and turned.mode in ("1", "L"))
                image, divisor = turned.convert("L" if gray else "RGB"), 255.0
            else:
                image = Image.fromarray(np.asarray(turned).astype(np.float32))
            if size is not None:
                image = image.resize((size, size), Image.Resampling.BILINEAR)
            pixels: Pixels = np.asarray(image, dtype=np.float32) / np.float32(divisor)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        message = f"{path}: cannot be read as an image ({error})"
        raise DataError(message) from error
    if not np.isfinite(pixels).all():
        message = f"{path}: holds NaN or infinity; every pixel must be finite"
        raise DataError(message)
    if pixels.ndim == 3:
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return np.repeat(pixels[None], channels or 1, axis=0)


def _divisor(path: Path, image: Any) -> float | None:
    """Return what the pixels of a 16-bit or float image are divided by; None: it has 8 bits.

    Raises:
        DataError: Pillow would cut its values off, or their range is not known.
    """
    raw = {str(part) for tile in image.tile for part in _parts(tile)}
    if image.mode in (*_DEEP, "F") and _photometric(image) == _WHITE_IS_ZERO:
        _refuse(path, "its zero is white, which is read for 8 bits alone")
    if image.mode == "F":
        return 1.0
    if image.mode in _DEEP:
        return 4095.0 if "I;12" in raw else 65535.0
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # 16 bits, as older Pillow says it
        return 65535.0
    if image.mode.startswith("I"):
        _refuse(path, f"mode {image.mode!r} of {image.format}, integers of no known range")
    if any(name.endswith(_DEEP_COLOURS) for name in raw):
        _refuse(path, "16 bits a colour, of which Pillow keeps 8")
    return None


def _parts(tile: Any) -> tuple[Any, ...]:
    """Return the arguments of the decoder of a tile, the raw mode among them."""
    arguments = tile[3]
    return arguments if isinstance(arguments, tuple) else (arguments,)


def _photometric(image: Any) -> int | None:
    found: int | None = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC)
    return found


def _refuse(path: Path, why: str) -> None:
    message = f"{path}: {why}; save it with 8 bits a channel, 16 bits of grey, or as an .npz"
    raise DataError(message)
