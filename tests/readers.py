"""Every reader of a file that a user names, with sound files of its kind.

Those of a finished run's folder are read by the page, the gate and the bundle.
"""

from __future__ import annotations

import io
import itertools
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import numpy as np

from tests.damage import damaged
from tests.lint.violations import CASES
from trt_qat import artifact
from trt_qat.data import calibration_cache
from trt_qat.data.idx import read_idx
from trt_qat.data.images import read_image
from trt_qat.data.ranges import Ranges
from trt_qat.data.sources import npz
from trt_qat.engine.evidence.timed import read_latencies, read_layer_times
from trt_qat.engine.evidence.trust import inspect_file
from trt_qat.engine.handover.bundle import bundle
from trt_qat.engine.origin import origin_of
from trt_qat.errors import CheckFailed, TrtQatError
from trt_qat.gate.gate import check, update
from trt_qat.gate.snapshot import read_baseline
from trt_qat.gate.verdict import of_folder
from trt_qat.lint.preflight import preflight
from trt_qat.page import write as write_page
from trt_qat.pipeline.pack import pack, unpack
from trt_qat.pipeline.sweep import known_rows
from trt_qat.recipe.load import load_recipe
from trt_qat.runners.feeds import inputs_for
from trt_qat.runners.polygraphy import SavedRunner, load_feeds, save_outputs

RECORDED = Path(__file__).parent / "recordings"
Ask = Callable[[Path], object]

SECONDS = 30
"""For one file, beyond which a reader counts as hanging."""


@dataclass(frozen=True)
class Reader:
    """What reads a file.

    Attributes:
        kind: of file, for people.
        name: of the damaged file; of a run folder's, its name in there.
        sound: contents of sound ones.
        read: reads the damaged one.
        share: how often it is drawn.
    """

    kind: str
    name: str
    sound: tuple[bytes, ...]
    read: Callable[[Path], object]
    share: int = 1


class Hangs(BaseException):
    """A reader took longer than `SECONDS`."""


def fed(reader: Reader, folder: Path, draw: Random) -> str:
    """Let a reader read a damaged file; return ``read`` or the class of its error.

    Raises:
        Hangs: it takes too long.
        Exception: of Python or a library, which is a traceback to a user.
    """
    path = folder / reader.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(damaged(draw.choice(reader.sound), draw))
    try:
        with _no_longer_than(SECONDS):
            json.dumps(reader.read(path), default=str)
    except TrtQatError as error:
        if not str(error).strip() or (error.exit_code == 1 and not isinstance(error, CheckFailed)):
            raise
        return type(error).__name__
    return "read"


@contextmanager
def _no_longer_than(seconds: int) -> Iterator[None]:
    def end(_: int, __: FrameType | None) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def readers(scratch: Path, run: Path | None = None) -> list[Reader]:
    """Return every reader.

    Args:
        scratch: an empty folder.
        run: a finished run's folder, not changed; None: those of its files are left out.
    """
    of_run = [] if run is None else _of_runs(run, scratch)
    return [*_of_users(scratch), *_of_engines(), *_of_torch(), *of_run]


def _recorded(*patterns: str, most: int = 200_000) -> tuple[bytes, ...]:
    files = [path for pattern in patterns for path in sorted(RECORDED.glob(pattern))]
    return tuple(path.read_bytes() for path in files if path.stat().st_size <= most)


def _of_users(scratch: Path) -> list[Reader]:
    recipes = tuple(path.read_bytes() for path in Path("engines").glob("*.toml"))
    models = tuple(case.bad().SerializeToString() for case in CASES[::7])
    sound = scratch / "sound.onnx"
    sound.write_bytes(CASES[0].good().SerializeToString())
    onnx = f"ort:{sound}"
    arrays, saved = io.BytesIO(), io.BytesIO()
    (feed,) = inputs_for([onnx], None).feeds
    held: dict[str, Any] = {**feed, "labels": np.zeros(len(next(iter(feed.values()))))}
    np.savez(arrays, **held)
    np.savez(saved, images=np.zeros((4, 8, 8), np.uint8), labels=np.arange(4))
    idx = bytes((0, 0, 8, 3)) + b"".join(n.to_bytes(4, "big") for n in (2, 4, 4)) + bytes(32)
    return [
        Reader("recipe", "recipe.toml", recipes, lambda p: load_recipe(p).spec.model_dump(), 3),
        Reader("ONNX", "model.onnx", models, lambda p: preflight(p).to_dict(), 2),
        Reader("inputs", "inputs.npz", (arrays.getvalue(),), lambda p: inputs_for([onnx], p)),
        Reader("data set", "data.npz", (saved.getvalue(),), lambda p: npz(p)),
        Reader("data set", "any.npz", (saved.getvalue(),), lambda p: npz(p, images=False)),
        Reader("IDX", "images-idx3-ubyte", (idx,), lambda p: read_idx(p, 3)),
        Reader("image", "image.png", (_png(),), lambda p: read_image(p, channels=1, size=8)),
    ]


def _png() -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(stream, "PNG")
    return stream.getvalue()


def _of_engines() -> list[Reader]:
    layers = _recorded("layer_info/*.json", "layer_info/*.txt", "trex/*.json", "engines/*.json")
    logs = _recorded("layer_info/*.log", "trex/*.log", "rtx/*.log")
    cache = b"TRT-8601-EntropyCalibration2\ninput: 3c010a14\nconv1: 3d3b1e4a\nfc: 3e000000\n"
    plan = b"ftrt" + bytes(12) + (228).to_bytes(8, "little") + bytes((8, 6, 1, 6)) + bytes(200)
    told = {"name": "m.engine", "sha256": "0", "spec": {}, "parents": {}, "metrics": {"sm": [8, 6]}}
    more = {"fingerprint": "", "versions": {}, "seconds": 1.0, "written": "2026-01-01T00:00:00"}

    def origin(path: Path) -> object:
        return origin_of(path.with_suffix(""))

    times = _recorded("trex/*timing*.json")
    profiles = _recorded("trex/*profile.json")
    ranges = json.dumps({"format": "trt-qat ranges 1", "algorithm": "max", "amax": {"x": 1.0}})
    return [
        Reader("layer listing", "layers.json", layers, inspect_file, 4),
        Reader("engine log", "build.log", logs, inspect_file, 3),
        Reader("engine", "model.engine", (plan,), inspect_file),
        Reader("layer times", "profile.json", profiles, read_layer_times),
        Reader("latencies", "times.json", times, read_latencies),
        Reader("calibration cache", "calib.cache", (cache,), calibration_cache.load),
        Reader("calibration cache", "any.cache", (cache,), inspect_file),
        Reader("ranges", "ranges.json", (ranges.encode(),), Ranges.load),
        Reader("sidecar", "model.engine.json", (json.dumps({**told, **more}).encode(),), origin),
    ]


def _of_runs(run: Path, scratch: Path) -> list[Reader]:
    """Return what reads the files of a run folder, each damaged in a copy of it."""
    baseline = scratch / "baseline.json"
    update(run, baseline)
    known = baseline.read_bytes()
    packed = pack_of(run, scratch)
    outputs = scratch / "outputs.json"
    x = {"x": np.zeros((2, 3), np.float32)}
    save_outputs(outputs, [("a", [x])])
    row = {"name": "a", "point": "a", "overrides": [], "fingerprint": "", "exit_code": 0}
    table = json.dumps({"rows": [row, {**row, "name": "b"}]}).encode()

    def signed(path: Path) -> object:
        """Read a baseline whose digest is that of its damaged content."""
        try:
            document = json.loads(path.read_bytes())
            document.pop("sha256", None)
            digest = artifact.fingerprint(baseline=document)
            path.write_text(json.dumps({**document, "sha256": digest}))
        except (ValueError, AttributeError, TypeError, RecursionError):
            pass
        return check(run, path)

    found = [
        Reader("baseline", "baseline.json", (known,), read_baseline),
        Reader("baseline", "signed.json", (known,), signed, 2),
        Reader("pack", "run.pack", (packed,), lambda p: unpack(p, p.parent / "unpacked"), 2),
        Reader("saved outputs", "outputs.json", (outputs.read_bytes(),), _replayed),
        Reader("saved inputs", "feeds.json", (_saved_inputs(),), lambda p: load_feeds(str(p))),
        Reader("sweep", "sweep.json", (table,), known_rows),
    ]
    copy = scratch / "copy"
    for path in sorted(run.iterdir()):
        # Sidecars vouch for files, and what cannot be read of one vouches for nothing.
        sidecar = path.with_suffix("").is_file() and path.name != "model.onnx.json"
        if path.suffix in (".json", ".npz") and not sidecar:
            whole = path.read_bytes()
            found.append(Reader(f"run: {path.name}", path.name, (whole,), _in(run, copy, baseline)))
    return found


def pack_of(run: Path, scratch: Path) -> bytes:
    """Return the pack of a run."""
    from trt_qat.pipeline.remember import remembered

    return pack(remembered(run), scratch / "run.pack").read_bytes()


def _replayed(path: Path) -> object:
    runner = SavedRunner(path)
    return {name: array.shape for name, array in runner.infer({}).items()}


def _saved_inputs() -> bytes:
    from polygraphy.json import to_json

    return str(to_json([{"x": np.zeros((2, 3), np.float32)}])).encode()


def _in(run: Path, copy: Path, baseline: Path) -> Callable[[Path], object]:
    """Return what reads a run folder in which one file is the damaged one."""

    asks: tuple[Ask, ...] = (of_folder, lambda f: check(f, baseline), write_page, bundle)
    asked = itertools.cycle((asks[:2], asks[2:], asks[1:3]))

    def read(path: Path) -> object:
        if not copy.is_dir():
            shutil.copytree(run, copy)
        target = copy / path.name
        target.write_bytes(path.read_bytes())
        errors: list[TrtQatError] = []
        try:
            for ask in next(asked):
                try:
                    ask(copy)
                except TrtQatError as error:
                    errors.append(error)
        finally:
            shutil.copy2(run / path.name, target)
        if errors:
            raise errors[0]
        return None

    return read


def _of_torch() -> list[Reader]:
    import torch

    from trt_qat.qat.checkpoint import load_into
    from trt_qat.qat.factory import load_weights

    stream, scripted = io.BytesIO(), io.BytesIO()
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    torch.save(model.state_dict(), stream)
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, scripted)
    from safetensors.torch import save

    tensors = save({name: value.clone() for name, value in model.state_dict().items()})
    return [
        Reader("checkpoint", "own.pt", (stream.getvalue(),), lambda p: str(load_into(model, p))),
        Reader("weights", "w.pt", (scripted.getvalue(),), lambda p: load_weights(model, p)),
        Reader("weights", "w.safetensors", (tensors,), lambda p: load_weights(model, p)),
    ]
