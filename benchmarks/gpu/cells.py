"""What there is to do, in the order of worth: a budget that runs out has bought the best first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.catalog import VARIANTS
from trt_qat.engine.compat import GUARDED, Version

SMALL = (1, 8, 32)
"""Batch sizes of the one engine of a small model: least, tuned for, largest."""
FIRST = "small_network"
"""The probe that tells within seconds whether anything works at all."""
BATCHES = (1, 32, 8, 128)
"""Of the models at their published size: an engine each, in the order of worth."""


@dataclass(frozen=True)
class Cell:
    """One thing to do; its ``id`` is its key in the results.

    Attributes:
        kind: probe, tests, build, time, rebuild or trtexec.
        name: of the model, or of the probe.
        variant: of `catalog.VARIANTS`; empty for all of them, or none.
        batch: samples an inference; 0: `SMALL`'s range.
        worth: lower is done first.
    """

    kind: str
    name: str
    variant: str = ""
    batch: int = 0
    worth: int = 0

    @property
    def id(self) -> str:
        """What it is called in the results."""
        batch = f"b{self.batch}" if self.batch else ""
        return ":".join(part for part in (self.kind, self.name, self.variant, batch) if part)

    @property
    def range(self) -> tuple[int, int, int]:
        """Least, tuned-for and largest batch size of the engine."""
        return (self.batch,) * 3 if self.batch else SMALL


def plan(
    models: Mapping[str, Mapping[str, Any]],
    version: Version,
    *,
    probes: Iterable[str] = (),
    trtexec: bool = False,
) -> list[Cell]:
    """Return every cell, the most valuable first.

    Args:
        models: entries of the manifest.
        version: of TensorRT: 11 has no implicit quantization.
        probes: names of what is tried beside the models.
        trtexec: whether it is on the path.
    """
    published = [name for name, entry in models.items() if entry["published"]]
    small = [name for name in models if name not in published]
    cells = [Cell("tests", "gpu", worth=25)]
    cells += [Cell("probe", name, worth=0 if name == FIRST else 30) for name in probes]
    for at, name in enumerate(published):
        cells += _published(name, 10 if at == 0 else 40 + at, version, models[name], trtexec)
    for name in small:
        cells += _small(name, version, models[name])
    return sorted(cells, key=lambda cell: cell.worth)  # stable: the order above within one worth


def _published(
    name: str, worth: int, version: Version, entry: Mapping[str, Any], trtexec: bool
) -> Iterator[Cell]:
    for batch in BATCHES:
        late = 0 if batch in BATCHES[:2] else 40
        for variant in _variants(version, entry):
            yield Cell("build", name, variant, batch, worth + late)
        yield Cell("time", name, "", batch, worth + late)
        if batch == 32 and "sparse" in entry["onnx"]:
            yield Cell("rebuild", name, "sparse", batch, worth + 5)
        if trtexec and "dense" in entry["onnx"]:
            yield Cell("trtexec", name, "dense", batch, worth + late + 6)


def _small(name: str, version: Version, entry: Mapping[str, Any]) -> Iterator[Cell]:
    for variant in _variants(version, entry):
        yield Cell("build", name, variant, 0, 20 if variant in ("dense", "sparse") else 60)
    for batch in (1, 32):
        yield Cell("time", name, "", batch, 61)


def _variants(version: Version, entry: Mapping[str, Any]) -> list[str]:
    return [
        variant.name
        for variant in VARIANTS.values()
        if (variant.onnx if variant.onnx != "fp32" else "dense") in entry["onnx"]
        and (not variant.implicit or version in GUARDED["IInt8EntropyCalibrator2"])
    ]
