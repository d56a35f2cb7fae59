"""Crops of real photographs for ImageNet networks, calibration and test from other pictures."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from PIL import Image

MEAN, STD = 127 / 255, 128 / 255
"""As EfficientNet-Lite was trained (tensorflow/tpu, its ``MEAN_RGB`` and ``STDDEV_RGB``): with
ImageNet's own, the variances behind its first layer are 4.5 times those of its BatchNorm."""
SIZE = 224
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "motorcycle")
"""Of the PNG files of scikit-image, those in colour; elsewhere photographs are JPEG files."""


def files(folders: list[Path]) -> list[Path]:
    """Return the pictures of packages and folders, one a name, in a fixed order.

    Those of scikit-image and scikit-learn come with the packages. A folder may hold wallpapers
    unpacked from Debian's packages.
    """
    found: dict[str, Path] = {}
    for package, inner in (("skimage", "data"), ("sklearn", "datasets/images")):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            folders = [*folders, Path(spec.origin).parent / inner]
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() not in (".jpg", ".jpeg") and not path.stem.startswith(
                PHOTOGRAPHS
            ):
                continue
            # A wallpaper comes in sizes and in a dark form: one of them is enough.
            parts = path.parts
            whole = parts[parts.index("contents") - 1] if "contents" in parts else path.stem
            found.setdefault(whole.split("_")[0].lower(), path)
    return [found[key] for key in sorted(found)]


def crops(paths: list[Path], each: int, seed: int) -> torch.Tensor:
    """Return random crops, ``(N, 3, 224, 224) float32`` normalized.

    A crop covers 10 % to all of the shorter side squared; half of them are mirrored.
    """
    random = np.random.default_rng(seed)
    made = []
    for path in paths:
        try:
            with Image.open(path) as image:
                image.draft("RGB", (1600, 1600))
                picture = image.convert("RGB")
        except OSError:
            continue
        picture.thumbnail((1600, 1600))
        for _ in range(each):
            side = int(min(picture.size) * random.uniform(0.32, 1.0))
            left = random.integers(0, picture.width - side + 1)
            top = random.integers(0, picture.height - side + 1)
            crop = picture.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), 2)
            pixels = np.asarray(crop, np.float32) / 255
            pixels = pixels[:, ::-1] if random.random() < 0.5 else pixels
            made.append((pixels - MEAN) / STD)
    stacked = np.stack(made).astype(np.float32).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(stacked))


def split(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Return the pictures to calibrate and to distil on, and those to test on: every third."""
    return [p for i, p in enumerate(paths) if i % 3], paths[::3]
