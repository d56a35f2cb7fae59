"""Whether what a run made may ship: three states, each with its reasons and the next command.

The one place that decides it: the page, ``manifest.json`` and the exit code of ``trt-qat check``
say what stands here. An ONNX that was compared with what was trained is verified; an engine is only
what ran on a GPU and was held against that ONNX there.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from trt_qat.artifact import reads_run
from trt_qat.files import AGAIN, read_json, read_manifest, recipe_of
from trt_qat.gate.parity import at_chance
from trt_qat.wording import counted, other_formats, sparse_words

Document = Mapping[str, Any]
State = Literal["ship", "onnx-verified", "do-not-ship"]

EXIT_CODES: dict[State, int] = {"ship": 0, "do-not-ship": 1, "onnx-verified": 4}

PARTS = {
    "metrics": "metrics.json",
    "compare": "compare.json",
    "preflight": "preflight.json",
    "sparsity": "sparsity.json",
    "placement": "placement.json",
    "engine": "layers.json",
    "scored": "engine.json",
}
"""What a verdict is read from, beside the manifest."""


def summary_of(parts: Document) -> Document | None:
    """Return preflight's counts of a run; None: it has not judged the ONNX."""
    found: Document | None = (parts.get("preflight") or {}).get("summary")
    return found


_NEXT = {
    "engine": "trt-qat pack {run}  # then, where the GPU and TensorRT are: trt-qat run "
    "{name}.tqpack --from build",
    "accuracy_loss": "trt-qat sensitivity {recipe} --budget 0.005",
    "sparsity": "trt-qat run {recipe} --set sparsity.enabled=false",
    "engine_differs": "trt-qat compare --ref ort:{run}/model.onnx --cand trt:{run}/model.engine "
    "--data {run} --bisect",
    "chance": "trt-qat run {recipe} --set train.epochs={epochs:g}",
    "preflight": "trt-qat preflight {run}/model.onnx --fix {run}/mended.onnx",
    "argmax_agreement": "trt-qat compare --ref ort:{run}/model.onnx --cand ort-int8:{run}/"
    "model.onnx --data {run}",
}
_RUN = "trt-qat run {recipe} --out {run}"

_NEXT_OF_A_LOOP = {
    "engine": "run.pack()  # in the script, after its with block; then, where the GPU and "
    "TensorRT are: trt-qat run {name}.tqpack --from build",
    "accuracy_loss": "run.sensitivity(budget=0.005)  # in the script, inside its with block",
    "sparsity": "run the script again without run.sparsify, or train longer behind it",
    "chance": "train the float model longer, and run the script again",
    "preflight": _NEXT["preflight"],
}
_LOOP = "run the script again"

OWN_LOOP = "own loop"
"""Stands where a recipe names what it trains, in a run that a loop of the user's recorded."""


@dataclass(frozen=True)
class Verdict:
    """Whether a run may ship.

    Attributes:
        state: ship, onnx-verified or do-not-ship.
        title: the state in words.
        reasons: what makes it that state, the weightiest first.
        notes: what is true besides and should be known: INT8 coverage, 2:4, target.
        next: the command that leads on.
    """

    state: State
    title: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    next: str

    @property
    def exit_code(self) -> int:
        """What ``trt-qat check`` returns for it."""
        return EXIT_CODES[self.state]

    def to_dict(self) -> dict[str, Any]:
        """Return the entry ``verdict`` of ``manifest.json``."""
        document = asdict(self)
        return document | {"reasons": list(self.reasons), "notes": list(self.notes)}


@reads_run
def of_folder(folder: Path, manifest: Document | None = None, *, named: bool = True) -> Verdict:
    """Return the verdict on a run folder, from the files that its manifest names.

    Args:
        folder: of the run.
        manifest: its content, if it is known.
        named: commands name this folder; else the one that the recipe's name gives.

    Raises:
        InputError: a file is missing or damaged.
    """
    known = manifest or read_manifest(folder / "manifest.json", AGAIN)
    made = known.get("artifacts", {})
    parts = {key: read_json(folder / name, AGAIN) for key, name in PARTS.items() if name in made}
    gone = [name for name in ("model.onnx", "model.engine") if name in made
            and not (folder / name).is_file()]  # fmt: skip
    return verdict(known, parts, run=str(folder) if named else None, gone=gone)


def verdict(
    manifest: Document, parts: Document, *, run: str | None = None, gone: list[str] | None = None
) -> Verdict:
    """Judge a run.

    Args:
        manifest: of the run.
        parts: its files by what they hold, as `PARTS` names them; any may be absent.
        run: the folder as commands name it; None: below ``runs/``.
        gone: files that the manifest names and that are not there any more.
    """
    gone = gone or []
    notes = tuple(_notes(manifest, parts))
    faults = list(_faults(manifest, parts, gone))
    if faults:
        kind, reasons = faults[0][0], tuple(text for _, text in faults)
        if kind in ("accuracy_loss", "chance") and (cause := _pruned_away(manifest, parts)):
            kind, reasons = "sparsity", (*reasons, cause)
        return Verdict("do-not-ship", "do not ship", reasons, notes, _next(kind, manifest, run))
    missing = _engine_missing(manifest, parts, gone)
    compared = _compared(parts)
    if missing is not None:
        title, why = missing
        return Verdict(
            "onnx-verified", title, (why, compared), notes, _next("engine", manifest, run)
        )
    ran = "the engine ran on its GPU and computes what the ONNX does"
    folder = run or _folder(manifest)
    return Verdict("ship", "ship", (ran, compared), notes, f"trt-qat bundle {folder}")


def _faults(manifest: Document, parts: Document, gone: list[str]) -> Iterator[tuple[str, str]]:
    """Yield what forbids to ship: which check, and a sentence."""
    for item in manifest.get("failures", ()):
        yield str(item.get("check", "")), str(item.get("message", item))
    if "model.onnx" in gone:
        yield "unverified", "model.onnx is gone from the run folder"
    if "compare" not in parts:
        stage = next((s["name"] for s in reversed(manifest.get("stages", ()))
                      if s.get("status") != "skipped"), "nothing")  # fmt: skip
        text = "the ONNX was not compared with what was trained: the run has come as far as"
        yield "unverified", f"{text} {stage}"
    elif not parts["compare"].get("passed", True) and not manifest.get("failures"):
        yield "argmax_agreement", "the ONNX differs from what was trained by more than is allowed"
    failed = {item.get("check") for item in manifest.get("failures", ())}
    yield from _bad_scores(parts, failed)
    if "model.engine" not in gone:
        yield from _bad_engine(manifest, parts)
    summary = summary_of(parts)
    if summary is None:
        yield "unverified", "preflight has not judged the ONNX"
        return
    if summary["errors"] and "preflight" not in failed:
        yield "preflight", f"preflight finds {counted(summary['errors'], 'error')} in the ONNX"
    if summary["layers"] and not summary["int8"] and not other_formats(summary):
        yield "float", f"none of {counted(summary['layers'], 'layer')} is INT8: a float network"


def _bad_scores(parts: Document, failed: set[Any]) -> Iterator[tuple[str, str]]:
    scores = parts.get("metrics", {})
    for key in ("engine", "onnx", "qat", "fp32"):
        value = (scores.get(key) or {}).get("accuracy")
        if value is not None and not math.isfinite(value):
            yield "chance", f"the accuracy of {key} is no number"
            return
    known, entry = parts.get("compare", {}).get("chance"), scores.get("onnx")
    if known and entry and known["above"] is False and "chance" not in failed:
        yield "chance", at_chance(known, entry)


def _pruned_away(manifest: Document, parts: Document) -> str | None:
    """Return that 2:4 cost the accuracy, where the dense network held it in INT8."""
    found = {key: entry.get("accuracy") for key, entry in parts.get("metrics", {}).items()}
    if any(found.get(key) is None for key in ("fp32", "ptq", "sparse")):
        return None
    fp32, ptq, sparse = (float(found[key]) for key in ("fp32", "ptq", "sparse"))
    spec = manifest.get("recipe", {}).get("spec", {})
    allowed = spec.get("tolerances", {}).get("accuracy_loss", 0.0)
    if fp32 - ptq > allowed or fp32 - sparse <= allowed:
        return None
    return f"2:4 costs it: in INT8 without 2:4 or training the network reaches {ptq:.2%}"


def _bad_engine(manifest: Document, parts: Document) -> Iterator[tuple[str, str]]:
    """Yield how an engine that ran on the test set is not what was trained."""
    found = parts.get("scored") or {}
    if found.get("passed") is False:
        outputs: list[Document] = list(found.get("outputs", ()))
        wrong: Document = next((o for o in outputs if not o.get("passed", True)), {})
        yield (
            "engine_differs",
            (
                f"the engine differs from its ONNX by more than is allowed on "
                f"{counted(found.get('samples', 0), 'test sample')}: output {wrong.get('name')!r}, "
                f"{wrong.get('asked', 'no number')}"
            ),
        )
    spec = manifest.get("recipe", {}).get("spec", {})
    allowed = spec.get("tolerances", {}).get("accuracy_loss")
    fp32, own = (
        parts.get("metrics", {}).get(key, {}).get("accuracy") for key in ("fp32", "engine")
    )
    if None not in (fp32, own, allowed) and fp32 - own > allowed:
        yield (
            "accuracy_loss",
            (
                f"the engine reaches {own:.2%}, {fp32 - own:.2%} below FP32; "
                f"tolerances.accuracy_loss = {allowed}"
            ),
        )


def _engine_missing(manifest: Document, parts: Document, gone: list[str]) -> tuple[str, str] | None:
    """Return why no engine is proven, as a title and a sentence; None: one is."""
    stages = {stage["name"]: stage for stage in manifest.get("stages", ())}
    build = stages.get("build", {})
    not_built = "ONNX verified, engine not built"
    if "model.engine" in gone:
        return not_built, "model.engine is gone from the run folder"
    if "engine" not in parts:
        return not_built, f"no engine: {build.get('why') or 'the build has not run'}"
    if "scored" in parts:  # it ran on the whole test set, whoever compiled it
        return None
    held = build.get("verification") or {}
    source = parts["engine"].get("source", {})
    if source.get("backend") == "rtx":
        return "ONNX verified, engine built and never run", (
            f"the engine is of TensorRT for RTX {source.get('rtx')}, built without a GPU: it has "
            "not been run, and neither its answers nor its speed are known"
        )
    if not held.get("checked"):
        return "ONNX verified, engine built and not compared", (
            f"the engine was not held against its ONNX: {held.get('why') or 'nothing says it was'}"
        )
    return None


def _compared(parts: Document) -> str:
    found = parts["compare"]
    output = found["outputs"][0]
    return (
        f"the ONNX answers as the trained model does on {counted(found['samples'], 'test sample')}"
        f" ({output.get('asked') or 'within the tolerances'})"
    )


def _notes(manifest: Document, parts: Document) -> Iterator[str]:
    summary = summary_of(parts)
    if summary is not None:
        if more := other_formats(summary):
            yield more
        if summary["int8"] or not more:
            yield (
                f"INT8 in {summary['int8']} of {counted(summary['layers'], 'layer')}, "
                f"{summary['int8_in_int8_out']} of them INT8 in and out"
            )
        yield sparse_words(summary["sparse_found"], summary["sparse_likely"])
    if (parts.get("compare", {}).get("chance") or {}).get("above", True) is None:
        yield "so few test samples, or labels, cannot tell its answers from chance"
    dropped = (parts.get("sparsity") or {}).get("skipped", ())
    spec = manifest.get("recipe", {}).get("spec", {})
    asked = spec.get("sparsity", {}).get("enabled") and not _by_hand(manifest)
    if asked and "sparsity" in parts and not parts["sparsity"]["sparse"]:
        yield f"the recipe asks for 2:4, and none of {counted(len(dropped), 'layer')} took it"
    if summary is not None and not spec.get("target"):
        yield "no target is named, so nothing about a device was judged"
    yield from (parts.get("placement") or {}).get("warnings", ())


def _next(kind: str, manifest: Document, run: str | None) -> str:
    recipe = manifest.get("recipe", {})
    spec = recipe.get("spec", {})
    settings = [f"--set {shlex.quote(text)}" for text in recipe.get("overrides", ())]
    folder = run or _folder(manifest)
    text = _NEXT_OF_A_LOOP.get(kind, _LOOP) if _by_hand(manifest) else _NEXT.get(kind, _RUN)
    return text.format(
        run=shlex.quote(folder),
        recipe=" ".join([shlex.quote(_recipe(recipe, run)), *settings]),
        epochs=2 * spec.get("train", {}).get("epochs", 10.0),
        name=Path(folder).resolve().name,
    )


def _by_hand(manifest: Document) -> bool:
    """Tell whether a loop of the user's own made the run, and no recipe."""
    model = manifest.get("recipe", {}).get("spec", {}).get("model", {})
    return bool(model.get("factory") == OWN_LOOP)


def _recipe(recipe: Document, run: str | None) -> str:
    """Return the path of a recipe from the working folder, where that is known; else its name."""
    if run is not None and (known := recipe_of(Path(run))) is not None:
        path, _ = known
        return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    return str(recipe.get("engine", "ENGINE.toml"))


def _folder(manifest: Document) -> str:
    return f"runs/{manifest.get('name', 'RUN')}"
