"""What a team has for Polygraphy is used as it is, and Polygraphy reads what is written here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.comparator import Comparator, DataLoader, RunResults
from polygraphy.json import save_json

import trt_qat as tq
from tests.runners.test_ort import feed, linear_onnx
from trt_qat.errors import DataError, InputError
from trt_qat.runners.feeds import feeds_for
from trt_qat.runners.open import runner
from trt_qat.runners.polygraphy import PolygraphyRunner, load_feeds


def of_polygraphy(path: Path, name: str = "theirs") -> OnnxrtRunner:
    return OnnxrtRunner(SessionFromOnnx(str(path)), name=name)


def polygraphy(*arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("polygraphy")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Runners and data loaders


def test_a_runner_of_polygraphy_is_compared_with_one_of_ours(tmp_path: Path) -> None:
    path = linear_onnx(tmp_path)
    found = tq.compare(f"ort:{path}", of_polygraphy(path), feed(7))
    assert (found.passed, found.samples, found.cand) == (True, 7, "theirs")
    assert found.outputs[0].max_abs < 1e-6


def test_its_inputs_are_known_once_it_is_active(tmp_path: Path) -> None:
    theirs = PolygraphyRunner(of_polygraphy(linear_onnx(tmp_path)))
    assert theirs.inputs == {}
    with theirs as opened:
        assert opened.inputs["x"].dtype == "float32"
        assert opened.inputs["x"].shape == ("batch", 4)
        with pytest.raises(DataError, match=r"got float32 \(2, 5\); allowed: float32 \(batch, 4\)"):
            opened.infer({"x": np.zeros((2, 5), np.float32)})
    assert not theirs.runner.is_active


def test_a_runner_that_was_active_stays_so(tmp_path: Path) -> None:
    path = linear_onnx(tmp_path)
    with of_polygraphy(path) as active:
        tq.compare(active, f"ort:{path}", feed())
        assert active.is_active


def test_a_data_loader_learns_the_inputs(tmp_path: Path) -> None:
    path = linear_onnx(tmp_path)
    found = tq.compare(f"ort:{path}", f"ort-int8:{path}", DataLoader(iterations=3))
    assert found.samples == 3, "its default for a dynamic dimension is 1"


def test_an_error_of_polygraphy_is_one_of_ours(tmp_path: Path) -> None:
    broken = OnnxrtRunner(SessionFromOnnx(str(tmp_path / "none.onnx")), name="broken")
    with pytest.raises(InputError, match="broken: "):
        tq.compare(broken, f"ort:{linear_onnx(tmp_path)}", feed())


def test_random_inputs_are_those_of_polygraphys_loader(tmp_path: Path) -> None:
    (batch,), labels = feeds_for((f"ort:{linear_onnx(tmp_path)}",), None)
    (again,), _ = feeds_for((f"ort:{linear_onnx(tmp_path)}",), None)
    assert labels is None
    assert batch["x"].shape == (16, 4)
    assert (batch["x"] == again["x"]).all()
    assert abs(batch["x"].mean()) < 0.5
    assert 0.5 < batch["x"].std() < 1.5


# Scripts and files


SCRIPT = """
import numpy as np
def load_data():
    for seed in range(3):
        yield {"x": np.full((2, 4), seed, np.float32)}
def another():
    return [{"x": np.zeros((1, 4), np.float32)}]
def nothing():
    return []
def wrong():
    return [np.zeros(3)]
def failing():
    raise KeyError("lost")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "loader.py").write_text(SCRIPT)
    return tmp_path / "loader.py"


def test_a_data_loader_script_gives_batches(script: Path) -> None:
    assert [batch["x"].max() for batch in load_feeds(str(script))] == [0, 1, 2]
    assert load_feeds(f"{script}:another")[0]["x"].shape == (1, 4)


def test_inputs_that_polygraphy_saved_are_batches(tmp_path: Path) -> None:
    path = linear_onnx(tmp_path)
    saved = tmp_path / "inputs.json"
    save_json([feed(2), feed(3)], str(saved))
    feeds, labels = feeds_for((f"ort:{path}",), saved)
    assert labels is None
    assert [len(batch["x"]) for batch in feeds] == [2, 3]
    assert tq.compare(f"ort:{path}", f"ort:{path}", feeds).samples == 5


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.py", r"none.py: no such file"),
        ("loader.py:lost", r"loader.py:lost: "),
        ("loader.py:nothing", r"gives no feed; each is a dict of arrays by input name"),
        ("loader.py:wrong", r"gives ndarray; each feed is a dict of arrays"),
        ("loader.py:failing", r"loader.py:failing: raised KeyError: 'lost'"),
        ("broken.json", r"broken.json: "),
    ],
)
def test_a_source_without_feeds_is_refused(script: Path, source: str, message: str) -> None:
    (script.parent / "broken.json").write_text("{")
    with pytest.raises(InputError, match=message):
        load_feeds(str(script.parent / source))


# Saved outputs


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Outputs of two runners on two batches."""
    path, out = linear_onnx(tmp_path), tmp_path / "outputs.json"
    tq.compare(f"ort:{path}", f"ort-int8:{path}", [feed(2), feed(3)], save_outputs=out)
    return out


def test_polygraphy_loads_what_is_saved(saved: Path) -> None:
    results = RunResults.load(str(saved))
    assert list(results.keys()) == ["ort", "ort-int8"]
    assert [len(iteration["logits"]) for iteration in results["ort"]] == [2, 3]
    assert bool(Comparator.compare_accuracy(results))


def test_the_tool_of_polygraphy_shows_what_is_saved(saved: Path) -> None:
    shown = polygraphy("inspect", "data", str(saved))
    assert "ort-int8" in shown
    assert "logits" in shown


def test_the_tool_of_polygraphy_compares_with_what_is_saved(saved: Path, tmp_path: Path) -> None:
    save_json([feed(2), feed(3)], str(tmp_path / "inputs.json"))
    model, inputs = str(linear_onnx(tmp_path)), str(tmp_path / "inputs.json")
    told = polygraphy(
        "run", model, "--onnxrt", "--load-inputs", inputs, "--load-outputs", str(saved)
    )
    assert "PASSED" in told


def test_outputs_that_polygraphy_saved_are_a_candidate(tmp_path: Path) -> None:
    path, out = linear_onnx(tmp_path), tmp_path / "theirs.json"
    results = Comparator.run([of_polygraphy(path)], data_loader=[feed(2), feed(3)])
    results.save(str(out))
    found = tq.compare(f"ort:{path}", f"polygraphy:{out}", [feed(2), feed(3)])
    assert (found.passed, found.samples) == (True, 5)
    with pytest.raises(DataError, match="holds 2 iterations and more were asked for"):
        tq.compare(f"ort:{path}", f"polygraphy:{out}", [feed(2), feed(3), feed(1)])


def test_one_of_several_runners_is_named(saved: Path) -> None:
    with pytest.raises(InputError, match=r"holds 2 runners \(ort, ort-int8\); name one: poly"):
        runner(f"polygraphy:{saved}")
    assert runner(f"polygraphy:{saved}:ort-int8").name == "ort-int8"
    with pytest.raises(InputError, match=r"holds no runner 'trt'; it holds ort, ort-int8"):
        runner(f"polygraphy:{saved}:trt")


@pytest.mark.parametrize("content", ["{", "[1, 2]", '{"a": 1}', '{"lst": [["a", 1.5]]}'])
def test_a_file_that_holds_no_outputs_is_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(InputError, match=r"other.json: "):
        runner(f"polygraphy:{tmp_path / 'other.json'}")
