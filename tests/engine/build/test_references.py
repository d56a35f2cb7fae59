"""Every reference architecture is parsed and built by NVIDIA's compiler, and predicted right.

Most of the time goes into exports, so all but one run with ``make engines``, a network a worker;
``benchmarks/rtx.py`` sets their forms side by side. ModelOpt's stock placement is written by
torch's TorchScript exporter, which needs no more than ModelOpt itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("modelopt")

import modelopt.torch.quantization as mtq
import torch

import trt_qat as tq
from benchmarks.placement import quiet
from tests.engine.aot.rtx import needs_rtx
from tests.models import REFERENCE, Reference
from trt_qat.engine.build.build import build
from trt_qat.recipe.specs import BuildSpec, ExportSpec

pytestmark = needs_rtx
QUICK = ("two_inputs",)
NOT_EXPORTED = ("untraceable",)  # export refuses it: its control flow depends on values
TOO_SMALL_FOR_2_4 = ("functional",)
NO_STOCK_FORM = ("functional",)  # ModelOpt quantizes modules, and its layers are functions
TARGETS = ("a100", "rtx-3090", "rtx-4090", "rtx-5090")  # 8.0, 8.6, 8.9, 12.0
KNOWN = {"Conv": 0, "ConvTranspose": 4, "MatMul": 8, "Gemm": 1}
"""How many layers of a network the compiler may treat otherwise than predicted, by operator."""

Exported = Callable[[str, bool], Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Exports a reference architecture once, dense or 2:4."""
    folder = tmp_path_factory.mktemp("exported")

    def make(name: str, sparse: bool) -> Path:
        path = folder / f"{name}{'-2-4' if sparse else ''}.onnx"
        if not path.exists():
            reference: Reference = REFERENCE[name]
            model = reference.build()
            if sparse:
                model = tq.sparsify(model, reference.example_inputs(2))
            model = tq.quantize(model, [reference.example_inputs(2)])
            # That exports compute what their models do is held elsewhere.
            tq.export(model, reference.example_inputs(2), path, spec=ExportSpec(verify=False))
        return path

    return make


def stock(reference: Reference, path: Path) -> Path:
    """ModelOpt's INT8_DEFAULT_CFG, as it is exported without our placement."""

    def calibrate(model: torch.nn.Module) -> None:
        model(*reference.example_inputs(2))

    with quiet():
        config = copy.deepcopy(mtq.INT8_DEFAULT_CFG)
        model = mtq.quantize(reference.build(), config, calibrate)
        part = model.get_submodule(reference.traced_part)
        torch.onnx.export(
            part, reference.example_inputs(4), path, dynamo=False, opset_version=17
        )  # fmt: skip
    return path


def names(*without: str, quick: tuple[str, ...] = ()) -> list[Any]:
    """The reference architectures; all forms of one go to one worker, which exports it once."""
    return [
        pytest.param(
            name,
            marks=[pytest.mark.xdist_group(name)] + [pytest.mark.slow] * (name not in quick),
        )
        for name in REFERENCE
        if name not in (*NOT_EXPORTED, *without)
    ]


def held(layers: dict[str, Any]) -> None:
    """Every layer is listed, and predicted right or known not to be."""
    found = layers["agreement"]
    assert found["layers"] == found["found"]
    for entry in found["differ"]:
        assert entry["why"], entry
    for op, most in KNOWN.items():
        assert sum(entry["op"] == op for entry in found["differ"]) <= most
    assert found["precision"] + len(found["differ"]) == found["layers"]
    # What this compiler lacks is foreseen, but for the product with one column.
    assert len(found["differ"]) - found["foreseen"] <= KNOWN["Gemm"]


@pytest.mark.parametrize("name", names(quick=QUICK))
@pytest.mark.parametrize("remainder", ["fp16", "fp32"])
def test_a_reference_is_built_and_its_precisions_are_as_predicted(
    name: str, remainder: str, exported: Exported, tmp_path: Path
) -> None:
    spec = BuildSpec.model_validate(
        {"remainder": remainder, "batch": (4, 4, 4)} | {"compare_fp16": False}
    )
    engine = tmp_path / "model.engine"
    made = build(exported(name, False), engine, target=TARGETS[2], spec=spec, backend="rtx")
    held(made.layers)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", names())
def test_a_reference_is_built_for_every_capability(
    name: str, target: str, exported: Exported, tmp_path: Path
) -> None:
    spec = BuildSpec(batch=(4, 4, 4), compare_fp16=False)
    made = build(
        exported(name, False), tmp_path / "m.engine", target=target, spec=spec, backend="rtx"
    )
    held(made.layers)


@pytest.mark.parametrize("name", names(*TOO_SMALL_FOR_2_4))
def test_a_sparse_reference_is_built_and_no_sparse_kernel_is_claimed(
    name: str, exported: Exported, tmp_path: Path
) -> None:
    spec = BuildSpec(batch=(4, 4, 4), compare_fp16=False)
    made = build(
        exported(name, True), tmp_path / "m.engine", target=TARGETS[2], spec=spec, backend="rtx"
    )
    held(made.layers)
    assert "sparse" not in made.layers["census"]["sparse"]


@pytest.mark.parametrize("name", names(*NO_STOCK_FORM, quick=QUICK))
def test_modelopts_own_placement_is_built_too(name: str, tmp_path: Path) -> None:
    """Where preflight sees INT8 the compiler multiplies INT8, whoever placed the pairs."""
    path = stock(REFERENCE[name], tmp_path / "stock.onnx")
    spec = BuildSpec(batch=(4, 4, 4), compare_fp16=False)
    made = build(path, tmp_path / "m.engine", target=TARGETS[2], spec=spec, backend="rtx")
    held(made.layers)
    assert made.layers["census"]["precision"]["int8"]
