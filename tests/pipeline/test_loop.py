"""``tq.Run``: a loop of the user's own leaves what the run of a recipe leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import trt_qat as tq
from tests.device import device_python, on_device
from tests.engine.aot.rtx import needs_rtx
from trt_qat.artifact import read_sidecar
from trt_qat.errors import InputError, RecipeError
from trt_qat.pipeline.merge import merge
from trt_qat.pipeline.pack import is_pack, unpack
from trt_qat.pipeline.run import run as run_recipe


class Fit(nn.Module):
    """Two inputs by name, two outputs by key."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
        self.right = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
        self.near = nn.Linear(64, 2)
        self.far = nn.Linear(64, 1)

    def forward(self, wide: Tensor, narrow: Tensor) -> dict[str, Tensor]:
        both = torch.cat([self.left(wide), self.right(narrow)], 1)
        return {"near": self.near(both), "far": self.far(both)}


def batches(seed: int, count: int) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        wide, narrow = (torch.randn(32, n, generator=generator) for n in (16, 8))
        near = torch.stack([wide[:, 0] - narrow[:, 1], wide[:, 2].relu()], 1)
        found.append(({"wide": wide, "narrow": narrow}, near))
    return found


TRAIN, TEST = batches(0, 12), batches(1, 4)


def train(model: nn.Module, epochs: int, rate: float = 1e-2) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for _ in range(epochs):
        for inputs, targets in TRAIN:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(**inputs)["near"], targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model


TABLES: dict[str, Any] = {
    "task": {"kind": "regression"},
    "calibration": {"samples": 128},
    "sparsity": {"skip_first": False},
    "build": {"backend": "tensorrt"},
    "tolerances": {"accuracy_loss": 0.05},
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tq.Run:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("loop") / "mine"
    model = train(Fit(), 20)
    with tq.Run(folder, test=TEST, **TABLES) as run:
        run.float_model(model, TRAIN)
        model = run.quantize(run.sparsify(model))
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for epoch in run.epochs(2, model, optimizer):
            for inputs, targets in TRAIN:
                loss = nn.functional.mse_loss(model(**inputs)["near"], targets)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            run.log(epoch=epoch + 1, loss=loss.item())
        run.export(model)
        run.sensitivity(budget=0.5)
    run.pack(folder.parent / "mine.tqpack")
    return run


def test_the_folder_is_that_of_a_run(recorded: tq.Run) -> None:
    manifest = json.loads((recorded.folder / "manifest.json").read_text())
    assert [stage["name"] for stage in manifest["stages"]] == [
        *("train", "sparsify", "quantize", "finetune", "export", "preflight", "build", "compare"),
        *("precisions", "score", "bench", "report"),
    ]
    assert manifest["failures"] == []
    export = next(stage for stage in manifest["stages"] if stage["name"] == "export")
    assert export["verification"]["checked"]
    assert "run.pack()" in manifest["verdict"]["next"]
    assert recorded.result.metrics["fp32"]["metric"] == "r2"
    assert recorded.result.metrics["onnx"]["accuracy"] > 0.9
    assert len(json.loads((recorded.folder / "finetune.history.json").read_text())) == 2
    assert "sensitivity" in (recorded.folder / "report.html").read_text().lower()


def test_names_are_those_of_arguments_and_keys(recorded: tq.Run) -> None:
    for name in ("model.onnx", "fp32.onnx"):
        graph = onnx.load(recorded.folder / name).graph
        assert [value.name for value in graph.input] == ["wide", "narrow"]
        assert [value.name for value in graph.output] == ["near", "far"]


def test_the_gate_compares_its_samples(recorded: tq.Run, tmp_path: Path) -> None:
    from trt_qat.gate.gate import update

    baseline = tmp_path / "baseline.json"
    update(recorded.folder, baseline)
    found = tq.check(recorded.folder, baseline)
    assert found.samples == 128
    assert found.checks[1].name == "score onnx"
    assert found.checks[1].status == "passed"


def test_a_bundle_has_its_names(recorded: tq.Run, tmp_path: Path) -> None:
    made = tq.bundle(recorded.folder, tmp_path / "bundle")
    config = (made.folder / "triton/mine/config.pbtxt").read_text()
    assert all(f'name: "{name}"' in config for name in ("wide", "narrow", "near", "far"))


def test_a_killed_loop_goes_on_where_it_stopped(tmp_path: Path) -> None:
    model = Fit()

    def loop(stop: int | None) -> list[int]:
        seen = []
        with tq.Run(tmp_path / "killed", test=TEST, **TABLES) as run:
            optimizer = torch.optim.Adam(model.parameters())
            for epoch in run.epochs(4, model, optimizer):
                if epoch == stop:
                    raise KeyboardInterrupt
                seen.append(epoch)
                run.log(loss=float(epoch))
        return seen

    with pytest.raises(KeyboardInterrupt):
        loop(2)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.near.weight.zero_()
    assert loop(None) == [2, 3]
    torch.testing.assert_close(model.state_dict(), kept)


def test_steps_in_the_wrong_order_are_one_sentence(tmp_path: Path) -> None:
    with (
        tq.Run(tmp_path / "run", test=TEST, **TABLES) as run,
        pytest.raises(InputError, match=r"call run.float_model\(...\) first"),
    ):
        run.quantize(Fit())
    with pytest.raises(RecipeError, match=r"tq.Run: quantize.exclud: unknown key"):
        tq.Run(tmp_path / "run", test=TEST, quantize={"exclud": []})


def test_metrics_of_the_users_own_are_functions(tmp_path: Path) -> None:
    def near(outputs: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        off = (outputs["near"] - targets).abs().mean(1)
        return {"within": off < 1, "off": off}

    task = {"task": {"kind": "own"}}
    with tq.Run(tmp_path / "own", test=TEST, metrics=near, **(TABLES | task)) as run:
        run.float_model(Fit(), TRAIN[0])
    entry = run.result.metrics["fp32"]
    assert entry["metric"] == "near"
    assert entry["samples"] == 128
    assert entry["more"].keys() == {"within", "off"}


class TestTwoMachines:
    """Train here, build there: what lies in a pack is enough."""

    def test_a_pack_is_whole_or_refused(self, recorded: tq.Run, tmp_path: Path) -> None:
        pack = recorded.folder.parent / "mine.tqpack"
        assert is_pack(pack)
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 0xFF
        (tmp_path / "bad.tqpack").write_bytes(bytes(data))
        with pytest.raises(InputError, match="pack the run again"):
            unpack(tmp_path / "bad.tqpack", tmp_path / "out")

    def test_the_first_stage_must_be_one_of_a_device(self, recorded: tq.Run) -> None:
        with pytest.raises(RecipeError, match=r"give --from build \(allowed: build, score"):
            run_recipe(recorded.folder.parent / "mine.tqpack")

    def test_results_of_a_device_are_merged(self, recorded: tq.Run, tmp_path: Path) -> None:
        """An onnxruntime runner stands where the device's engine would run."""
        from trt_qat.pipeline import flow
        from trt_qat.pipeline.from_pack import unpacked
        from trt_qat.pipeline.plan import PLAN
        from trt_qat.pipeline.score_stage import score_stage

        here, there = tmp_path / "here", tmp_path / "there"
        for folder in (here, there):
            unpack(recorded.folder.parent / "mine.tqpack", folder)
        run = unpacked(there)
        stage = next(each for each in PLAN if each.name == "score")
        metrics = score_stage(run, f"ort:{there / 'model.onnx'}")
        flow.seal(stage, run, "f", metrics, 1.0)
        before = json.loads((there / "manifest.json").read_text())["stages"]
        known = [flow.StageRecord(**each) for each in before if each["name"] != "score"]
        result = flow.RunResult(there, known, json.loads((there / "metrics.json").read_text()))
        flow.note(result, run, flow.StageRecord("score", "ran", 1.0), metrics)
        assert merge(here, there) == ["engine.json", "engine_answers.npz"]
        merged = json.loads((here / "metrics.json").read_text())
        wanted = recorded.result.metrics["onnx"]["accuracy"]
        assert merged["engine"]["accuracy"] == pytest.approx(wanted, abs=1e-6)
        assert read_sidecar(here / "engine.json") is not None
        with np.load(here / "engine_answers.npz") as archive:
            assert len(archive["logits"]) == 128

    @needs_rtx
    def test_a_device_without_torch_builds_and_the_verdict_comes_home(
        self, recorded: tq.Run, tmp_path: Path
    ) -> None:
        """Nothing but the base install and TensorRT for RTX, which builds here and does not run."""
        python = device_python(tmp_path / "device", "rtx")
        pack, here, there = recorded.folder.parent / "mine.tqpack", tmp_path / "h", tmp_path / "t"
        unpack(pack, here)
        done = on_device(
            *(python, "run", pack, "--from", "build", "--out", there),
            *("--set", "build.backend=auto", "--set", "target=rtx-4090"),
            *("--set", "build.compare_fp16=false"),
        )
        assert done.returncode == 0, done.stderr
        assert "build: done" in done.stderr
        assert "score: skipped, engines of TensorRT for RTX do not run here" in done.stderr
        assert "verdict: ONNX verified, engine built and never run" in done.stdout
        merged = on_device(python, "merge", here, there)
        assert merged.returncode == 0, merged.stderr
        assert merged.stdout.splitlines()[:2] == ["model.engine", "layers.json"]
        assert "verdict: ONNX verified, engine built and never run" in merged.stdout
        manifest = json.loads((here / "manifest.json").read_text())
        assert manifest["verdict"]["state"] == "onnx-verified"
        assert "it has not been run" in manifest["verdict"]["reasons"][0]
        assert on_device(python, "check", here).returncode == 4

    def test_a_device_where_nothing_can_be_built_says_so(
        self, recorded: tq.Run, tmp_path: Path
    ) -> None:
        python = device_python(tmp_path / "device")
        pack, here, there = recorded.folder.parent / "mine.tqpack", tmp_path / "h", tmp_path / "t"
        unpack(pack, here)
        done = on_device(python, "run", pack, "--from", "build", "--out", there)
        assert "build: skipped, TensorRT is not installed" in done.stderr
        assert "verdict: ONNX verified, engine not built" in done.stdout
        assert (there / "report.html").is_file()
        merged = on_device(python, "merge", here, there)
        assert merged.returncode == 2
        assert "holds no engine, scores or times" in merged.stderr

    def test_results_of_another_model_are_refused(self, recorded: tq.Run, tmp_path: Path) -> None:
        for name in ("here", "there"):
            unpack(recorded.folder.parent / "mine.tqpack", tmp_path / name)
        path = tmp_path / "there" / "manifest.json"
        document = json.loads(path.read_text())
        document["artifacts"]["model.onnx"] = "0" * 64
        path.write_text(json.dumps(document))
        with pytest.raises(InputError, match=r"its model.onnx is not the one of"):
            merge(tmp_path / "here", tmp_path / "there")
