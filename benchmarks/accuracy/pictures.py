"""Real photographs for ImageNet networks: crops, and objects cut out and set before them.

Calibration and training are of other pictures than the test.
"""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

MEAN, STD = 127 / 255, 128 / 255
"""As EfficientNet-Lite was trained (tensorflow/tpu, its ``MEAN_RGB`` and ``STDDEV_RGB``): with
ImageNet's own, the variances behind its first layer are 4.5 times those of its BatchNorm."""
SIZE = 224
LEAST_BYTES = 10_000
MOST_ENLARGED = 2.0
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "motorcycle")
"""Of the PNG files of scikit-image, those in colour; elsewhere photographs are JPEG files."""


def files(folders: list[Path]) -> list[Path]:
    """Return the pictures of packages and folders, one a name, in a fixed order.

    Those of scikit-image and scikit-learn come with the packages. A folder may hold wallpapers
    unpacked from Debian's packages.
    """
    found: dict[str, Path] = {}
    packaged = (folder_of("skimage", "data"), folder_of("sklearn", "datasets/images"))
    for folder in (*folders, *filter(None, packaged)):
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
            picture = opened(path)
        except OSError:
            continue
        made += [normalized(crop(picture, random), random) for _ in range(each)]
    return stacked(made)


def of_imagenet() -> list[Path]:
    """Return the 20 pictures of ImageNet's validation set that foolbox brings."""
    folder = folder_of("foolbox", "data")
    return [] if folder is None else sorted(folder.glob("imagenet_*.jpg"))


def photographs(folder: Path | None) -> list[Path]:
    """Return what `qt_resources.py` unpacked, in a fixed order; None: nothing."""
    return [] if folder is None else sorted(folder.glob("*.webp"))


def folder_of(package: str, inner: str) -> Path | None:
    """Return a folder within a package, which is not imported; None: it is not installed."""
    spec = importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / inner


def objects(folder: Path) -> list[Path]:
    """Return the photographs of Debian's tuxpaint-stamps-default: things with nothing around them.

    Drawings and signs are left out, and what is too small to be more than one.
    """
    return [
        path
        for path in sorted(folder.rglob("*.png"))
        if not {"symbols", "cartoon"} & set(path.parts)
        and not path.stem.endswith(("_mirror", "_flip"))
        and path.stat().st_size >= LEAST_BYTES
    ]


def scenes(paths: list[Path], things: list[Path], count: int, seed: int) -> torch.Tensor:
    """Return crops with a thing before each, ``(count, 3, 224, 224) float32`` normalized.

    A few dozen photographs are too few to learn from, and most wallpapers show no class of
    ImageNet; with some hundred things before them the float network is surer of what it sees.
    """
    random = np.random.default_rng(seed)
    pictures = []
    for path in paths:
        with contextlib.suppress(OSError):
            pictures.append(opened(path))
    cut = [Image.open(path).convert("RGBA") for path in things]
    made = []
    for _ in range(count):
        scene = crop(pictures[random.integers(len(pictures))], random)
        thing = cut[random.integers(len(cut))]
        ratio = min(random.uniform(0.5, 1.3) * SIZE / max(thing.size), MOST_ENLARGED)
        thing = thing.resize(tuple(max(1, int(side * ratio)) for side in thing.size), 3)  # type: ignore[arg-type]
        at = tuple(int((SIZE - side) * random.random()) for side in thing.size)
        scene.paste(thing, at, thing)  # type: ignore[arg-type]
        made.append(normalized(scene, random))
    return stacked(made)


def parts(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the pictures to calibrate and to distil on, and those to test on, ImageNet's too."""
    train, test = split(files([folder]))
    return train, test + of_imagenet()


def to_calibrate_on(train: list[Path]) -> torch.Tensor:
    """Return the crops that every method calibrates on."""
    return crops(train, 2, seed=0)


def to_test_on(test: list[Path], each: int = 24) -> torch.Tensor:
    """Return the crops that agreement is counted on."""
    return crops(test, each, seed=1)


def to_learn_from(paths: list[Path], things: list[Path], total: int) -> torch.Tensor:
    """Return what is distilled on: crops of photographs, with things before half of them."""
    count = total // 2 if things else total
    found = crops(paths, max(1, count // len(paths)), seed=2)
    if things:
        found = torch.cat([found, scenes(paths, things, total - len(found), seed=11)])
    return found[torch.randperm(len(found), generator=torch.Generator().manual_seed(0))]


def opened(path: Path) -> Image.Image:
    """Return a picture in colour, no larger than crops of it need."""
    with Image.open(path) as image:
        image.draft("RGB", (1600, 1600))
        picture: Image.Image = image.convert("RGB")
    picture.thumbnail((1600, 1600))
    return picture


def crop(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Return a random square of a picture, 224 x 224."""
    side = int(min(picture.size) * random.uniform(0.32, 1.0))
    left = int(random.integers(0, picture.width - side + 1))
    top = int(random.integers(0, picture.height - side + 1))
    return picture.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), 2)


def normalized(picture: Image.Image, random: np.random.Generator) -> NDArray[np.float32]:
    """Return the pixels as the network wants them, mirrored half the time."""
    pixels = np.asarray(picture, np.float32) / 255
    pixels = pixels[:, ::-1] if random.random() < 0.5 else pixels
    return ((pixels - MEAN) / STD).astype(np.float32)


def stacked(made: list[NDArray[np.float32]]) -> torch.Tensor:
    """Return pictures as a batch."""
    batch = np.stack(made).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(batch))


def split(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Return the pictures to calibrate and to distil on, and those to test on: every third."""
    return [p for i, p in enumerate(paths) if i % 3], paths[::3]
