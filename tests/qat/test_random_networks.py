"""Random networks: what export writes agrees with the model at every point, or is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.qat.agreement import worst_error
from tests.qat.random_networks import Case, random_case
from trt_qat.errors import TrtQatError
from trt_qat.qat.export import export
from trt_qat.qat.quantize import quantize
from trt_qat.qat.sparsify import sparsify

ALL = 500
SAMPLE = 2
TOLERANCE = 1e-3


def written(case: Case, folder: Path) -> Path:
    """Quantize and export as the case says.

    Raises:
        TrtQatError: it was refused.
    """
    model, batch = case.model.train(case.training_mode), case.batch
    if case.sparse:
        sparsify(model, batch)
    quantize(model, [batch], spec=case.quantize)
    if case.trained:
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        model(torch.cat([batch, batch])).square().mean().backward()
        optimizer.step()
    return export(model, batch, folder / f"{case.seed}.onnx", spec=case.export)


def errors(case: Case, folder: Path) -> Iterator[float]:
    """Yield the error on the batch, and on one of another size."""
    path = written(case, folder)
    yield worst_error(case.model, case.batch, path)
    yield worst_error(case.model, torch.randn(5, *case.batch.shape[1:]), path)


@pytest.mark.parametrize("seed", range(SAMPLE))
def test_a_file_agrees_with_its_model_or_is_refused(seed: int, tmp_path: Path) -> None:
    try:
        found = max(errors(random_case(seed), tmp_path))
    except TrtQatError:
        assert list(tmp_path.iterdir()) == [], "a refused export leaves nothing behind"
    else:
        assert found <= TOLERANCE


@pytest.mark.slow
def test_five_hundred_files_agree_or_are_refused(tmp_path: Path) -> None:
    wrong, refused = {}, {}
    for seed in range(ALL):
        try:
            found = max(errors(random_case(seed), tmp_path))
        except TrtQatError as error:
            refused[seed] = str(error)
        else:
            if not found <= TOLERANCE:
                wrong[seed] = found
    assert wrong == {}
    assert len(refused) <= ALL // 20, refused
