"""Random networks: what export writes agrees with the model at every point, or is refused."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.qat.agreement import worst_error
from tests.qat.random_networks import Case, random_case
from trt_qat.errors import TrtQatError
from trt_qat.lint.preflight import preflight
from trt_qat.qat.export import export
from trt_qat.qat.quantize import quantize
from trt_qat.qat.reports import report_of
from trt_qat.qat.sparsify import sparsify
from trt_qat.recipe.specs import QuantizeSpec

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


@pytest.mark.parametrize(
    "seed",
    [
        65,  # a split of which one half stays float
        413,  # a hook that adds, in front of a sum
        702,  # a concatenation of what one quantizer rounds, of several shapes
        949,  # … whose calls come in another order than in the file
        1307,  # a layer whose second call reads a float tensor
    ],
)
def test_files_of_models_that_run_their_own_code_agree(seed: int, tmp_path: Path) -> None:
    assert max(errors(random_case(seed), tmp_path)) <= TOLERANCE


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


FORMATS = ("int8", "fp8", "fp8", "int4", "nvfp4", "float")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 3, 8, 13, 34])
def test_layers_of_any_formats_are_never_given_operands_of_two(seed: int, tmp_path: Path) -> None:
    case, draw = random_case(seed), random.Random(seed)
    plain = case.quantize.model_copy(update={"learned_scales": False})
    twin = quantize(random_case(seed).model, [case.batch], spec=plain)
    names = [note.name for note in report_of(twin).quantized]
    layers = {name: draw.choice(FORMATS) for name in names}
    spec = QuantizeSpec.model_validate({**plain.model_dump(), "layers": layers})
    model = quantize(case.model, [case.batch], spec=spec)
    report = preflight(str(export(model, case.batch, tmp_path / "model.onnx")))
    assert report.passed(), str(report)
    assert "QDQ022" not in {finding.rule for finding in report.findings}
    assert not [layer for layer in report.layers if any("different types" in w for w in layer.why)]
