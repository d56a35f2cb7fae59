"""What the gate knows of a run, and the baseline: the snapshot of a run that was good, as a file.

A baseline is reviewed in git, so it is one JSON document without times or paths: the same run gives
the same file. It holds the score of every sample, packed, and a digest of itself, so that neither a
bad merge nor an edit by hand passes for a measurement.
"""

from __future__ import annotations

import base64
import binascii
import math
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from trt_qat import artifact
from trt_qat.errors import InputError
from trt_qat.files import read_json
from trt_qat.recipe.specs import Spec
from trt_qat.wording import counted

FORMAT: Final = "trt-qat baseline 1"

MEND = "make it from a run that is good: trt-qat check RUN --against {path} --update"

_DTYPES = {"float32": "<f4", "replicates": "<f8"}


class Scores(Spec):
    """A metric of one stage's answers.

    ``bits`` and ``float32`` hold one score a sample, right or wrong or graded. ``replicates`` holds
    a metric of whole sets on the resamples of `trt_qat.gate.significance.resamples`.
    """

    value: float = Field(description="of all samples")
    encoding: Literal["bits", "float32", "replicates"]
    count: int = Field(ge=1, description="samples, or resamples")
    data: str = Field(description="base64, little-endian")

    @classmethod
    def of(cls, array: NDArray[Any], value: float | None = None) -> Scores:
        """Pack ``(N,)`` scores; with ``value``, ``(R,)`` replicates of it."""
        if value is not None:
            encoding, raw = "replicates", array.astype("<f8").tobytes()
        elif array.dtype == np.bool_:
            encoding, raw = "bits", np.packbits(array).tobytes()
        else:
            encoding, array = "float32", array.astype("<f4")
            raw = array.tobytes()
        mean = float(array.mean(dtype=np.float64)) if value is None else value
        data = base64.b64encode(raw).decode("ascii")
        return cls.model_validate(
            {"value": mean, "encoding": encoding, "count": len(array), "data": data}
        )

    @property
    def array(self) -> NDArray[Any]:
        """The scores again, ``(count,)``: bool, float32 or float64 by the encoding."""
        raw = base64.b64decode(self.data, validate=True)
        if self.encoding == "bits":
            return np.unpackbits(np.frombuffer(raw, np.uint8), count=self.count).astype(np.bool_)
        return np.frombuffer(raw, _DTYPES[self.encoding])

    @model_validator(mode="after")
    def _whole(self) -> Scores:
        size = {"bits": 1 / 8, "float32": 4, "replicates": 8}[self.encoding]
        try:
            found = len(base64.b64decode(self.data, validate=True))
        except binascii.Error as error:
            message = f"the scores are no base64 ({error})"
            raise ValueError(message) from error
        if found != math.ceil(self.count * size):
            message = f"{found} bytes of scores for {self.count} {self.encoding}"
            raise ValueError(message)
        if not np.isfinite(self.array).all():
            message = "the scores hold NaN or infinity"
            raise ValueError(message)
        return self


class TestSet(Spec):
    """Which samples the scores are of."""

    samples: int = Field(ge=1)
    classes: int | None = Field(description="of the outputs; None where they are not classes")
    sha256: str = Field(description="of labels and sample ids, in order")
    images_sha256: str | None = Field(description="of the preprocessed images, from the manifest")


class Preflight(Spec):
    """The counts of a preflight report."""

    target: str | None
    tensorrt: str | None
    errors: int
    warnings: int
    int8: int = Field(description="layers that are INT8 in and INT8 out")
    rules: dict[str, int] = Field(description="findings by rule id, of every severity")


class Proof(Spec):
    """Layers proven 2:4 in the exported weights, of those reported so."""

    reported: int
    proven: int


class SparseKernels(Spec):
    """TensorRT's own counts, from its build log."""

    found: int
    chosen: int


class Timing(Spec):
    """A median latency in milliseconds with its 95 % interval."""

    p50: float = Field(gt=0)
    low: float = Field(gt=0)
    high: float = Field(gt=0)


class Latency(Spec):
    """What ``bench.json`` says; specs are without their folders."""

    device: str
    specs: dict[str, Timing]


class Snapshot(Spec):
    """All that a run is judged by. A part is None where the run has no file of it."""

    format: Literal["trt-qat baseline 1"] = FORMAT
    name: str
    test: TestSet
    stage: str = Field(description="whose answers are judged; the others are shown")
    resamples: int = Field(ge=2)
    metrics: dict[str, dict[str, Scores]] = Field(min_length=1, description="metric, then stage")
    sizes: dict[str, int] = Field(description="bytes by file")
    preflight: Preflight | None
    sparsity: Proof | None
    kernels: SparseKernels | None
    latency: Latency | None
    versions: dict[str, str | None]

    @model_validator(mode="after")
    def _consistent(self) -> Snapshot:
        for metric, stages in self.metrics.items():
            if self.stage not in stages:
                message = f"metric {metric} has no scores of the judged stage {self.stage}"
                raise ValueError(message)
            for stage, scores in stages.items():
                want = self.resamples if scores.encoding == "replicates" else self.test.samples
                if scores.count != want:
                    message = (
                        f"metric {metric}, stage {stage}: {counted(scores.count, 'score')}, not "
                        f"{want}"
                    )
                    raise ValueError(message)
        return self


def write_baseline(path: Path, snapshot: Snapshot) -> Path:
    """Write a baseline, atomically."""
    document = snapshot.model_dump(mode="json")
    return artifact.write_json(path, document | {"sha256": artifact.fingerprint(baseline=document)})


def read_baseline(path: Path) -> Snapshot:
    """Read a baseline.

    Raises:
        InputError: the file is missing, is no baseline, or was damaged or edited.
    """
    mend = MEND.format(path=path)
    document = read_json(path, mend)
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        message = f"{path}: its format is {found!r}, not {FORMAT!r}; {mend}"
        raise InputError(message)
    try:
        held = document.pop("sha256", None) == artifact.fingerprint(baseline=document)
    except ValueError:  # NaN
        held = False
    if not held:
        message = f"{path}: damaged or edited by hand: its content has another digest; {mend}"
        raise InputError(message)
    try:
        return Snapshot.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = f"{path}: damaged: {where or 'the document'}: {first['msg']}; {mend}"
        raise InputError(message) from error
