"""``trt-qat bundle``: what a run hands over to those who deploy it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trt_qat import artifact
from trt_qat.atomic import staged
from trt_qat.engine import compat
from trt_qat.engine.build import network_io
from trt_qat.engine.build.typed import typed_onnx, typed_path
from trt_qat.engine.handover import client, nvinfer, serving, trtexec
from trt_qat.errors import InputError, visible
from trt_qat.files import read_manifest, reason
from trt_qat.recipe.specs import EngineSpec
from trt_qat.targets import parse_version
from trt_qat.wording import counted

TRITON, TRITON_ONNX = "triton", "triton-onnx"

OWN = "unknown"
"""Where a recipe names its data, and there is no recipe."""


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


@dataclass(frozen=True)
class _Source:
    """What is bundled: a run, or an ONNX alone."""

    onnx: Path
    engine: Path
    spec: EngineSpec
    folder: Path

    @classmethod
    def of(cls, given: Path) -> _Source:
        """Find the files of a run folder, or those beside an ONNX."""
        if given.is_file():
            stem = re.sub(r"[^A-Za-z0-9._-]", "-", given.stem).lstrip("._-") or "model"
            spec = EngineSpec.model_validate(
                {"name": stem, "model": {"factory": stem}, "data": {"source": OWN}}
            )
            folder = given.with_name(f"{given.stem}-bundle")
            return cls(given, given.with_suffix(".engine"), spec, folder)
        spec = _spec(given)
        return cls(given / "model.onnx", given / "model.engine", spec, given / "bundle")


@artifact.reads_run
def bundle(
    run: str | Path,
    out: str | Path | None = None,
    *,
    tensorrt: str | None = None,
    labels: str | Path | None = None,
) -> Bundle:
    """Write Triton repositories, a DeepStream configuration, the trtexec command and a client.

    Args:
        run: a run folder with a verified ``model.onnx``, or any ONNX; an engine is taken along if
            it is there, beside an ONNX under its name.
        out: the bundle's folder; None: ``bundle`` in the run folder, ``NAME-bundle`` by an ONNX.
        tensorrt: version that the command is for; None: that of the engine, else 10.3.
        labels: a file with one class name a line; None: the numbers of the classes.

    Raises:
        InputError: no finished run, labels that do not fit, or an option that the version lacks.
        GraphError: the file is no ONNX.
    """
    source = _Source.of(Path(run))
    spec, engine = source.spec, source.engine
    folder = Path(out) if out is not None else source.folder
    network = network_io.read(source.onnx)
    sidecar = artifact.read_sidecar(engine) if engine.is_file() else None
    version = parse_version(tensorrt or _built_by(sidecar) or "10.3")
    names = _labels(labels, network, spec)
    text = _lines(names)
    with staged(folder) as stage:  # a disk that is full halfway leaves what was there
        files, notes = _triton(stage, source, network, text, version)
        if spec.data.source == OWN:
            notes.append(
                "how inputs are prepared is not known of an ONNX alone: pixels from 0 to 1 are "
                "assumed"
            )
        files += _deepstream(stage, spec, network, names, notes)
        files += _trtexec(stage, source, network, version, notes)
        files += _for_people(stage, spec, network, notes)
        files = [folder / path.relative_to(stage) for path in files]
    return Bundle(folder, tuple(files), tuple(notes))


def _triton(
    folder: Path, source: _Source, network: network_io.Network, labels: str, version: compat.Version
) -> tuple[list[Path], list[str]]:
    """Write a repository for the engine, and one for onnxruntime."""
    files: list[Path] = []
    notes: list[str] = []
    spec, engine = source.spec, source.engine
    for place, platform in ((TRITON, "tensorrt_plan"), (TRITON_ONNX, "onnxruntime_onnx")):
        model = folder / place / spec.name
        config = serving.triton_config(
            spec.name,
            network.inputs,
            network.outputs,
            spec=spec.build,
            labels=bool(labels),
            version=version,
            platform=platform,
        )
        files.append(artifact.write_text(model / "config.pbtxt", config))
        files += [artifact.write_text(model / serving.LABELS, labels)] if labels else []
    if engine.is_file():
        files.append(_copy(engine, folder / TRITON / spec.name / "1" / serving.PLAN))
    else:
        plan = f"{TRITON}/{spec.name}/1/{serving.PLAN}"
        notes.append(f"{engine} is not built: trtexec/build.sh writes {plan}")
    onnx = folder / TRITON_ONNX / spec.name / "1" / serving.ONNX
    files.append(_copy(source.onnx, onnx))
    # Weights of a large model lie beside it, by the names that its file has for them.
    files += [_copy(p, onnx.parent / p.name) for p in
              source.onnx.parent.glob(f"{source.onnx.name}.*.data")]  # fmt: skip
    return files, notes


def _for_people(
    folder: Path, spec: EngineSpec, network: network_io.Network, notes: list[str]
) -> list[Path]:
    images = ":" not in spec.data.source and spec.data.source != OWN
    prepared = client.preparation(spec.data.mean, spec.data.std, images=images)
    onnx = f"{TRITON_ONNX}/{spec.name}/1/{serving.ONNX}"
    script = client.client_script(
        spec.name, network.inputs, list(network.outputs), onnx=onnx, prepared=prepared
    )
    files = {
        f"{TRITON}/": "a Triton model repository of the TensorRT engine",
        f"{TRITON_ONNX}/": "the same of the ONNX, by onnxruntime",
        "deepstream/": "a configuration of Gst-nvinfer",
        "trtexec/": "the ONNX and the command that builds the engine",
        client.CLIENT: "asks the model once",
    }
    page = client.readme(
        spec.name,
        network.inputs,
        network.outputs,
        files={path: what for path, what in files.items() if (folder / path).exists()
               or path == client.CLIENT},
        prepared=prepared,
        notes=notes,
    )  # fmt: skip
    return [
        artifact.write_text(folder / client.CLIENT, script),
        artifact.write_text(folder / "README.md", page),
    ]


def _spec(run: Path) -> EngineSpec:
    path = run / "manifest.json"
    document = read_manifest(path, "give a folder of `trt-qat run`, or an ONNX")
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


def _labels(
    file: str | Path | None, network: network_io.Network, spec: EngineSpec
) -> Sequence[str]:
    """Return class names; none where the first output has no scores of classes."""
    first = next(iter(network.outputs.values()))
    classes = first.shape[-1] if len(first.shape) == 2 else None
    if spec.task.kind == "segmentation" and len(first.shape) == 4:
        classes = first.shape[1]
    elif spec.task.kind in ("regression", "embedding"):
        classes = None
    if file is None:
        return [str(at) for at in range(classes)] if isinstance(classes, int) else []
    try:
        names = Path(file).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        message = f"--labels {file}: cannot be read: {reason(error)}"
        raise InputError(message) from error
    names = names if names[-1] else names[:-1]
    if odd := next((name for name in names if not name.isprintable()), None):
        message = f"--labels {file}: {visible(odd)!r} holds a control character; take it out"
        raise InputError(message)
    if isinstance(classes, int) and len(names) != classes:
        message = f"--labels {file}: {counted(len(names), 'name')} for {classes} classes"
        raise InputError(message)
    return names


def _lines(names: Sequence[str]) -> str:
    return "".join(f"{name}\n" for name in names)


def _copy(source: Path, target: Path) -> Path:
    with artifact.atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
    return target


def _deepstream(
    folder: Path,
    spec: EngineSpec,
    network: network_io.Network,
    names: Sequence[str],
    notes: list[str],
) -> list[Path]:
    # nvinfer wants the classes of a classifier on one line, parted by semicolons.
    classifies = spec.task.kind == "classification"
    try:
        joined = f"{nvinfer.listed(names, 'label')}\n" if classifies else _lines(names)
        text = nvinfer.nvinfer_config(
            network.inputs,
            network.outputs,
            spec=spec.build,
            data=spec.data,
            classes=len(names),
            task=spec.task.kind,
        )
    except InputError as error:
        notes.append(f"no DeepStream configuration: {error}")
        return []
    text = text.replace("../triton/", f"../triton/{spec.name}/1/")
    place = folder / "deepstream"
    return [
        artifact.write_text(place / "config_infer.txt", text),
        artifact.write_text(place / serving.LABELS, joined),
    ]


def _trtexec(
    folder: Path,
    given: _Source,
    network: network_io.Network,
    version: compat.Version,
    notes: list[str],
) -> list[Path]:
    place, spec = folder / "trtexec", given.spec
    typed = compat.is_strong(spec.build.typing, version) and spec.build.remainder == "fp16"
    source = given.onnx
    if typed:
        built = typed_path(given.engine)
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
