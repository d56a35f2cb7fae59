"""A Jetson that is not here: recorded as files, and read again from them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import jetson as script
from tests.benching.test_machine import write
from trt_qat.benching import jetson
from trt_qat.errors import BackendUnavailable, InputError

RAIL = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
BOARD = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "624750000\n",
    "sys/devices/system/cpu/online": "0-5\n",
    f"{RAIL}/in1_label": "VDD_IN\n",
    f"{RAIL}/in1_input": "5000\n",
    f"{RAIL}/curr1_input": "960\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "47437\n",
    "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "-256000\n",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\nx\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nA 1\n< POWER_MODEL ID=1 NAME=7W >\n",
    "var/lib/nvpmodel/status": "pmode:0001 fmode:quiet\n",
    "home/someone/secret": "not to be copied",
}


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    board = write(tmp_path / "board", BOARD)
    folder = tmp_path / "record"
    script.record(folder, board / "sys", board / "proc/device-tree/model", board)
    return folder


def test_a_record_tells_what_the_board_told(recorded: Path) -> None:
    found = script.replay(recorded)
    assert found["model"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert found["power_mode"] == "1 7W"
    assert str(found["l4t"]).startswith("R36 (release), REVISION: 4.3")
    assert found["cpus_online"] == "0-5"
    assert found["gpu_mhz_range"] == [306.0, 624.75]
    assert found["clocks_locked"] is False
    assert found["power_mw"] == {"VDD_IN": 4800}
    assert found["temperature_c"] == {"cpu-thermal": 47.437}, "a zone that is off is left out"


def test_a_record_holds_nothing_else(recorded: Path) -> None:
    names = {path.name for path in recorded.rglob("*") if path.is_file()}
    assert "secret" not in names
    assert len(names) == 13


@pytest.mark.parametrize(
    ("text", "expected"),
    [("pmode:0000", "0 15W"), ("pmode:0002", "2"), ("", None), ("nonsense", None)],
)
def test_a_power_mode_has_its_number_and_its_name(
    tmp_path: Path, text: str, expected: str | None
) -> None:
    root = write(tmp_path, {**BOARD, "var/lib/nvpmodel/status": text})
    assert jetson.power_mode(root) == expected


def test_another_machine_cannot_be_recorded(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="names no Jetson; record on the board"):
        script.record(tmp_path / "r", tmp_path, tmp_path / "model", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_cannot_be_replayed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no record of a Jetson; make one there with --rec"):
        script.replay(tmp_path)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["jetson.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        script.main()
    return int(stop.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a model, --record DIR or --replay DIR, one of the three"),
        (["m.onnx", "--replay", "x"], "give a model, --record DIR or --replay DIR, one of the"),
        (["m.onnx", "--modes", "0"], "--modes needs --set, which changes the board's power mode"),
        (["m.onnx", "--set", "--modes", "MAXN"], "--modes MAXN: allowed: numbers with commas"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert call(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_record_is_printed_as_json(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["jetson.py", "--replay", str(recorded)])
    script.main()
    assert json.loads(capsys.readouterr().out)["power_mode"] == "1 7W"


def test_the_commands_build_and_then_measure(tmp_path: Path) -> None:
    build, bench = script.commands(
        Path("m.onnx"), Path("m.engine"), "1,8", 5.0, tmp_path / "out.json"
    )
    assert build[2:] == ["trt_qat", "build", "m.onnx", "-o", "m.engine"]
    assert bench[2:5] == ["trt_qat", "bench", "trt:m.engine"]
    assert bench[-2:] == ["--batch", "1,8"]
