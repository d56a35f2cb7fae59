"""What quantize knows of a model lives on the model: it is copied, averaged, pickled and freed."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from trt_qat.qat.export import export
from trt_qat.qat.models import REFERENCE_MODELS
from trt_qat.qat.quantize import quantize, ranges_of
from trt_qat.qat.reports import report_of
from trt_qat.qat.sparsify import sparsify
from trt_qat.runners.ort import OrtRunner


def batch() -> Tensor:
    return torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["dense", "sparse"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    made = REFERENCE_MODELS["residual_cnn"](in_channels=1, num_classes=10, widths=(16, 32)).eval()
    if request.param == "sparse":
        made = sparsify(made, batch())
    return quantize(made, [batch()])


def pickled(model: nn.Module) -> nn.Module:
    found: nn.Module = pickle.loads(pickle.dumps(model))
    return found


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    found: nn.Module = torch.load(file, weights_only=False)
    return found


WAYS: list[Any] = [copy.deepcopy, AveragedModel, pickled, saved]


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_answers_reports_trains_and_exports(
    model: nn.Module, way: Any, tmp_path: Path
) -> None:
    twin = way(model).eval()
    torch.testing.assert_close(twin(batch()), model(batch()), rtol=0, atol=0)
    assert report_of(twin).table() == report_of(model).table()
    assert ranges_of(twin).amax == ranges_of(model).amax
    twin.train()(batch()).sum().backward()
    twin.eval()
    path = export(twin, batch(), tmp_path / "twin.onnx")
    with OrtRunner(path) as session:
        (got,) = session.infer({next(iter(session.inputs)): batch().numpy()}).values()
    torch.testing.assert_close(torch.from_numpy(got), twin(batch()), rtol=1e-4, atol=1e-4)


def test_a_copy_is_not_tied_to_its_model(model: nn.Module) -> None:
    twin = copy.deepcopy(model)
    before = model(batch())
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    torch.testing.assert_close(model(batch()), before, rtol=0, atol=0)
    assert float(twin(batch()).abs().max()) == 0


def test_a_dropped_model_is_freed_with_its_first_batch() -> None:
    torch.manual_seed(0)
    first = batch()
    model = quantize(REFERENCE_MODELS["residual_cnn"](widths=(16, 32)).eval(), [first])
    model.train()(first).sum().backward()
    gone: list[Any] = [weakref.ref(x) for x in (model, first, next(model.parameters()))]
    del model, first
    gc.collect()
    assert [ref() for ref in gone] == [None, None, None]
