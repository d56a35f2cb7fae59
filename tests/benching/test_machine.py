"""What the kernel tells of the machine, read from trees of files like its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trt_qat.backends import has_gpu
from trt_qat.benching import gpu, jetson, machine


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_this_machine_is_described() -> None:
    found = machine.examine()
    assert found["usable_cpus"] >= 1
    assert found["cpu"]
    if not has_gpu():
        assert found["gpus"] == []


def test_clocks_and_governors_are_those_of_every_processor(tmp_path: Path) -> None:
    files = {}
    for number, khz in enumerate((1_800_000, 2_400_000, *[1_000_000] * 9)):
        folder = f"devices/system/cpu/cpu{number}/cpufreq"
        files[f"{folder}/scaling_cur_freq"] = f"{khz}\n"
        files[f"{folder}/scaling_governor"] = "powersave\n" if number else "performance\n"
    sys = write(tmp_path, files)
    found = machine.frequencies_mhz(tmp_path / "proc", sys)
    assert found is not None
    assert found[:3] == [1800.0, 2400.0, 1000.0], "in the order of numbers, not of names"
    assert machine.governor(sys) == "performance, powersave"


def test_without_cpufreq_the_clock_is_that_of_cpuinfo(tmp_path: Path) -> None:
    proc = write(tmp_path, {"cpuinfo": "model name : X\ncpu MHz\t\t: 2596.142\ncpu MHz : 2600.0\n"})
    assert machine.frequencies_mhz(proc, tmp_path / "sys") == [2596.142, 2600.0]
    assert machine.governor(tmp_path / "sys") is None


def test_a_kernel_that_tells_nothing_gives_nothing(tmp_path: Path) -> None:
    found = machine.Watch(tmp_path, tmp_path).stop()
    assert found["competing_cpus"] is None
    assert found["cpu_mhz"] == {"before": None, "after": None}
    assert machine.examine(tmp_path, tmp_path)["cpu"] is None


def test_work_of_others_is_told_from_our_own(tmp_path: Path) -> None:
    tick = os.sysconf("SC_CLK_TCK")
    proc = write(tmp_path, {"stat": "cpu  100 0 50 1000 0 0 0 7 0 0\n", "loadavg": "0.5 0.4 0.3"})
    watch = machine.Watch(proc, tmp_path)
    later = f"cpu  {100 + 300 * tick} 0 50 2000 0 0 0 {7 + 60 * tick} 0 0\n"
    write(proc, {"stat": later})
    found = watch.stop()
    assert found["competing_cpus"] > 1
    assert found["stolen_cpus"] / found["competing_cpus"] == pytest.approx(0.2, rel=0.1)
    assert found["load_average"] == [0.5, 0.5]


def test_a_limit_of_the_control_group_is_read(tmp_path: Path) -> None:
    sys = write(tmp_path, {"fs/cgroup/cpu.max": "150000 100000\n"})
    assert machine.examine(tmp_path, sys)["cpu_quota"] == 1.5
    write(tmp_path, {"fs/cgroup/cpu.max": "max 100000\n"})
    assert machine.examine(tmp_path, sys)["cpu_quota"] is None


def test_throttle_reasons_are_words_and_idleness_is_none() -> None:
    assert gpu.reasons(0x1) == []
    assert gpu.reasons(0x1 | 0x4 | 0x40) == ["software power cap", "hardware thermal slowdown"]


def test_a_jetson_is_known_by_its_device_tree(tmp_path: Path) -> None:
    rail = "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    sys = write(
        tmp_path / "sys",
        {
            "class/devfreq/17000000.gpu/cur_freq": "612000000\n",
            "class/devfreq/17000000.gpu/min_freq": "306000000\n",
            "class/devfreq/17000000.gpu/max_freq": "1020000000\n",
            f"{rail}/in1_label": "VDD_GPU_SOC\n",
            f"{rail}/in1_input": "5000\n",
            f"{rail}/curr1_input": "800\n",
        },
    )
    model = write(tmp_path, {"model": "NVIDIA Jetson AGX Orin\0"}) / "model"
    found = jetson.examine(sys, model)
    assert found is not None
    assert found["model"] == "NVIDIA Jetson AGX Orin"
    assert (found["gpu_mhz"], found["gpu_mhz_range"]) == (612.0, [306.0, 1020.0])
    assert found["power_mw"] == {"VDD_GPU_SOC": 4000}
    assert found["power_mode"] is None
    assert jetson.clocks_locked(found) is False
    assert jetson.clocks_locked(found | {"gpu_mhz_range": [1020.0, 1020.0]})


def test_any_other_machine_is_no_jetson(tmp_path: Path) -> None:
    assert jetson.examine(tmp_path, tmp_path / "model") is None


def test_a_gpus_clock_is_that_of_the_moments_when_it_was_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "read", lambda: [{"sm_mhz": 345}])
    (found,) = machine.Watch(tmp_path, tmp_path).stop([[1980], [], [1965]])["gpus"]
    assert found["timed_sm_mhz"] == [1980, 1965]
    assert found["before"]["sm_mhz"] == 345
