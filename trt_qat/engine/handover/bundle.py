"""``trt-qat bundle``: what a run hands over to those who deploy it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trt_qat import artifact
from trt_qat.engine import compat
from trt_qat.engine.build import network_io
from trt_qat.engine.build.typed import typed_onnx, typed_path
from trt_qat.engine.handover import serving, trtexec
from trt_qat.errors import InputError
from trt_qat.files import read_json, reason
from trt_qat.recipe.specs import EngineSpec
from trt_qat.targets import parse_version
from trt_qat.wording import counted


@dataclass(frozen=True)
class Bundle:
    """What was written.

    Attributes:
        folder: of the bundle.
        files: in it, in the order of their making.
        notes: what is missing or could not be expressed.
    """

    folder: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of ``trt-qat bundle --json``."""
        return {
            "folder": str(self.folder),
            "files": [path.relative_to(self.folder).as_posix() for path in self.files],
            "notes": list(self.notes),
        }


def bundle(
    run: str | Path,
    out: str | Path | None = None,
    *,
    tensorrt: str | None = None,
    labels: str | Path | None = None,
) -> Bundle:
    """Write a Triton model repository, a DeepStream configuration and the trtexec command.

    Args:
        run: a run folder with a verified ``model.onnx``; its engine is taken along if it is there.
        out: the bundle's folder; None: ``bundle`` in the run folder.
        tensorrt: version that the command is for; None: that of the engine, else 10.3.
        labels: a file with one class name a line; None: the numbers of the classes.

    Raises:
        InputError: no finished run, labels that do not fit, or an option that the version lacks.
    """
    run = Path(run)
    spec = _spec(run)
    folder = Path(out) if out is not None else run / "bundle"
    network = network_io.read(run / "model.onnx")
    engine = run / "model.engine"
    sidecar = artifact.read_sidecar(engine) if engine.is_file() else None
    version = parse_version(tensorrt or _built_by(sidecar) or "10.3")
    names = _labels(labels, network)
    model = folder / "triton" / spec.name
    text = "".join(f"{name}\n" for name in names)
    config = serving.triton_config(
        spec.name,
        network.inputs,
        network.outputs,
        spec=spec.build,
        labels=bool(names),
        version=version,
    )
    files = [artifact.write_text(model / "config.pbtxt", config)]
    files += [artifact.write_text(model / serving.LABELS, text)] if names else []
    notes: list[str] = []
    if engine.is_file():
        files.append(_copy(engine, model / "1" / serving.PLAN))
    else:
        notes.append(
            f"{engine} is not built: trtexec/build.sh writes triton/{spec.name}/1/model.plan"
        )
    files += _deepstream(folder, spec, network, text, len(names), notes)
    files += _trtexec(folder, run, spec, network, version, notes)
    return Bundle(folder, tuple(files), tuple(notes))


def _spec(run: Path) -> EngineSpec:
    path = run / "manifest.json"
    document = read_json(path, "give a folder of `trt-qat run`")
    try:
        spec = EngineSpec.model_validate(document["recipe"]["spec"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        message = f"{path}: not a manifest of this version of trt-qat; run the recipe again"
        raise InputError(message) from error
    if not (run / "model.onnx").is_file():
        message = f"{run}: the run has no model.onnx; run it up to export at least"
        raise InputError(message)
    return spec


def _built_by(sidecar: artifact.Sidecar | None) -> str | None:
    if sidecar is None:
        return None
    engine = sidecar.metrics.get("engine", {})
    found = engine.get("source", {}).get("tensorrt") or sidecar.metrics.get("tensorrt")
    return None if found is None else str(found)


def _labels(file: str | Path | None, network: network_io.Network) -> Sequence[str]:
    """Return class names; none where the first output is not ``(N, classes)``."""
    first = next(iter(network.outputs.values()))
    classes = first.shape[-1] if len(first.shape) == 2 else None
    if file is None:
        return [str(at) for at in range(classes)] if isinstance(classes, int) else []
    try:
        names = Path(file).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        message = f"--labels {file}: cannot be read: {reason(error)}"
        raise InputError(message) from error
    names = names[:-1] if names and not names[-1] else names
    if isinstance(classes, int) and len(names) != classes:
        message = f"--labels {file}: {counted(len(names), 'name')} for {classes} classes"
        raise InputError(message)
    return names


def _copy(source: Path, target: Path) -> Path:
    with artifact.atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
    return target


def _deepstream(
    folder: Path,
    spec: EngineSpec,
    network: network_io.Network,
    labels: str,
    classes: int,
    notes: list[str],
) -> list[Path]:
    try:
        text = serving.nvinfer_config(
            network.inputs, network.outputs, spec=spec.build, data=spec.data, classes=classes
        )
    except InputError as error:
        notes.append(f"no DeepStream configuration: {error}")
        return []
    text = text.replace("../triton/", f"../triton/{spec.name}/1/")
    # nvinfer wants the classes of a classifier on one line, parted by semicolons.
    joined = ";".join(labels.splitlines()) + "\n"
    place = folder / "deepstream"
    return [
        artifact.write_text(place / "config_infer.txt", text),
        artifact.write_text(place / serving.LABELS, joined),
    ]


def _trtexec(
    folder: Path,
    run: Path,
    spec: EngineSpec,
    network: network_io.Network,
    version: compat.Version,
    notes: list[str],
) -> list[Path]:
    place = folder / "trtexec"
    typed = compat.is_strong(spec.build.typing, version) and spec.build.remainder == "fp16"
    source = run / "model.onnx"
    if typed:
        built = typed_path(run / "model.engine")
        if not built.is_file():
            built = typed_onnx(source, place / "model.onnx", spec.build.keep_fp32)
        source = built
    onnx = place / "model.onnx"
    if source != onnx:
        _copy(source, onnx)
    made = trtexec.command(
        spec.build,
        version,
        network,
        onnx="model.onnx",
        engine=f"../triton/{spec.name}/1/{serving.PLAN}",
    )
    notes += [f"trtexec has no flag for build.{option}" for option in made.lacking]
    script = made.script().replace("set -e\n", 'set -e\ncd "$(dirname "$0")"\n'
                                   f"mkdir -p ../triton/{spec.name}/1\n")  # fmt: skip
    return [onnx, artifact.write_text(place / "build.sh", script)]
