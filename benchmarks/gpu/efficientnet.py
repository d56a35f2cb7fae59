"""EfficientNet-Lite0 with ImageNet's weights, for the GPU: its ONNX files, and what it learns from.

    python benchmarks/gpu/efficientnet.py --pictures A --objects B --photographs C --carried carried
    python benchmarks/gpu/efficientnet.py … --crops crops

Needs what benchmarks/accuracy/efficientnet.py needs. ``--carried`` adds two models to the folder
of `prepare.py`: by our defaults beside ModelOpt's stock export, and with zero points folded and
channels split. ``--crops`` writes what `distil.py` and `agreement.py` read on the machine with the
GPU: crops to calibrate on, to test on and to learn from, and the float network's answers.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch

from benchmarks.accuracy import pictures
from benchmarks.accuracy.efficientnet import network
from benchmarks.accuracy.efficientnet_rows import SPLIT
from benchmarks.gpu import carry, prepare
from benchmarks.gpu.crops import read, write
from tests.models import Reference

MODELS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "efficientnet_lite0-224": (("dense", "stock"), {}),
    "efficientnet_lite0_split-224": (("dense",), SPLIT),
}
"""Forms that are made of each, and the options of quantize."""
EVERY = 4
"""Of the test crops one in so many is carried."""
LEARNING = 800
"""Crops to learn from, some 40 MB without loss."""


class Crops:
    """Crops of other pictures for calibration, the first seeds, than for the answers."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.train, test = pictures.parts(given.pictures)
        self.calibration = pictures.to_calibrate_on(self.train)
        self.tested = pictures.to_test_on(test)

    def __call__(self, batch: int, seed: int = 0) -> tuple[torch.Tensor]:
        """Return a batch, as a `Reference` draws it."""
        source = self.tested if seed >= 100 else self.calibration
        at = torch.arange(batch) + (0 if seed >= 100 else batch * seed)
        return (source[at % len(source)],)


def add_models(crops: Crops, folder: Path) -> None:
    """Add the models to a folder of `prepare.py`."""
    document = carry.read_manifest(folder)
    for name, (forms, options) in MODELS.items():
        reference = Reference(name, network, crops, family="conv", task="classification")
        document["models"][name] = prepare.prepare(
            reference, folder / name, published=True, forms=forms, **options
        )
        print(name, document["models"][name]["refused"], flush=True)
    carry.write_manifest(folder, document)


def write_crops(crops: Crops, given: argparse.Namespace) -> None:
    """Write the crops; answers are those of the float network, for the tested ones."""
    folder = given.crops
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "calibration.zip", crops.calibration, lossless=True)
    tested = crops.tested[::EVERY]
    write(folder / "tested.zip", tested, lossless=True)
    model = network()
    with torch.no_grad():
        wanted = torch.cat([model(part) for part in torch.split(tested, 16)])
    np.save(folder / "wanted.npy", wanted.numpy())
    photographs = crops.train + pictures.photographs(given.photographs)
    things = pictures.objects(given.objects)
    learning = pictures.to_learn_from(photographs, things, LEARNING)
    write(folder / "learning.zip", learning, lossless=True)
    assert torch.equal(read(folder / "tested.zip"), tested)


def main() -> None:
    """Write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--objects", type=Path, required=True)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--carried", type=Path, help="folder of prepare.py")
    parser.add_argument("--crops", type=Path, help="folder for crops")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    crops = Crops(given)
    if given.carried:
        add_models(crops, given.carried)
    if given.crops:
        write_crops(crops, given)


if __name__ == "__main__":
    main()
