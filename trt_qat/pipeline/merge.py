"""``trt-qat merge``: what a device found out about a run, put back into its folder."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from trt_qat import artifact, page
from trt_qat.errors import InputError
from trt_qat.files import AGAIN, read_json, read_manifest
from trt_qat.gate.verdict import of_folder
from trt_qat.pipeline.flow import is_score, locked
from trt_qat.pipeline.from_pack import DEVICE
from trt_qat.pipeline.pack import is_pack, unpack
from trt_qat.pipeline.plan import PLAN

MERGED = tuple(stage for stage in PLAN if stage.name in DEVICE and stage.name != "report")

Manifest = dict[str, Any]


def merge(run: str | Path, results: str | Path) -> list[str]:
    """Put the engine, its layers, scores and times into the run folder, and write its report.

    Args:
        run: the folder that was packed.
        results: the run folder of the device, or a pack of it.

    Returns:
        The files that were taken over.

    Raises:
        InputError: they are of different models, or the results hold nothing of a device.
    """
    folder, source = Path(run), Path(results)
    if is_pack(source):
        with tempfile.TemporaryDirectory() as scratch:
            unpack(source, Path(scratch))
            return merge(folder, scratch)
    _manifest(folder)  # a folder that is no run is not made one by its lock
    with locked(folder):
        own, other = (_manifest(each) for each in (folder, source))
        _same_model(folder, source, own, other)
        taken = [name for stage in MERGED for name in stage.outputs if _has(source, other, name)]
        if not taken:
            message = f"{source}: holds no engine, scores or times; run it with --from build there"
            raise InputError(message)
        for name in taken:
            for path in (source / name, artifact.sidecar_path(source / name)):
                with artifact.atomic_path(folder / path.name) as partial:
                    shutil.copyfile(path, partial)
        _join(folder, own, other, taken)
        page.write(folder)
    return taken


def _manifest(folder: Path) -> Manifest:
    found = read_manifest(folder / "manifest.json", "give the folder of a run")
    if not isinstance(found, dict) or not isinstance(found.get("artifacts"), dict):
        message = f"{folder / 'manifest.json'}: not the manifest of a run"
        raise InputError(message)
    return found


def _same_model(folder: Path, source: Path, own: Manifest, other: Manifest) -> None:
    ours, theirs = (m["artifacts"].get("model.onnx") for m in (own, other))
    if ours is None or ours != theirs:
        message = (
            f"{source}: its model.onnx is not the one of {folder} (sha256 {str(theirs)[:12]}, here "
            f"{str(ours)[:12]}); pack this run, and run that pack on the device"
        )
        raise InputError(message)


def _has(folder: Path, manifest: Manifest, name: str) -> bool:
    """Tell whether a file is one of the run that the manifest tells of.

    Raises:
        InputError: it was changed after.
    """
    digest, path = manifest["artifacts"].get(name), folder / name
    if digest is None or not path.is_file():
        return False
    if artifact.sha256_file(path) != digest:
        message = f"{path}: changed since the run on the device; run it there again"
        raise InputError(message)
    return artifact.sidecar_path(path).is_file()


def _join(folder: Path, own: Manifest, other: Manifest, taken: list[str]) -> None:
    names = {stage.name for stage in MERGED if set(stage.outputs) & set(taken)}
    theirs = {record["name"]: record for record in other["stages"]}
    stages = [record for record in own["stages"] if record["name"] not in names]
    stages += [theirs[name] for name in names if name in theirs]
    order = [stage.name for stage in PLAN]
    metrics = read_json(folder / "metrics.json", AGAIN)
    for stage in MERGED:
        for name in set(stage.outputs) & set(taken):
            sidecar = artifact.read_sidecar(folder / name)
            found = {} if sidecar is None else sidecar.metrics
            metrics |= {key: value for key, value in found.items() if is_score(value)}
    artifact.write_json(folder / "metrics.json", metrics)
    known = [*own["failures"], *(f for f in other["failures"] if f not in own["failures"])]
    document = own | {
        "passed": not known,
        "failures": known,
        "stages": sorted(stages, key=lambda record: order.index(record["name"])),
        "artifacts": own["artifacts"]
        | {name: other["artifacts"][name] for name in taken}
        | {"metrics.json": artifact.sha256_file(folder / "metrics.json")},
        "device": {key: other.get(key) for key in ("versions", "platform")},
    }
    document["verdict"] = of_folder(folder, document, named=False).to_dict()
    artifact.write_manifest(folder / artifact.MANIFEST, document)
