"""Write the pictures within Qt resource files (Debian's gcompris-qt-data) into a folder.

    python benchmarks/accuracy/qt_resources.py FOLDER OUT

FOLDER is what ``dpkg-deb -x`` makes of the package: some 240 photographs of animals, fruit,
instruments, monuments and vehicles, of which ImageNet has classes.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, UnidentifiedImageError

PHOTOGRAPHS = (
    "categorization",
    "erase",
    "explore_farm_animals",
    "explore_monuments",
    "explore_world_animals",
    "explore_world_music",
)
"""Of the package's resource files those of photographs; the others hold drawings."""
LEAST_SIDE = 200
RIFF = re.compile(rb"RIFF(....)WEBP", re.DOTALL)


def main() -> None:
    """Unpack, and say how many."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    count = 0
    for path in sorted(given.folder.rglob("*.rcc")):
        if path.stem not in PHOTOGRAPHS:
            continue
        for at, data in enumerate(webp_files(path.read_bytes())):
            if is_large(data):
                (given.out / f"{path.stem}-{at:03}.webp").write_bytes(data)
                count += 1
    print(f"{count} pictures in {given.out}")


def webp_files(resource: bytes) -> Iterator[bytes]:
    """Yield the WebP files of a resource file, which holds them as they are.

    A RIFF header gives the number of bytes behind its first eight.
    """
    for found in RIFF.finditer(resource):
        length = int.from_bytes(found.group(1), "little") + 8
        yield resource[found.start() : found.start() + length]


def is_large(data: bytes) -> bool:
    """Tell whether a picture can be read and is large enough for a crop."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return bool(min(picture.size) >= LEAST_SIDE)
    except (UnidentifiedImageError, OSError):
        return False


if __name__ == "__main__":
    main()
