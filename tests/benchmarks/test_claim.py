"""Claims are read strictly, measured by the public command, and judged by the whole interval."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import claim as claims
from trt_qat.errors import RecipeError

FOLDER = Path(__file__).parents[2] / "benchmarks" / "claims"

TEXT = """
title = "fused is not a hundred times slower"
repeats = 1
[engines]
fused = "ort-int8:{path}"
[baselines]
float = "ort:{path}"
[threshold]
below = {below}
[settings]
sessions = 1
seconds = 0.02
batches = [2]
"""


def write(folder: Path, path: str, below: float = 100) -> Path:
    file = folder / "c.toml"
    file.write_text(TEXT.format(path=path, below=below))
    return file


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_claim_of_ours_can_be_read(path: Path) -> None:
    found = claims.load(path)
    assert found.make
    assert found.settings.sessions >= 6


@pytest.mark.parametrize(
    ("threshold", "low", "high", "expected"),
    [
        ({"below": 1.0}, 0.8, 0.99, True),
        ({"below": 1.0}, 0.8, 1.01, False),
        ({"above": 1.0}, 1.01, 2.0, True),
        ({"above": 1.0}, 0.99, 2.0, False),
        ({"same_within": 0.03}, 0.98, 1.02, True),
        ({"same_within": 0.03}, 0.96, 1.01, False),
        ({"same_within": 0.03}, 0.99, 1.04, False),
        ({"below": 1.0, "above": 0.9}, 0.85, 0.95, False),
    ],
)
def test_a_threshold_is_held_by_the_whole_interval(
    threshold: dict[str, float], low: float, high: float, expected: bool
) -> None:
    assert claims.Threshold(**threshold).holds(low, high) is expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("below", "belwo"), r"c\.toml: threshold\.belwo: Extra inputs are not permitted"),
        (("below = 100", ""), r"c\.toml: threshold: .*a threshold is needed: below, above or same"),
        (("repeats = 1", "repeats = 0"), r"c\.toml: repeats: "),
        (('float = "ort:m.onnx"', ""), r"c\.toml: baselines: "),
    ],
)
def test_a_claim_with_a_mistake_names_it(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    file = write(tmp_path, "m.onnx")
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(RecipeError, match=message):
        claims.load(file)


@pytest.mark.parametrize("below", [100.0, 0.001])
def test_a_claim_is_measured_and_written_whether_it_holds_or_not(
    linear: str, tmp_path: Path, below: float
) -> None:
    file, out = write(tmp_path, linear, below), tmp_path / "result.json"
    assert claims.run(file, None, out) is (below == 100)
    document = json.loads(out.read_text())
    assert document["holds"] is (below == 100)
    assert set(document["files"]) == {f"ort:{linear}", f"ort-int8:{linear}"}
    assert document["claim"]["threshold"]["below"] == below
    (run,) = document["runs"]
    assert run["command"].startswith(f"trt-qat bench ort:{linear} ort-int8:{linear} --json")
    (judged,) = run["judged"]
    assert (judged["engine"], judged["baseline"], judged["batch"]) == ("fused", "float", 2)
    assert judged["p50_ratio"] == run["bench"]["ratios"][0]["p50_ratio"]


def test_files_that_are_missing_are_made_by_the_claims_commands(tmp_path: Path) -> None:
    path = tmp_path / "made.onnx"
    code = f"import pathlib; pathlib.Path({str(path)!r}).write_bytes(b'x')"
    file = write(tmp_path, str(path))
    claim = claims.load(file).model_copy(update={"make": (f'python -c "{code}"',)})
    claims.make_files(claim)
    assert path.is_file()
    path.unlink()
    with pytest.raises(RecipeError, match=r"made\.onnx: no such file, and none of the claim's"):
        claims.make_files(claim.model_copy(update={"make": ()}))
    with pytest.raises(RecipeError, match=r"python -c 'raise SystemExit\(3\)': exit status 3"):
        claims.make_files(claim.model_copy(update={"make": ("python -c 'raise SystemExit(3)'",)}))


def test_the_commands_run_with_this_python() -> None:
    assert claims.words("trt-qat run 'a b.toml'") == [
        sys.executable, "-m", "trt_qat", "run", "a b.toml",
    ]  # fmt: skip


def test_a_claim_that_cannot_be_read_is_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["claim.py", str(tmp_path / "none.toml")])
    with pytest.raises(SystemExit) as stop:
        claims.main()
    assert stop.value.code == 2
    assert "none.toml: no such file" in capsys.readouterr().err
