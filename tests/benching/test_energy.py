"""Energy, read from trees of files as the kernel's: RAPL and a Jetson's rails."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from tests.benching.runners import Recorder
from tests.benching.test_machine import write
from trt_qat.backends import has_gpu
from trt_qat.benching import energy
from trt_qat.benching.session import Entry
from trt_qat.runners.protocol import Feed, Outputs

pytestmark = pytest.mark.skipif(has_gpu(), reason="NVML comes first where there is a GPU")

FEEDS: tuple[Feed, ...] = ({"x": np.zeros((2, 4), np.float32)},)
RAPL = "class/powercap/intel-rapl:0"


class Drawing(Recorder):
    """Waits 2 ms and counts 3 joules into a RAPL domain, as a processor would."""

    def __init__(self, domain: Path, start: int = 0, wrap: int = 10**12) -> None:
        super().__init__("drawing")
        self.domain, self.used, self.wrap = domain, start, wrap

    def infer(self, feed: Feed) -> Outputs:
        time.sleep(0.002)
        self.used = (self.used + 3_000_000) % self.wrap
        self.domain.write_text(f"{self.used}\n")
        return {"y": feed["x"]}


def test_without_a_meter_nothing_is_said(tmp_path: Path) -> None:
    assert energy.meter(tmp_path, tmp_path / "model") is None


def test_rapl_counts_the_joules_of_an_inference(tmp_path: Path) -> None:
    sys = write(tmp_path, {f"{RAPL}/energy_uj": "5\n", f"{RAPL}/max_energy_range_uj": "999\n"})
    meter = energy.meter(sys, tmp_path / "model")
    assert meter is not None
    runner = Drawing(sys / RAPL / "energy_uj")
    found = energy.measure(Entry("d", runner, FEEDS, 2), 0.05, meter)
    assert found is not None
    assert found["source"] == "rapl"
    assert found["joules_per_inference"] == pytest.approx(3, rel=0.01)
    assert found["joules_per_sample"] == pytest.approx(1.5, rel=0.01)
    assert found["idle_w"] == 0
    assert found["mean_w"] * found["seconds"] == pytest.approx(3 * found["inferences"], rel=0.01)


def test_a_counter_that_begins_again_loses_nothing(tmp_path: Path) -> None:
    wrap = 10**9
    sys = write(tmp_path, {f"{RAPL}/energy_uj": "0", f"{RAPL}/max_energy_range_uj": str(wrap)})
    meter = energy.meter(sys, tmp_path / "model")
    assert meter is not None
    runner = Drawing(sys / RAPL / "energy_uj", wrap - 12_000_000, wrap)  # over after four
    runner.infer(FEEDS[0])
    found = energy.measure(Entry("d", runner, FEEDS, 2), 0.05, meter)
    assert found is not None
    assert found["joules_per_inference"] == pytest.approx(3, rel=0.01)


def test_a_counter_that_this_user_may_not_read_is_no_meter(tmp_path: Path) -> None:
    (tmp_path / RAPL).mkdir(parents=True)
    assert energy.meter(tmp_path, tmp_path / "model") is None


@pytest.mark.parametrize(("total", "watts"), [(True, 9.0), (False, 4.0)])
def test_the_rails_of_a_jetson_are_sampled(tmp_path: Path, total: bool, watts: float) -> None:
    """VDD_IN feeds the others, so it is not added to them."""
    rail = "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    files = {
        f"{rail}/in1_label": "VDD_CPU_GPU_CV\n",
        f"{rail}/in1_input": "5000\n",
        f"{rail}/curr1_input": "800\n",
    }
    if total:
        files |= {
            f"{rail}/in2_label": "VDD_IN\n",
            f"{rail}/in2_input": "19000\n",
            f"{rail}/curr2_input": "474\n",
        }
    sys = write(tmp_path / "sys", files)
    model = write(tmp_path, {"model": "NVIDIA Jetson Orin Nano Developer Kit\0"}) / "model"
    meter = energy.meter(sys, model)
    assert meter is not None
    found = energy.measure(Entry("r", Recorder("r"), FEEDS, 2), 0.12, meter)
    assert found is not None
    assert found["source"] == "jetson rails"
    assert found["mean_w"] == pytest.approx(watts, rel=0.05)
    assert found["idle_w"] == pytest.approx(watts, rel=0.05)
