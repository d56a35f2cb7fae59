"""``trt-qat pack``: one file with what a machine without torch needs to build and judge a run."""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from trt_qat import artifact
from trt_qat.errors import InputError
from trt_qat.files import read_manifest, reason
from trt_qat.limits import check_disk, read_stream
from trt_qat.pipeline.answers import batches_with_targets
from trt_qat.pipeline.packed_data import SHARD, write_shards
from trt_qat.pipeline.plan import PLAN
from trt_qat.pipeline.stage import Run

FORMAT = "trt-qat pack 1"
CONTENTS = "pack.json"
SUFFIX = ".tqpack"
SAMPLES = "samples"
CALIBRATION_SAMPLES = 64

_LEFT = ("fp32.pt", "qat.pt", "report.html")
"""Of a run, what a board has no use for, or writes itself."""


@artifact.reads_run
def pack(run: Run, out: Path | None = None) -> Path:
    """Write a run's ONNX, recipe, verdicts, test samples and answers as one file.

    Args:
        run: finished up to its stage compare; an engine in it is taken along.
        out: the file; None: ``RUN.tqpack`` beside the run folder.

    Raises:
        InputError: the run is not that far.
    """
    manifest = read_manifest(run.path("manifest.json"), "give the folder of a finished run")
    _check(run, manifest)
    target = out or run.folder.resolve().with_name(f"{run.folder.resolve().name}{SUFFIX}")
    with tempfile.TemporaryDirectory() as scratch:
        samples = Path(scratch)
        test = run.data.test
        write_shards(samples / "test", batches_with_targets(run, SHARD), test.ids)
        few = run.data.calibration.head(CALIBRATION_SAMPLES)[0]
        write_shards(samples / "calibration", iter([(few, None)]), run.data.calibration.ids)
        files = {f"run/{path.relative_to(run.folder).as_posix()}": path for path in _files(run)}
        files |= {
            f"{SAMPLES}/{path.relative_to(samples).as_posix()}": path
            for path in sorted(samples.rglob("*"))
            if path.is_file()
        }
        _write(target, files, str(manifest["name"]))
    return target


def _check(run: Run, manifest: dict[str, Any]) -> None:
    made = manifest.get("artifacts", {})
    for name in ("model.onnx", "fp32.onnx", "compare.json", "answers.npz"):
        if name not in made or not run.path(name).is_file():
            message = f"{run.folder}: has no {name}; run the recipe up to compare before packing"
            raise InputError(message)
        if artifact.sha256_file(run.path(name)) != made[name]:
            message = f"{run.path(name)}: changed since the run; run the recipe again"
            raise InputError(message)


def _files(run: Run) -> list[Path]:
    """Return the files of a run that are packed: outputs of stages with their sidecars."""
    names = [name for stage in PLAN for name in stage.outputs if name not in _LEFT]
    found = [run.path(name) for name in names if run.path(name).is_file()]
    found += [
        artifact.sidecar_path(path) for path in found if artifact.sidecar_path(path).is_file()
    ]
    found += [artifact.sidecar_path(run.path(name)) for name in ("fp32.pt", "qat.pt")]
    found += [path for onnx in ("model.onnx", "fp32.onnx")
              for path in sorted(run.folder.glob(f"{onnx}.*.data"))]  # fmt: skip
    found += [run.path(name) for name in ("manifest.json", "metrics.json", "calibration.lock.json")]
    return [path for path in dict.fromkeys(found) if path.is_file()]


def _write(target: Path, files: dict[str, Path], name: str) -> None:
    digests = {key: artifact.sha256_file(path) for key, path in files.items()}
    document = {"format": FORMAT, "name": name, "files": digests}
    # Stored: weights hardly compress, and samples are compressed already.
    with (
        artifact.atomic_path(target) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive,
    ):
        archive.writestr(CONTENTS, artifact.canonical_json(document))
        for key, path in files.items():
            archive.write(path, key)


def is_pack(path: Path) -> bool:
    """Tell whether a path is a file of `pack`."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return CONTENTS in archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):  # its table is damaged
        return False


def unpack(path: Path, folder: Path) -> None:
    """Put a pack's run files into ``folder``, and its samples into ``folder/samples``.

    Raises:
        InputError: the file is no pack, is damaged, or names files outside the folder.
    """
    again = "pack the run again, and copy it whole"
    try:
        with zipfile.ZipFile(path) as archive:
            check_disk(archive, folder)
            document = _contents(archive)
            for key, digest in document["files"].items():
                inner = Path(key.removeprefix("run/"))
                if inner.is_absolute() or ".." in inner.parts:
                    message = f"{path}: names {key!r}, outside its folder; {again}"
                    raise InputError(message)
                with archive.open(key) as source, artifact.atomic_path(folder / inner) as partial:
                    with partial.open("wb") as stream:
                        while chunk := source.read(artifact.CHUNK_BYTES):
                            stream.write(chunk)
                    if artifact.sha256_file(partial) != digest:
                        message = f"{path}: {key} is damaged; {again}"
                        raise InputError(message)
    except InputError:
        raise
    except Exception as error:  # of zipfile, zlib and a damaged table, without a common class
        message = f"{path}: cannot be read as a pack ({reason(error)}); {again}"
        raise InputError(message) from error


def _contents(archive: zipfile.ZipFile) -> dict[str, Any]:
    with archive.open(CONTENTS) as stream:
        document: dict[str, Any] = json.loads(read_stream(stream))
    if document.get("format") != FORMAT:
        message = f"its format is {document.get('format')!r}, this version reads {FORMAT!r}"
        raise ValueError(message)
    return document
