"""What a loop of the user's own is judged on: test samples, and the batches it calibrated with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trt_qat.data import nest
from trt_qat.data.arrays import ArraySplit, Split
from trt_qat.data.sample_split import SampleSplit, whole
from trt_qat.data.samples import Held, Items, Passes
from trt_qat.data.splits import Dataset
from trt_qat.errors import DataError


@dataclass(frozen=True)
class LoopData(Dataset):
    """Of a data set only what the loop has shown; ``train`` stands in for what it trained on."""

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Sizes and digests of the parts that were seen."""
        seen = {part.name: part for part in (self.calibration, self.validation, self.test)}
        parts = {name: {"samples": len(p), "sha256": p.digest} for name, p in seen.items()}
        return {"source": self.name, "train_images_also_in_test_dropped": 0, **parts}


def loop_data(test: Any, validation: Any, calibration: Split, *, apart: bool = False) -> LoopData:
    """Return what a loop is judged on.

    Args:
        test: as `split_of` takes it.
        validation: likewise; None: the test samples, which sensitivity then studies.
        calibration: what ranges were measured on.
        apart: targets of samples are never stacked.
    """
    tested = split_of(test, "test", apart=apart)
    validated = tested
    if validation is not None:
        validated = split_of(validation, "validation", apart=apart)
    return LoopData("own loop", calibration, validated, calibration, tested, 0)


def held(batches: Iterable[Any], count: int) -> Split:
    """Return the first ``count`` samples of batches of inputs, which are kept: ranges need few.

    Raises:
        DataError: there is none.
    """
    kept: list[Any] = []
    samples = 0
    for batch in batches:
        kept.append(nest.as_arrays(batch))
        samples += nest.count(kept[-1], "calibration batches")
        if samples >= count:
            break
    if not kept:
        message = "calibration: no batch; give at least one"
        raise DataError(message)
    where = "calibration batches"
    try:
        joined = nest.rows(nest.joined(kept), slice(0, count))
    except ValueError:  # of several shapes, as sentences of several lengths
        return whole(Passes(lambda: [(batch, None) for batch in kept], where), "calibration")
    return whole(Held(joined, None, where), "calibration")


def split_of(given: Any, name: str, *, apart: bool = False) -> Split:
    """Return a split of what a user hands over.

    Args:
        given: a split; a data set of ``(inputs, targets)`` samples; an iterable of batches, as a
            DataLoader or a list, that can be read again; or one batch.
        name: of the part.
        apart: targets of a data set's samples are never stacked.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(given, (ArraySplit, SampleSplit)):
        return given
    where = f"{name} batches"
    if nest.is_array(given) or isinstance(given, (Mapping, tuple)):
        given = [given]
    by_number = hasattr(given, "__getitem__") and hasattr(given, "__len__")
    if by_number and not isinstance(given, list):
        return whole(Items(given, None, where, apart=apart), name)
    if isinstance(given, Iterator) or not isinstance(given, Iterable):
        message = (
            f"{name}: a {type(given).__name__} cannot be read again and again; give a DataLoader, "
            "a list of batches, a data set with __getitem__, or one batch"
        )
        raise DataError(message)
    return whole(Passes(lambda: given, where), name)
