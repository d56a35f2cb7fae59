"""A model on a GPU, which is pretended, goes through the stages beside batches on the CPU.

It finds without a GPU what mixes devices; `tests.qat.test_on_cuda` is the same on a real one, where
numbers come out otherwise as well.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import trt_qat as tq
from tests.models import REFERENCE
from tests.pretended_device import pretended_cuda
from tests.qat.test_adopt import BATCHES, normed
from tests.qat.test_adopt_pt2e import pt2e_of as prepared_graph
from tests.qat.test_adopt_pt2e import x86_quantizer
from tests.qat.test_exported import Trained, graph_of
from tests.qat.test_split import inputs as pictures
from tests.qat.test_split import net as silent_in_part
from tests.qat.training import small_model, stripes
from trt_qat.comparison.layerwise import compare_layers
from trt_qat.qat.aten import lowered
from trt_qat.qat.evaluate import evaluate
from trt_qat.qat.judge import Judge
from trt_qat.qat.masked import masked_layers
from trt_qat.qat.tapped import TorchTapped
from trt_qat.runners.ort_tapped import OrtTapped

pytestmark = pytest.mark.filterwarnings("ignore")

SHORT = {"epochs": 1, "batch_size": 16, "lr": 2e-3, "label_smoothing": 0.0, "precision": "fp32"}
DATA = stripes(48)


@pytest.fixture(autouse=True)
def _device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    trained()  # before, or it would lie on the device of the first test
    with pretended_cuda():
        # accelerate looks for a real one, once a process, and another test's may still be there.
        monkeypatch.setattr("accelerate.state.PartialState._shared_state", {})
        monkeypatch.setattr("accelerate.state.AcceleratorState._shared_state", {})
        monkeypatch.setattr("accelerate.state.PartialState.default_device", torch.device("cuda"))
        yield


@cache
def trained() -> nn.Module:
    return tq.finetune(small_model(), DATA, spec=SHORT | {"epochs": 3}, progress=False)


def fresh() -> nn.Module:
    return copy.deepcopy(trained()).to("cuda")


def images(count: int = 24) -> list[Tensor]:
    return list(torch.split(torch.from_numpy(DATA.images), count))


def samples() -> list[tuple[Tensor, Tensor]]:
    return [(torch.from_numpy(DATA.images), torch.from_numpy(DATA.labels))]


def is_there(model: nn.Module) -> bool:
    tensors = [*model.parameters(), *model.buffers()]
    return {tensor.device.type for tensor in tensors} == {"cuda"}


def loss_on_gpu(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0].cuda()), batch[1].cuda())


# PTQ


@pytest.mark.parametrize("algorithm", ["max", "percentile", "entropy", "mse", "moving_average"])
def test_ranges(algorithm: str) -> None:
    assert is_there(tq.quantize(fresh(), images(), calibration={"algorithm": algorithm}))


@pytest.mark.parametrize("zero_point", ["zero", "folded", "padded"])
def test_methods_of_ptq(zero_point: str) -> None:
    ptq = {"equalize": True, "bias_correction": True, "rounding": "learned", "rounding_steps": 3}
    assert is_there(tq.quantize(fresh(), images(), ptq=ptq, spec={"zero_point": zero_point}))


def test_channels_are_split() -> None:
    model = tq.quantize(silent_in_part().to("cuda"), pictures(), ptq={"split": True})
    assert is_there(model)
    assert tq.report_of(model).moved


@pytest.mark.parametrize(
    ("spec", "ptq"),
    [
        ({}, {"smooth": "search"}),
        ({"format": "fp8"}, {}),
        ({"format": "int4", "int4_block": 64, "int4_method": "awq"}, {}),
        ({"format": "int4", "int4_block": 64, "int4_method": "gptq"}, {}),
        ({"format": "nvfp4"}, {}),
        ({"format": "nvfp4", "nvfp4_method": "gptq"}, {}),
        ({"layers": {"blocks.0*": "float"}}, {}),
    ],
    ids=str,
)
def test_formats_and_smoothing(spec: dict[str, Any], ptq: dict[str, Any]) -> None:
    reference, calibration = REFERENCE["vit"], {"algorithm": "max"}
    data = [reference.example_inputs(2, seed) for seed in range(2)]
    model = reference.build().to("cuda")
    assert is_there(tq.quantize(model, data, spec=spec, calibration=calibration, ptq=ptq))


# Masks


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("permute", [False, True])
def test_masks(method: str, permute: bool) -> None:
    spec = {"method": method, "permute": permute}
    model = tq.sparsify(fresh(), images()[0], spec, calibration_batches=images())
    assert masked_layers(model)
    assert is_there(tq.quantize(model, images()))


def test_masks_by_their_gain() -> None:
    assert is_there(tq.sparsify(fresh(), images()[0], {"where": "gains"}, target="orin-agx"))


# Training


@pytest.mark.parametrize(
    ("options", "spec"),
    [
        ({}, {"precision": "bf16", "augment": "shift_flip"}),
        ({}, {"average": "ema", "reestimate_batchnorm": 2}),
        ({}, {"sam_rho": 0.05, "dampening": 0.1, "accumulate": 2}),
        ({"learned_scales": True}, {"as_deployed": False}),
        ({"learned_scales": True, "zero_point": "padded"}, {"recompute_masks": 0.5}),
    ],
    ids=str,
)
def test_training(options: dict[str, Any], spec: dict[str, Any]) -> None:
    model = tq.quantize(tq.sparsify(fresh(), images()[0]), images(), spec=options)
    given: dict[str, Any] = {"spec": SHORT | spec, "validation_batches": samples()}
    assert is_there(tq.finetune(model, DATA, progress=False, **given))


def test_a_model_of_the_cpu_is_trained_twice_and_comes_back() -> None:
    model = tq.quantize(copy.deepcopy(trained()), images())
    for _ in range(2):  # each takes it to the GPU
        tq.finetune(model, DATA, spec=SHORT, progress=False)
        assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    for resume in (False, True):
        model = tq.quantize(fresh(), images())
        given: dict[str, Any] = {"checkpoint_dir": tmp_path, "resume": resume}
        assert is_there(tq.finetune(model, DATA, spec=SHORT, progress=False, **given))


@pytest.mark.parametrize("match", ["outputs", "logits"])
def test_distillation_by_a_teacher_on_the_cpu(match: str) -> None:
    model = tq.quantize(fresh(), images())
    distill = {"match": match, "feature_weight": 0.3}
    teacher = copy.deepcopy(trained())
    tq.finetune(model, images(16), spec=SHORT, teacher=teacher, distill=distill, progress=False)
    assert is_there(model)


def test_an_own_loop() -> None:
    model = tq.quantize(fresh(), images(), spec={"learned_scales": True})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(2):
        loss = loss_on_gpu(model, samples()[0])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert is_there(model)


# What looks at a model


@pytest.mark.parametrize("teachers", ["cpu", "cuda"])
def test_evaluation_by_a_teacher_elsewhere(teachers: str) -> None:
    model = fresh().to({"cpu": "cuda", "cuda": "cpu"}[teachers])
    loss = nn.functional.mse_loss
    found = evaluate(model, images(), teacher=fresh().to(teachers), loss_fn=loss)
    assert found.loss == pytest.approx(0)


def test_sensitivity_and_suggestion() -> None:
    ranked, suggested = tq.sensitivity(fresh(), images(), samples(), budget=0.05)
    assert ranked.layers
    assert suggested is not None


@pytest.mark.parametrize("by", ["score", "agreement", "sqnr"])
def test_a_judge(by: Any) -> None:
    judge = Judge(fresh(), samples(), by=by)
    assert judge.quality(tq.quantize(fresh(), images())) <= judge.float_quality


def test_a_budget() -> None:
    given: dict[str, Any] = {"spec": {"include": ("stages.1*",)}, "sparsity": {"enabled": True}}
    assert tq.budget(fresh(), images(), samples(), 0.05, target="orin-agx", **given).layers


def test_the_sharpness_of_a_minimum() -> None:
    model = tq.quantize(fresh(), images())
    assert np.isfinite(tq.sharpness(model, samples(), lambda batch: loss_on_gpu(model, batch)))


def test_norms_are_estimated_again() -> None:
    model = tq.quantize(fresh(), images())
    assert tq.reestimate_norms(model, images())
    assert is_there(model)


@pytest.mark.parametrize("lie", ["cpu", "cuda"])
def test_a_model_of_modelopt_is_taken_over(lie: str) -> None:
    import modelopt.torch.quantization as mtq

    def calibrate(model: nn.Module) -> None:
        for batch in images():
            model(batch.cuda())

    source = mtq.quantize(fresh(), copy.deepcopy(mtq.INT8_DEFAULT_CFG), calibrate)
    assert is_there(tq.adopt(source, [batch.to(lie) for batch in images()]))


def test_a_graph_of_torchao_is_taken_over() -> None:
    prepared = prepared_graph(normed(), x86_quantizer(qat=False), qat=False).to("cuda")
    assert is_there(tq.adopt(prepared, [batch.clone() for batch in BATCHES]))


def test_what_a_graph_scales_a_convolution_by_is_folded_into_it() -> None:
    made = lowered(graph_of(Trained().eval()).to("cuda"))
    assert [type(layer) for layer in made.children()] == [nn.Conv2d]


def test_export_and_comparison_layer_by_layer(tmp_path: Path) -> None:
    model = tq.quantize(tq.sparsify(fresh(), images()[0]), images())
    path = tq.export(model, images()[0], tmp_path / "a.onnx")
    feed = {"x": DATA.images[:8]}
    assert compare_layers(TorchTapped(model), OrtTapped(path), [feed]).first_divergence is None


def test_a_recorded_loop(tmp_path: Path) -> None:
    with tq.Run(tmp_path / "mine", test=samples(), build={"backend": "tensorrt"}) as run:
        run.float_model(model := fresh(), images())
        model = run.quantize(run.sparsify(model))
        run.export(model)
    assert is_there(model)
    assert {"fp32", "onnx"} <= run.result.metrics.keys()


RECIPE = """
name = "there"
[model]
factory = "there:there"
[data]
source = "digits"
[calibration]
samples = 16
[train]
epochs = 1
[finetune]
epochs = 0.1
"""
FACTORY = """
from trt_qat.qat.models import residual_cnn
def there():
    return residual_cnn(widths=[16, 16], num_classes=10).to("cuda")
"""


def test_a_recipe_whose_factory_puts_the_model_there(tmp_path: Path) -> None:
    (tmp_path / "there.toml").write_text(RECIPE)
    (tmp_path / "there.py").write_text(FACTORY)
    tq.run(tmp_path / "there.toml", out=tmp_path / "run", until="export")
