"""A model that lies on a GPU goes through every stage there, as users have it. Needs CUDA.

Batches lie on the CPU, where a DataLoader leaves them, unless a test says otherwise. Sums have
another order there and convolutions TF32, so ranges and outputs agree closely and not exactly; what
was exported is compared with the model at every pair all the same, by `export` itself. What mixes
devices `tests.qat.test_pretended_cuda` finds without a GPU.
"""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import trt_qat as tq
from tests.models import REFERENCE, Reference, outputs_of
from tests.qat.disturbed import floors_of
from tests.qat.training import Arrays, small_model, stripes
from trt_qat.measure.metrics import sqnr_db
from trt_qat.qat.masked import masked_layers
from trt_qat.qat.quantize import ranges_of
from trt_qat.runners.ort import OrtRunner

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="gpu: torch sees no CUDA device"),
    pytest.mark.filterwarnings("ignore"),
]

NEAR_DB, MARGIN_DB = 20.0, 1.0
"""Of outputs in INT8 of two devices, and less a margin where a network's own floor is lower."""
SHORT = {"epochs": 2, "batch_size": 16, "lr": 2e-3, "label_smoothing": 0.0, "precision": "fp32"}
DATA = stripes(160)


def on_gpu(model: nn.Module) -> nn.Module:
    return model.to("cuda")


def batches(reference: Reference) -> list[tuple[Tensor, ...]]:
    return [reference.example_inputs(8, seed) for seed in range(4)]


def images(count: int = 40) -> list[Tensor]:
    return list(torch.split(torch.from_numpy(DATA.images), count))


def is_there(model: nn.Module) -> bool:
    tensors = [*model.parameters(), *model.buffers()]
    return {tensor.device.type for tensor in tensors} == {"cuda"}


def exported(model: nn.Module, example: Any, path: Path) -> list[Any]:
    """Export, which compares; return what onnxruntime computes on the example."""
    tq.export(model, example, path)
    with OrtRunner(path) as runner:
        tensors = [t.cpu().numpy() for t in (example if isinstance(example, tuple) else (example,))]
        return list(runner.infer(dict(zip(runner.inputs, tensors, strict=True))).values())


@cache
def trained() -> nn.Module:
    return tq.finetune(on_gpu(small_model()), DATA, spec=SHORT | {"epochs": 3}, progress=False)


def fresh() -> nn.Module:
    return copy.deepcopy(trained())


# Every reference architecture


@pytest.fixture
def _without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.usefixtures("_without_tf32")
@pytest.mark.parametrize("name", list(REFERENCE))
def test_an_architecture_is_quantized_and_exported_as_on_the_cpu(name: str, tmp_path: Path) -> None:
    reference = REFERENCE[name]
    data = batches(reference)
    floors: list[float] = []
    found: list[Any] = []
    for device in ("cpu", "cuda"):
        model = tq.quantize(reference.build().to(device), data)
        assert {t.device.type for t in (*model.parameters(), *model.buffers())} == {device}
        part = model.get_submodule(reference.traced_part)
        found.append((ranges_of(model).amax, exported(part, data[0], tmp_path / f"{device}.onnx")))
        floors = floors or floors_of(model, part, data[0])
    (here, wanted), (there, got) = found
    assert here.keys() == there.keys()
    off = {key: (here[key], there[key]) for key in here if abs(there[key] / here[key] - 1) > 0.05}
    assert len(off) <= 0.1 * len(here), off
    for at, (ours, theirs, floor) in enumerate(zip(wanted, got, floors, strict=True)):
        assert (sqnr_db(ours, theirs) or np.inf) > min(NEAR_DB, floor - MARGIN_DB), at


# Ranges, formats and methods of PTQ


@pytest.mark.parametrize("where", ["cpu", "cuda"])
@pytest.mark.parametrize("algorithm", ["max", "percentile", "entropy", "mse", "moving_average"])
def test_ranges_are_those_of_the_cpu(algorithm: str, where: str) -> None:
    calibration = {"algorithm": algorithm}
    here = tq.quantize(fresh().cpu(), images(), calibration=calibration)
    given = [batch.to(where) for batch in images()]
    there = tq.quantize(fresh(), given, calibration=calibration)
    assert is_there(there)
    for name, amax in ranges_of(here).amax.items():
        assert ranges_of(there).amax[name] == pytest.approx(amax, rel=0.03), name


@pytest.mark.parametrize(
    "ptq",
    [
        {"equalize": True},
        {"split": True},
        {"rounding": "learned", "rounding_steps": 20},
        {"bias_correction": True},
        {"equalize": True, "split": True, "rounding": "learned", "bias_correction": True},
    ],
)
@pytest.mark.parametrize("zero_point", ["zero", "folded", "padded"])
def test_methods_of_ptq(ptq: dict[str, Any], zero_point: str, tmp_path: Path) -> None:
    model = tq.quantize(fresh(), images(), ptq=ptq, spec={"zero_point": zero_point})
    assert is_there(model)
    with torch.no_grad():
        wanted = trained()(images()[0].cuda()).cpu().numpy()
    (got,) = exported(model, images()[0], tmp_path / "a.onnx")
    assert (sqnr_db(wanted, got) or np.inf) > 10


@pytest.mark.parametrize("smooth", [0.5, "search"])
def test_smoothing(smooth: Any, tmp_path: Path) -> None:
    reference = REFERENCE["vit"]
    data = batches(reference)
    model = tq.quantize(on_gpu(reference.build()), data, ptq={"smooth": smooth})
    exported(model, data[0], tmp_path / "a.onnx")


@pytest.mark.parametrize(
    "spec",
    [
        {"format": "fp8"},
        {"format": "int4", "int4_block": 64},
        {"format": "int4", "int4_block": 64, "int4_method": "awq"},
        {"format": "int4", "int4_block": 64, "int4_method": "gptq"},
        {"format": "nvfp4"},
        {"format": "nvfp4", "nvfp4_method": "gptq"},
        {"layers": {"blocks.0*": "float"}},
    ],
    ids=str,
)
def test_formats(spec: dict[str, Any], tmp_path: Path) -> None:
    reference = REFERENCE["vit"]
    data = batches(reference)
    calibration = {"algorithm": "max"}
    model = tq.quantize(on_gpu(reference.build()), data, spec=spec, calibration=calibration)
    assert is_there(model)
    exported(model, data[0], tmp_path / "a.onnx")


# Masks


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("permute", [False, True])
def test_masks(method: str, permute: bool, tmp_path: Path) -> None:
    spec = {"method": method, "permute": permute}
    model = tq.sparsify(fresh(), images()[0], spec, calibration_batches=images())
    layers = masked_layers(model)
    assert layers
    model = tq.quantize(model, images())
    tq.finetune(model, DATA, spec=SHORT, progress=False)
    assert is_there(model)
    exported(model, images()[0], tmp_path / "a.onnx")
    report = tq.preflight(tmp_path / "a.onnx", target="orin-agx")
    assert sum(layer["sparse"] == "found" for layer in report.to_dict()["layers"]) == len(layers)


def test_masks_by_their_gain() -> None:
    spec = {"where": "gains"}
    model = tq.sparsify(fresh(), images()[0], spec, target="orin-agx")
    assert is_there(model)


# Training


@pytest.mark.parametrize(
    ("options", "spec"),
    [
        ({}, {}),
        ({}, {"precision": "bf16"}),
        ({}, {"precision": "fp16"}),
        ({}, {"precision": "auto"}),
        ({}, {"augment": "shift_flip"}),
        ({}, {"accumulate": 2, "optimizer": "sgd", "lr": 0.01}),
        ({}, {"average": "ema", "ema_decay": 0.9}),
        ({}, {"average": "swa"}),
        ({}, {"sam_rho": 0.05}),
        ({}, {"dampening": 0.1}),
        ({}, {"reestimate_batchnorm": 4}),
        ({}, {"as_deployed": False}),
        ({"learned_scales": True}, {}),
        ({"learned_scales": True}, {"precision": "bf16"}),
        ({"zero_point": "padded"}, {}),
        ({"zero_point": "padded", "learned_scales": True}, {}),
    ],
    ids=str,
)
def test_training(options: dict[str, Any], spec: dict[str, Any], tmp_path: Path) -> None:
    model = tq.quantize(fresh(), images(), spec=options)
    validation = [(torch.from_numpy(DATA.images[:40]), torch.from_numpy(DATA.labels[:40]))]
    tq.finetune(model, DATA, spec=SHORT | spec, validation_batches=validation, progress=False)
    assert is_there(model)
    history = tq.report_of(model).history
    assert all(np.isfinite(row["loss"]) for row in history if "loss" in row)
    exported(model.float(), images()[0], tmp_path / "a.onnx")


@pytest.mark.parametrize("match", ["outputs", "logits"])
@pytest.mark.parametrize("feature_weight", [0.0, 0.3])
def test_distillation(match: str, feature_weight: float) -> None:
    model = tq.quantize(fresh(), images(), ptq={"equalize": True})
    distill = {"match": match, "feature_weight": feature_weight}
    tq.finetune(model, images(16), spec=SHORT, teacher=fresh(), distill=distill, progress=False)
    assert is_there(model)


def test_moving_masks() -> None:
    model = tq.quantize(tq.sparsify(fresh(), images()[0]), images())
    spec = SHORT | {"recompute_masks": 0.5, "recompute_every": 2}
    tq.finetune(model, DATA, spec=spec, progress=False)
    assert is_there(model)


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    def run(epochs: int, *, resume: bool) -> nn.Module:
        model = tq.quantize(tq.sparsify(fresh(), images()[0]), images())
        spec = SHORT | {"epochs": epochs}
        folder = tmp_path / "checkpoint"
        return tq.finetune(
            model, DATA, spec=spec, checkpoint_dir=folder, resume=resume, progress=False
        )

    run(2, resume=False)
    assert is_there(run(2, resume=True))


# What looks at a model


def test_sensitivity_and_suggestion() -> None:
    samples = [(torch.from_numpy(DATA.images), torch.from_numpy(DATA.labels))]
    ranked, suggested = tq.sensitivity(fresh(), images(), samples, budget=0.05)
    assert ranked.to_dict()
    assert suggested is not None


def test_a_budget() -> None:
    samples = [(torch.from_numpy(DATA.images), torch.from_numpy(DATA.labels))]
    sparsity = {"enabled": True}
    found = tq.budget(fresh(), images(), samples, 0.05, target="orin-agx", sparsity=sparsity)
    assert found.layers


def test_the_sharpness_of_a_minimum() -> None:
    model = tq.quantize(fresh(), images())

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0].cuda()), batch[1].cuda())

    batch = (torch.from_numpy(DATA.images[:32]), torch.from_numpy(DATA.labels[:32]))
    assert np.isfinite(tq.sharpness(model, [batch], loss))


def test_norms_are_estimated_again() -> None:
    model = tq.quantize(fresh(), images())
    tq.reestimate_norms(model, images())
    assert is_there(model)


def test_a_model_of_modelopt_is_taken_over(tmp_path: Path) -> None:
    import modelopt.torch.quantization as mtq

    def calibrate(model: nn.Module) -> None:
        for batch in images():
            model(batch.cuda())

    source = mtq.quantize(fresh(), copy.deepcopy(mtq.INT8_DEFAULT_CFG), calibrate)
    model = tq.adopt(source, images())
    exported(model, images()[0], tmp_path / "a.onnx")


def test_an_own_loop_trains_what_was_quantized(tmp_path: Path) -> None:
    model = tq.quantize(tq.sparsify(fresh(), images()[0]), images())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    data: Arrays = DATA
    for _ in range(3):
        outputs = model(torch.from_numpy(data.images).cuda())
        loss = nn.functional.cross_entropy(outputs, torch.from_numpy(data.labels).cuda())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    exported(model.eval(), images()[0].cuda(), tmp_path / "a.onnx")
    with torch.no_grad():
        assert outputs_of(model(images()[0].cuda()))[0].device.type == "cuda"
