"""Make what the GPU check carries to a machine that has TensorRT and no torch.

    python benchmarks/gpu/prepare.py --out /tmp/carried --pieces /tmp/pieces
    python benchmarks/gpu/prepare.py --out /tmp/carried --only resnet18 --only resnet50-224

Every reference architecture of the tests, and some at their published size on 224 x 224 images:
ours dense, ours with 2:4 weights and ModelOpt's stock export, all opset 17 with a dynamic batch,
inputs, what torch and onnxruntime compute on them, and what preflight predicts. The float network
and the form with FP32 weights are derived where they are built (benchmarks/gpu/forms.py).
**Weights are random** (seed 0, normalisation warmed up, 2:4 by magnitude, no fine-tuning): they say
nothing of accuracy, which is measured elsewhere, and everything of kernels and of numerics.

ModelOpt's exporter needs packages beside it: see benchmarks/placement.py. Models that are done are
left as they are; what cannot be exported is written down and does not stop the rest.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import modelopt.torch.quantization as mtq
import numpy as np
import onnx
import torch
from torch import nn

from benchmarks.gpu import carry, forms
from benchmarks.placement import batches, quiet
from tests.models import REFERENCE, Reference, mobilenet_v2, outputs_of, resnet34, resnet50, vit
from tests.models.reference import built, images
from trt_qat.artifact import atomic_path, platform_facts, versions, write_json
from trt_qat.errors import TrtQatError, first_line
from trt_qat.lint.preflight import preflight
from trt_qat.measure.metrics import sqnr_db
from trt_qat.qat.export import export
from trt_qat.qat.quantize import quantize
from trt_qat.qat.sparsify import sparsify
from trt_qat.recipe.specs import ExportSpec
from trt_qat.runners.ort import OrtRunner

OPSET = 17
SAMPLES = {False: 32, True: 8}
"""Inputs that are carried: for the small models, and for those at their published size."""


def _published(name: str, factory: Callable[..., nn.Module], **given: Any) -> Reference:
    inputs = images(size=224)
    build = built(partial(factory, num_classes=1000, **given), inputs)
    return Reference(name, build, inputs, family="conv", task="classification")


PUBLISHED = {
    each.name: each
    for each in (
        _published("resnet50-224", resnet50, width=64),
        _published("resnet34-224", resnet34, width=64),
        _published("mobilenet_v2-224", mobilenet_v2, width=1.0),
        _published("vit_small-224", vit, image=224, patch=16, dim=384, depth=12, heads=6),
    )
}
MODELS = REFERENCE | PUBLISHED


def ours(reference: Reference, folder: Path, *, sparse: bool, **options: Any) -> list[str]:
    """Write our export, dense or 2:4; options are those of quantize."""
    model = reference.build()
    if sparse:
        model = sparsify(model, batches(reference)[0])
    model = quantize(model, batches(reference), **options)
    part = model.get_submodule(reference.traced_part)
    name = "sparse" if sparse else "dense"
    export(part, batches(reference)[0], folder / f"{name}.onnx", spec=ExportSpec(opset=OPSET))
    return [name]


def stock(reference: Reference, folder: Path) -> list[str]:
    """Write what ModelOpt exports by default, its weights as INT8 initialisers (the same codes)."""
    from modelopt.torch._deploy.utils.torch_onnx import OnnxBytes, get_onnx_bytes_and_metadata

    def calibrate(model: nn.Module) -> None:
        for batch in batches(reference):
            model(*batch)

    example = batches(reference)[0]
    with quiet():
        model = mtq.quantize(reference.build(), copy.deepcopy(mtq.INT8_DEFAULT_CFG), calibrate)
        part = model.get_submodule(reference.traced_part)
        names = list(inspect.signature(part.forward).parameters)[: len(example)]
        packed, _ = get_onnx_bytes_and_metadata(
            part, example, onnx_opset=OPSET, dynamic_axes={name: {0: "batch"} for name in names}
        )
    content = OnnxBytes.from_bytes(packed).get_onnx_model_file_bytes()
    made = forms.with_int8_weights(onnx.load_from_string(content))
    for value in made.graph.output:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    _save(made, folder / "stock.onnx")
    return ["stock"]


def _save(model: onnx.ModelProto, path: Path) -> None:
    with atomic_path(path) as temporary:
        onnx.save(model, temporary)


def answers(reference: Reference, folder: Path, names: Sequence[str], count: int) -> dict[str, Any]:
    """Write inputs and reference outputs; return what is known of each ONNX."""
    inputs = reference.example_inputs(count, seed=100)
    part = reference.build().get_submodule(reference.traced_part)
    with torch.no_grad():
        found = outputs_of(part(*inputs))
    arrays = {f"torch/{at}": tensor.numpy() for at, tensor in enumerate(found)}
    known = {}
    for name in (*names, *(["fp32"] if "dense" in names else [])):
        path = forms.file_of(folder, name, folder / "forms")
        with OrtRunner(path) as runner:
            feed = dict(zip(runner.inputs, (x.numpy() for x in inputs), strict=True))
            outputs = runner.infer(feed)
            rounded = runner.infer({key: _rounded(array) for key, array in feed.items()})
        arrays |= {f"{name}/{key}": array for key, array in outputs.items()}
        report = preflight(path)
        known[name] = {
            "inputs": list(feed),
            "preflight": report.to_dict() | {"model": name},
            "rounding_sqnr_db": [sqnr_db(outputs[key], rounded[key]) for key in outputs],
        }
    shutil.rmtree(folder / "forms", ignore_errors=True)
    for file, content in (("answers.npz", arrays), ("inputs.npz", _by_position(inputs))):
        with atomic_path(folder / file) as temporary:
            np.savez_compressed(temporary, **content)
    return known


def _rounded(array: Any) -> Any:
    """Round an input to FP16: how far that alone moves the outputs is the floor of agreement."""
    if array.dtype != np.float32:
        return array
    return array.astype(np.float16).astype(np.float32)


def _by_position(inputs: Sequence[torch.Tensor]) -> dict[str, Any]:
    return {str(at): tensor.numpy() for at, tensor in enumerate(inputs)}


def prepare(
    reference: Reference,
    folder: Path,
    *,
    published: bool = False,
    forms: Sequence[str] = ("dense", "sparse", "stock"),
    **options: Any,
) -> dict[str, Any]:
    """Write the folder of one model; return its entry of the manifest.

    Args:
        reference: the model.
        folder: for its files.
        published: whether it has its published size, and so an engine for every batch size.
        forms: which of `catalog.CARRIED` are made.
        options: of quantize, for our exports.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made, refused = [], {}
    jobs: dict[str, Callable[[], list[str]]] = {
        "dense": lambda: ours(reference, folder, sparse=False, **options),
        "sparse": lambda: ours(reference, folder, sparse=True, **options),
        "stock": lambda: stock(reference, folder),
    }
    for name in forms:
        try:
            made += jobs[name]()
        except (TrtQatError, RuntimeError, ImportError, ValueError) as error:
            refused[name] = f"{type(error).__name__}: {first_line(error)}"
    entry = {
        "family": reference.family,
        "published": published,
        "samples": SAMPLES[published],
        "onnx": made,
        "refused": refused,
        "known": answers(reference, folder, made, SAMPLES[published]),
    }
    write_json(folder / "entry.json", entry)
    return entry


def main() -> None:
    """Prepare the models that are asked for, write the manifest, and cut the pieces."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to carry")
    parser.add_argument("--pieces", type=Path, help="folder for pieces of less than 60 MB")
    parser.add_argument("--only", action="append", choices=list(MODELS), help="repeatable")
    given = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order: the same scales on every machine
    entries = {}
    for name in given.only or MODELS:
        done = given.out / name / "entry.json"
        if done.is_file():
            entries[name] = json.loads(done.read_text(encoding="utf-8"))
            continue
        entries[name] = prepare(MODELS[name], given.out / name, published=name in PUBLISHED)
        print(name, *(f"{k}: {v}" for k, v in entries[name]["refused"].items()), flush=True)
    only = [word for name in given.only or () for word in ("--only", name)]
    document = {
        "command": shlex.join(["python", "benchmarks/gpu/prepare.py", *only]),
        "weights": "random, seed 0",
        "opset": OPSET,
        "versions": versions(),
        "machine": platform_facts(),
        "models": entries,
    }
    carry.write_manifest(given.out, document)
    if given.pieces:
        made = carry.split(given.out, given.pieces)
        print(f"{len(made)} pieces in {given.pieces}")


if __name__ == "__main__":
    main()
