"""An engine is kept only if it computes what its ONNX does.

No engine runs here. An ONNX file stands where the plan would, opened by onnxruntime, so that what
is compared, judged and recorded is tested; `tests/engine/test_on_gpu.py` is for TensorRT itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.graph.build import Builder
from trt_qat.comparison.built import against_onnx
from trt_qat.engine.build import build as building
from trt_qat.errors import BackendUnavailable, CheckFailed
from trt_qat.recipe.specs import BuildSpec
from trt_qat.runners.ort import OrtRunner


def saved(path: Path, factor: float = 1.0) -> Path:
    b = Builder()
    x = b.qdq(b.input("x", ["N", 16, 8, 8]), name="in")
    model = b.model(b.qdq(b.conv(x, (16, 16)), name="out"))
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4:
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(
                numpy_helper.from_array((array * factor).astype(array.dtype), tensor.name)
            )
    onnx.save(model, path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved(tmp_path / "model.onnx")


def test_the_same_network_passes_and_what_was_compared_is_said(model: Path) -> None:
    found = against_onnx((), BuildSpec(), OrtRunner)(model, model)
    assert found == {
        "checked": True,
        "samples": 8,
        "inputs": "random",
        "outputs": 1,
        "worst_sqnr_db": None,
        "min_sqnr_db": 10.0,
    }


def test_another_network_is_refused_by_its_output(model: Path, tmp_path: Path) -> None:
    wrong = saved(tmp_path / "wrong.onnx", factor=-1.0)
    said = r"model\.onnx: the engine does not compute what the ONNX does: output 'out.*' is -.* dB"
    with pytest.raises(CheckFailed, match=said):
        against_onnx((), BuildSpec(), OrtRunner)(wrong, model)


def test_an_engine_that_computes_nan_is_refused(model: Path, tmp_path: Path) -> None:
    class Nan(OrtRunner):
        def infer(self, feed):  # type: ignore[no-untyped-def]
            return {name: array * np.nan for name, array in super().infer(feed).items()}

    with pytest.raises(CheckFailed, match="holds NaN or infinity in the candidate; no engine is"):
        against_onnx((), BuildSpec(), Nan)(model, model)


def test_given_samples_are_used_within_the_batch_that_was_built_for(model: Path) -> None:
    feed = {"x": np.ones((64, 16, 8, 8), np.float32)}
    found = against_onnx([feed], BuildSpec(batch=(1, 2, 4)), OrtRunner)(model, model)
    assert (found["samples"], found["inputs"]) == (4, "given")


def test_what_cannot_be_run_here_is_kept_and_the_sidecar_says_why(model: Path) -> None:
    def lacks(plan: Path) -> OrtRunner:
        message = f"{plan.name} needs cuda-python"
        raise BackendUnavailable(message)

    found = against_onnx((), BuildSpec(), lacks)(model, model)
    assert found == {"checked": False, "why": "model.onnx needs cuda-python"}
    stripped = against_onnx((), BuildSpec(strip_weights=True), OrtRunner)(model, model)
    assert stripped["checked"] is False


def test_a_plan_that_is_refused_is_not_left_and_an_older_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "inspect_plan", lambda plan, path, log: {})
    out = tmp_path / "model.engine"
    out.write_bytes(b"older")

    def refuse(plan: Path, onnx: Path) -> dict[str, object]:
        assert plan.read_bytes() == b"plan"
        message = "wrong"
        raise CheckFailed(message)

    job = building.Job(*[tmp_path] * 2, *[None] * 5)  # type: ignore[arg-type]
    with pytest.raises(CheckFailed, match="wrong"):
        building.written(out, b"plan", [], job, 1.0, refuse)
    assert out.read_bytes() == b"older"
    assert [file.name for file in tmp_path.iterdir()] == ["model.engine"]
