"""What became of a layer of a run: its precision, the reason, and the knob that decides it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trt_qat.errors import InputError, nearest
from trt_qat.files import AGAIN, read_json

Document = Mapping[str, Any]

KNOBS = (
    ("head:", "--set quantize.heads=int8 quantizes it: the last layer is float unless asked"),
    ("recipe: not in quantize.include", "add a pattern of it to quantize.include"),
    ("recipe: in quantize.exclude", "take the pattern of it out of quantize.exclude"),
    ("P8: read as float by attention", "--set quantize.attention=int8 quantizes what reads it"),
    ("P8", "what reads it is no INT8 kernel of TensorRT's: nothing to set"),
    ("P9", "no key changes it: TensorRT has no INT8 kernel worth using for it; widen the layer"),
    ("own code", "its own forward hides the weight; call the stock layer's forward from it"),
    ("no gain expected", "--set sparsity.where=fits prunes it all the same"),
    ("first layer", "--set sparsity.skip_first=false prunes it"),
)
"""How a reason begins, and what can be done about it."""


def latest_run(folder: Path = Path("runs")) -> Path:
    """Return the run folder that was written last.

    Raises:
        InputError: there is none.
    """
    found = sorted(folder.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        message = f"{folder}/ holds no run; name one with --run RUN"
        raise InputError(message)
    return found[-1].parent


def layer_explained(name: str, run: Path) -> str:
    """Return what became of a layer, line by line.

    Args:
        name: of a module, as the report shows it.
        run: a run folder that has come to quantize at least.

    Raises:
        InputError: no such layer, or the folder is no run.
    """
    placed = read_json(run / "placement.json", AGAIN)
    whys = {
        key: {each["name"]: each.get("why", "") for each in placed.get(key, ())}
        for key in ("quantized", "float_layers", "float_outputs")
    }
    known = {**whys["quantized"], **whys["float_layers"]}
    if name not in known:
        close = nearest(name, list(known))[:3] if known else []
        message = f"{name!r}: no rule, no key of a recipe, and no layer of {run}"
        message += f"; nearest layers: {', '.join(close)}" if close else ""
        raise InputError(message)
    return "\n".join(_lines(name, run, whys))


def _lines(name: str, run: Path, whys: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    yield f"{name}, a layer of {run}"
    if name in whys["float_layers"]:
        yield f"weights and inputs: float, because {whys['float_layers'][name]}"
        yield from _knob(whys["float_layers"][name])
    else:
        yield f"weights and inputs: {whys['quantized'][name] or 'INT8'}"
        if (why := whys["float_outputs"].get(name)) is not None:
            yield f"output: float, because {why}"
            yield from _knob(why)
    if (run / "sparsity.json").is_file():
        yield from _sparse(name, read_json(run / "sparsity.json", AGAIN))
    if (run / "preflight.json").is_file():
        yield from _judged(name, read_json(run / "preflight.json", AGAIN))


def _knob(why: str) -> Iterator[str]:
    knob = next((knob for begins, knob in KNOBS if why.startswith(begins)), None)
    if knob is not None:
        yield f"knob: {knob}"


def _sparse(name: str, found: Document) -> Iterator[str]:
    if name in {each["name"] for each in found["sparse"]}:
        yield "2:4: yes"
    for each in found["skipped"]:
        if each["name"] == name:
            yield f"2:4: no, because {each['why']}"
            yield from _knob(each["why"])


def _judged(name: str, found: Document) -> Iterator[str]:
    for layer in found["layers"]:
        if layer["name"] == name:
            code = {True: "INT8", False: "float", None: "unknown"}
            yield (
                f"preflight: {layer['op']} computes in {layer['precision']}, "
                f"{code[layer['input_int8']]} in, {code[layer['output_int8']]} out"
                + "".join(f"; {why}" for why in layer["why"])
            )
    for finding in found["findings"]:
        if finding["node"] == name:
            yield f"{finding['rule']} {finding['severity']}: {finding['message']} {finding['mend']}"
