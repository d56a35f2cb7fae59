"""The table of ``trtexec --dumpProfile``, in the three forms that releases print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs import command_line
from trt_qat.engine.evidence.profile_table import profile_of
from trt_qat.engine.evidence.reading import read
from trt_qat.engine.evidence.timed import inspected
from trt_qat.errors import InputError

RECORDED = Path(__file__).parents[2] / "recordings" / "trex"
STAMP = "[05/08/2024-14:05:14] [I] "
TABLES = {
    "8.0": """=== Profile (4 iterations ) ===
  Layer   Time (ms)   Avg. Time (ms)   Time %
conv 1 + relu       10.20           2.5500      51.0
     fc       9.80           2.4500      49.0
  Total       20.00           5.0000     100.0
""",
    "8.5": """=== Profile (4 iterations ) ===
  Layer   Time (ms)   Avg. Time (ms)   Median Time (ms)   Time %
conv 1 + relu       10.20           2.5500      2.5      51.0
     fc       9.80           2.4500      2.4      49.0
  Total       20.00           5.0000     4.9     100.0
""",
    "8.6": """=== Profile (4 iterations ) ===
   Time(ms)     Avg.(ms)   Median(ms)   Time(%)   Layer
      10.20       2.5500       2.5000      51.0   conv 1 + relu
       9.80       2.4500       2.4000      49.0   fc
      20.00       5.0000       4.9000     100.0   Total
""",
}
LAYERS = """[V] [TRT] Engine Layer Information:
Layer(CaskConvolution): conv 1 + relu, Tactic: 0x1, x (Int8[1,2]) -> y (Int8[1,2])
Layer(CublasLt): fc, Tactic: 0x2, y (Half[1,2]) -> z (Half[1,2])
"""


@pytest.mark.parametrize("release", TABLES)
def test_each_form_is_read(release: str) -> None:
    found = profile_of(TABLES[release].splitlines())
    assert found is not None
    assert found.runs == 4
    assert [(row.name, row.mean_ms) for row in found.rows] == [
        ("conv 1 + relu", 2.55),
        ("fc", 2.45),
    ]
    assert [row.ms for row in found.rows] == ([2.55, 2.45] if release == "8.0" else [2.5, 2.4])


def test_a_log_of_nvidias_is_read() -> None:
    """TensorRT 8.5.2 on an Orin; see ``tests/recordings/trex/README.md``."""
    found = read(RECORDED / "profile.log")
    assert [layer["time_ms"] for layer in found["layers"]] == [
        2.0556, 1.3371, 113.1503, 0.0598, 0.0543,
    ]  # fmt: skip
    assert found["layers"][2]["name"] == "{ForeignNode[/head/Constant_2_output_0.../Unsqueeze_2]}"


def logged(folder: Path, text: str) -> Path:
    path = folder / "x.log"
    path.write_text(text)
    return path


def test_times_stand_beside_the_layers_of_the_same_log(tmp_path: Path) -> None:
    table = "".join(STAMP + line + "\n" for line in TABLES["8.6"].splitlines())
    path = logged(tmp_path, LAYERS + table)
    told = {layer["name"]: layer["time_ms"] for layer in read(path)["layers"]}
    assert told == {"conv 1 + relu": 2.5, "fc": 2.4}
    assert "2.4000" in command_line("inspect", path, "--layers").stdout


def test_times_of_other_layers_are_not_mixed_in(tmp_path: Path) -> None:
    path = logged(tmp_path, LAYERS.replace("conv 1", "c").replace("fc", "d") + TABLES["8.6"])
    assert not any("time_ms" in layer for layer in read(path)["layers"])
    said = command_line("inspect", path).stdout
    assert "the profile in the log: of another engine than the layers of the log" in said


def test_a_table_that_breaks_off_gives_the_rows_before() -> None:
    found = profile_of(TABLES["8.6"].splitlines()[:3])
    assert found is not None
    assert [row.name for row in found.rows] == ["conv 1 + relu"]


def test_of_two_tables_the_last_holds() -> None:
    second = TABLES["8.6"].replace("2.5000", "9.5000")
    found = profile_of((TABLES["8.5"] + second).splitlines())
    assert found is not None
    assert found.rows[0].ms == 9.5


@pytest.mark.parametrize("text", ["", "=== Profile (4 iterations ) ===\nnothing\nconv 1 2 3 4\n"])
def test_what_is_no_table_gives_none(text: str) -> None:
    assert profile_of(text.splitlines()) is None


def test_a_log_is_as_good_as_an_exported_profile(tmp_path: Path) -> None:
    layers, log = tmp_path / "layers.json", logged(tmp_path, TABLES["8.6"])
    layers.write_text(json.dumps({"Layers": ["conv 1 + relu", "fc"]}))
    found = inspected(layers, log, trust=False).document
    assert [layer["time_ms"] for layer in found["layers"]] == [2.5, 2.4]
    layers.write_text(json.dumps({"Layers": ["other"]}))
    with pytest.raises(InputError, match=r"x\.log: of another engine than .*layers\.json"):
        inspected(layers, log, trust=False)
