"""The gate flags what is worse, lets chance pass, and says what it cannot judge."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks import gate as benchmark
from tests.runs import command_line, edit
from trt_qat import artifact
from trt_qat.errors import CheckFailed, DataError, InputError
from trt_qat.gate.checks import Check
from trt_qat.gate.gate import GateReport, check, update
from trt_qat.gate.metric_checks import regression
from trt_qat.gate.reports import to_junit
from trt_qat.gate.snapshot import Scores, read_baseline
from trt_qat.recipe.specs import Tolerances

COUNT = 10_000
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 10, COUNT)
RIGHT = RANDOM.random(COUNT) < 0.93


def logits(right: np.ndarray, labels: np.ndarray = LABELS) -> np.ndarray:
    """Outputs of ten classes that are right where they are to be."""
    outputs: np.ndarray = np.random.default_rng(1).random((len(labels), 10)).astype(np.float32)
    outputs[np.arange(len(labels)), labels] += np.where(right, 2, -2)
    return outputs


def changed(lost: int, gained: int) -> np.ndarray:
    """What is right, after losing some of the samples and gaining others."""
    right: np.ndarray = RIGHT.copy()
    right[np.flatnonzero(RIGHT)[:lost]] = False
    right[np.flatnonzero(~RIGHT)[:gained]] = True
    return right


def evaluation(folder: Path, **arrays: Any) -> Path:
    """A folder with answers alone, as from an evaluation of the user's own."""
    folder.mkdir()
    np.savez(folder / "answers.npz", **({"labels": LABELS, "onnx": logits(RIGHT)} | arrays))
    return folder


def named(report: GateReport, name: str) -> Check:
    return next(entry for entry in report.checks if entry.name == name)


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The baseline of a model that is right for 93 % of 10,000 samples."""
    folder = tmp_path_factory.mktemp("good")
    update(evaluation(folder / "run", fp32=logits(changed(0, 20))), folder / "baseline.json")
    return folder / "baseline.json"


@pytest.fixture
def run(run_folder: Path, tmp_path: Path) -> Path:
    """A finished run that a test may change."""
    shutil.copytree(run_folder, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def baseline(run: Path, tmp_path: Path) -> Path:
    """The baseline of that run, as it was before the test changed it."""
    update(run, tmp_path / "baseline.json")
    return tmp_path / "baseline.json"


# A run of a recipe


def test_a_run_keeps_every_answer_that_the_gate_needs(run_folder: Path) -> None:
    scores = json.loads((run_folder / "metrics.json").read_text())
    with np.load(run_folder / "answers.npz") as answers:
        assert set(answers.files) == {"labels", "ids", "onnx", "onnx_fused"}
        assert len(set(answers["ids"].tolist())) == len(answers["labels"])
        hits = answers["onnx"].argmax(1) == answers["labels"]
    assert int(hits.sum()) == scores["onnx"]["correct"]


def test_a_run_is_as_good_as_itself(run: Path, baseline: Path) -> None:
    report = check(run, baseline, preset="mlperf-99")
    # What so short a training loses against FP32 depends on the number of threads.
    judged = [e for e in report.checks if e.name != "top1 mlperf-99"]
    assert {e.status for e in judged} <= {"passed", "info"}, judged
    assert [entry.name for entry in report.checks] == [
        "recipe", "top1 onnx", "top1 mlperf-99", "top1 onnx_fused", "top1 fp32", "top1 qat",
        "test images", "size model.onnx", "preflight errors", "preflight warnings",
        "preflight rules", "layers INT8 in and out", "2:4 proven", "versions",
    ]  # fmt: skip
    assert named(report, "top1 onnx").details["difference"] == 0.0


def test_the_baseline_holds_the_accuracies_of_the_run(run: Path, baseline: Path) -> None:
    scores = json.loads((run / "metrics.json").read_text())
    known = read_baseline(baseline)
    for stage in ("fp32", "qat", "onnx", "onnx_fused"):
        assert known.metrics["top1"][stage].value == scores[stage]["accuracy"]
    assert known.sizes == {"model.onnx": (run / "model.onnx").stat().st_size}


def test_the_same_run_gives_the_same_baseline(run: Path, baseline: Path, tmp_path: Path) -> None:
    """It lies in git: no time, no path, no order of a dictionary may change it."""
    update(run, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == baseline.read_bytes()


def test_an_update_keeps_what_the_old_baseline_judged(run: Path, baseline: Path) -> None:
    update(run, baseline, metrics=("top5", "top1"), stage="qat")
    update(run, baseline)
    known = read_baseline(baseline)
    assert (list(known.metrics), known.stage) == (["top5", "top1"], "qat")


def test_no_baseline_is_made_of_a_run_that_failed(run: Path, tmp_path: Path) -> None:
    failure = {"check": "accuracy_loss", "message": "QAT reaches 10 %"}
    edit(run, "manifest.json", lambda manifest: manifest.update(failures=[failure]))
    with pytest.raises(CheckFailed, match=r"made of a run that failed: QAT reaches 10 %"):
        update(run, tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()


def test_a_run_that_failed_its_own_tolerances_fails(run: Path, baseline: Path) -> None:
    failure = {"check": "accuracy_loss", "message": "QAT reaches 10 %"}
    edit(run, "manifest.json", lambda manifest: manifest.update(failures=[failure]))
    assert named(check(run, baseline), "recipe").status == "failed"


def test_what_the_recipe_tolerates_is_told_with_what_was_measured(
    run: Path, baseline: Path
) -> None:
    scores = json.loads((run / "metrics.json").read_text())
    fp32, qat = (f"{100 * scores[key]['accuracy']:.2f} %" for key in ("fp32", "qat"))
    message = named(check(run, baseline), "recipe").message
    assert f"QAT reaches {qat} and FP32 {fp32}: " in message
    assert "points (at least -100.00)" in message


# Accuracy


def test_half_a_point_on_ten_thousand_samples_is_flagged(good: Path, tmp_path: Path) -> None:
    """With 1.5 % of the samples answered otherwise, as after another calibration."""
    worse = evaluation(tmp_path / "run", onnx=logits(changed(100, 50)))
    found = named(check(worse, good), "top1 onnx")
    assert found.status == "failed"
    assert found.details["difference"] == pytest.approx(-0.005)
    assert found.details["p_value"] < 0.001
    assert (found.details["lost"], found.details["gained"]) == (100, 50)


def test_the_samples_that_were_lost_are_named_by_their_ids(good: Path, tmp_path: Path) -> None:
    ids = np.arange(COUNT) + 50_000
    first = evaluation(tmp_path / "a", ids=ids)
    update(first, tmp_path / "baseline.json")
    second = evaluation(tmp_path / "b", ids=ids, onnx=logits(changed(100, 0)))
    found = named(check(second, tmp_path / "baseline.json", samples=3), "top1 onnx")
    expected = (np.flatnonzero(RIGHT)[:3] + 50_000).tolist()
    assert found.details["lost_ids"] == expected
    assert f"lost: {', '.join(map(str, expected))}, ..." in found.message


def test_a_model_against_itself_never_raises_an_alarm(good: Path, tmp_path: Path) -> None:
    """A hundred times, with the noise that another batch size leaves in the outputs."""
    known = read_baseline(good).metrics["top1"]["onnx"]
    outputs = logits(RIGHT)
    for seed in range(100):
        noise = np.random.default_rng(seed).normal(0, 1e-5, outputs.shape)
        again = Scores.of((outputs + noise).argmax(1) == LABELS)
        assert regression("top1", "onnx", known, again, Tolerances()).status == "passed"


@pytest.mark.parametrize(
    ("lost", "gained", "says"),
    [
        (9, 0, "real, but within tolerances.regression"),
        (320, 280, "no more than chance does"),
        (0, 100, "+1.00 points"),
        (50, 100, "+0.50 points"),
    ],
)
def test_what_is_tolerated_or_chance_or_better_passes(lost: int, gained: int, says: str) -> None:
    sides = (Scores.of(RIGHT), Scores.of(changed(lost, gained)))
    found = regression("top1", "onnx", *sides, Tolerances())
    assert found.status == "passed"
    assert says in found.message


@pytest.mark.parametrize(
    "tolerances", [{"regression": 0.006}, {"significance": 1e-6}, {"regression": 0.005}]
)
def test_the_recipe_says_how_much_worse_and_how_sure(tolerances: dict[str, float]) -> None:
    sides = (Scores.of(RIGHT), Scores.of(changed(100, 50)))
    assert regression("top1", "onnx", *sides, Tolerances()).status == "failed"
    assert regression("top1", "onnx", *sides, Tolerances(**tolerances)).status == "passed"


def test_the_tolerances_are_those_of_the_run(run: Path, baseline: Path) -> None:
    spec = {"tolerances": {"regression": 0.25}}
    edit(run, "manifest.json", lambda manifest: manifest["recipe"].update(spec=spec))
    assert named(check(run, baseline), "top1 onnx").details["tolerance"] == 0.25


@pytest.mark.parametrize(
    ("lost", "preset", "status"),
    [
        (50, "mlperf-99", "passed"),
        (50, "mlperf-99.9", "failed"),
        (120, "mlperf-99", "failed"),
    ],
)
def test_presets_hold_a_run_to_the_fp32_of_the_baseline(
    good: Path, tmp_path: Path, lost: int, preset: str, status: str
) -> None:
    known = read_baseline(good).metrics["top1"]["fp32"].value
    right = changed(lost, 0)
    found = named(
        check(evaluation(tmp_path / "run", onnx=logits(right)), good, preset=preset),
        f"top1 {preset}",
    )
    part = float(preset.removeprefix("mlperf-")) / 100
    assert found.baseline == pytest.approx(part * known)
    assert found.status == status == ("passed" if right.mean() >= part * known else "failed")


def test_a_metric_of_whole_sets_is_gated_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the user's function; both models are measured on the same resamples."""
    body = "import numpy as np\ndef balanced(o, y):\n    r = o.argmax(1) == y\n    return np.mean("
    (tmp_path / "own_metric.py").write_text(body + "[r[y == c].mean() for c in range(10)])\n")
    monkeypatch.chdir(tmp_path)
    update(
        evaluation(tmp_path / "a"), Path("b.json"), metrics=("own_metric:balanced",), resamples=100
    )
    own = ("own_metric:balanced",)
    assert check(tmp_path / "a", "b.json", metrics=own).passed()
    worse = evaluation(tmp_path / "worse", onnx=logits(changed(100, 50)))
    found = named(check(worse, "b.json", metrics=own), "own_metric:balanced onnx")
    assert found.status == "failed"
    assert found.details["difference"] == pytest.approx(-0.005, abs=1e-3)
    assert "lost" not in found.details


def test_a_baseline_alone_imports_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "from pathlib import Path\nPath('ran').touch()\ndef own(o, y):\n    return 1.0\n"
    (tmp_path / "named_by_data.py").write_text(body)
    monkeypatch.chdir(tmp_path)
    metric = "named_by_data:own"
    update(evaluation(tmp_path / "a"), Path("b.json"), metrics=(metric,), resamples=2)
    Path("ran").unlink()
    sys.modules.pop("named_by_data")
    with pytest.raises(InputError, match=f"give --metric {metric} if it is yours"):
        check(tmp_path / "a", "b.json")
    with pytest.raises(InputError, match=f"give --metric {metric} if it is yours"):
        update(tmp_path / "a", Path("b.json"))
    assert not Path("ran").exists()
    assert "named_by_data" not in sys.modules
    assert check(tmp_path / "a", "b.json", metrics=(metric,)).passed()


# What the other files say


def add_finding(rule: str, severity: str) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        finding = {"rule": rule, "severity": severity, "node": "n", "message": "", "mend": ""}
        document["findings"].append(finding)
        if severity != "info":
            document["summary"][f"{severity}s"] += 1

    return change


@pytest.mark.parametrize(
    ("file", "change", "failed"),
    [
        ("preflight.json", add_finding("QDQ101", "warning"), {"warnings", "rules"}),
        ("preflight.json", add_finding("QDQ302", "info"), {"rules"}),
        ("preflight.json", add_finding("QDQ003", "error"), {"errors", "rules"}),
        ("preflight.json", lambda d: d["summary"].update(int8_in_int8_out=1), {"INT8 in and out"}),
        ("preflight.json", lambda d: d.update(target="t4"), {"preflight"}),
        ("compare.json", lambda d: d["sparsity"][0].update(holds_2_4=False), {"2:4 proven"}),
    ],
)
def test_what_preflight_and_the_proofs_say_may_not_get_worse(
    run: Path, baseline: Path, file: str, change: Callable[[Any], Any], failed: set[str]
) -> None:
    edit(run, file, change)
    bad = [entry.name for entry in check(run, baseline).checks if entry.status == "failed"]
    assert len(bad) == len(failed)
    assert all(any(name.endswith(word) for word in failed) for name in bad)


def test_fewer_findings_pass(run: Path, baseline: Path) -> None:
    edit(run, "preflight.json", add_finding("QDQ101", "warning"))
    update(run, baseline)
    edit(run, "preflight.json", lambda d: (d["findings"].clear(), d["summary"].update(warnings=0)))
    assert check(run, baseline).passed()


def test_a_model_that_grew_fails(run: Path, baseline: Path) -> None:
    path = run / "model.onnx"
    path.write_bytes(path.read_bytes() + bytes(path.stat().st_size // 10))
    digest = artifact.sha256_file(path)
    edit(run, "manifest.json", lambda d: d["artifacts"].update({"model.onnx": digest}))
    found = named(check(run, baseline), "size model.onnx")
    assert (found.status, found.details["growth"]) == ("failed", pytest.approx(0.1, abs=1e-3))


def bench(p50: float, half: float = 0.01, device: Any = "NVIDIA L4") -> dict[str, Any]:
    latency = {"p50": p50, "ci95": [p50 * (1 - half), p50 * (1 + half)]}
    entry = {"spec": "trt:/elsewhere/model.engine", "latency_ms": latency}
    return {"device": device, "versions": {}, "runs": [entry], "ratios": [], "warnings": []}


@pytest.mark.parametrize(
    ("document", "status"),
    [
        (bench(1.0), "passed"),
        (bench(1.2), "failed"),
        (bench(1.04), "passed"),  # tolerated
        (bench(1.2, half=0.3), "passed"),  # not significant
        (bench(0.5), "passed"),
    ],
)
def test_a_slower_engine_fails_if_it_is_more_than_noise_and_tolerance(
    run: Path, tmp_path: Path, document: Any, status: str
) -> None:
    artifact.write_json(run / "bench.json", bench(1.0))
    update(run, tmp_path / "b.json")
    artifact.write_json(run / "bench.json", document)
    found = named(check(run, tmp_path / "b.json"), "latency trt:model.engine")
    assert found.status == status
    assert found.details["ratio"] == pytest.approx(document["runs"][0]["latency_ms"]["p50"])


@pytest.mark.parametrize(
    "document",
    [None, bench(9.0, device="Orin"), bench(9.0, device={"gpus": [{"name": "A100"}], "cpu": "x"})],
)
def test_latency_that_cannot_be_compared_is_skipped_and_fails_if_strict(
    run: Path, tmp_path: Path, document: Any
) -> None:
    artifact.write_json(run / "bench.json", bench(1.0))
    update(run, tmp_path / "b.json")
    (run / "bench.json").unlink()
    if document:
        artifact.write_json(run / "bench.json", document)
    report = check(run, tmp_path / "b.json")
    assert named(report, "latency").status == "skipped"
    assert report.passed()
    assert not report.passed(strict=True)


@pytest.mark.parametrize(
    ("sparsity", "failed"),
    [
        ({"found": 8, "chose": 6}, []),
        ({"found": 8, "chose": 3}, []),  # another build of one graph may choose so
        ({"found": 7, "chose": 6}, ["sparse found"]),
        ({"found": 8, "chose": 2}, ["sparse chosen"]),
        ({"found": 8, "chose": 0}, ["sparse chosen"]),
    ],
)
def test_found_and_chose_may_not_fall(
    run: Path, tmp_path: Path, sparsity: dict[str, int], failed: list[str]
) -> None:
    artifact.write_json(run / "layers.json", {"sparsity": {"found": 8, "chose": 6}})
    update(run, tmp_path / "b.json")
    artifact.write_json(run / "layers.json", {"sparsity": sparsity})
    report = check(run, tmp_path / "b.json")
    assert [entry.name for entry in report.checks if entry.status == "failed"] == failed


def test_an_engine_without_a_log_has_no_found_and_chose(run: Path, tmp_path: Path) -> None:
    artifact.write_json(run / "layers.json", {"sparsity": {"found": 8, "chose": 6}})
    update(run, tmp_path / "b.json")
    artifact.write_json(run / "layers.json", {"sparsity": None})
    assert named(check(run, tmp_path / "b.json"), "sparse kernels").status == "skipped"


# What cannot be compared


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": LABELS[:0], "onnx": logits(RIGHT)[:0]}, "no samples"),
        ({"labels": LABELS[:99], "onnx": logits(RIGHT)[:99]}, "99 test samples, .* has 10000"),
        ({"labels": LABELS[::-1]}, "other test samples than the baseline's"),
        ({"ids": np.arange(COUNT) + 1}, "other test samples than the baseline's"),
        ({"onnx": logits(RIGHT)[:5]}, r"onnx has shape \(5, 10\) for 10000 labels"),
        ({"onnx": np.zeros((COUNT, 11))}, "have 11 classes, the baseline's 10"),
        ({"onnx": np.where(np.arange(10) == 3, np.nan, logits(RIGHT))}, "NaN or infinity for 1000"),
        ({"onnx": np.full((COUNT, 10), np.inf)}, "NaN or infinity .* the first of id 0"),
        ({"onnx": np.full((COUNT, 10), "a")}, "onnx is <U1; allowed: numbers"),
        ({"ids": np.zeros(3, int)}, r"ids are int64 \(3,\); allowed: integers \(10000,\)"),
    ],
)
def test_answers_that_do_not_fit_are_one_error(
    good: Path, tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        check(evaluation(tmp_path / "run", **arrays), good)


def test_another_stage_is_not_taken_for_the_judged_one(good: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    np.savez(folder / "answers.npz", labels=LABELS, qat=logits(RIGHT))
    with pytest.raises(InputError, match=r"no answers of the stage 'onnx'.* there are qat"):
        check(folder, good)


def test_the_same_samples_with_other_pixels_fail(run: Path, baseline: Path) -> None:
    edit(run, "manifest.json", lambda d: d["data"]["test"].update(sha256="0" * 64))
    found = named(check(run, baseline), "test images")
    assert found.status == "failed"
    assert "preprocessing" in found.message


def test_a_file_that_was_changed_after_the_run_is_refused(run: Path, baseline: Path) -> None:
    (run / "preflight.json").write_text("{}")
    with pytest.raises(InputError, match=r"preflight.json: changed since the run"):
        check(run, baseline)


def test_an_older_file_that_the_run_did_not_make_is_not_read(run: Path, tmp_path: Path) -> None:
    edit(run, "manifest.json", lambda d: d["artifacts"].pop("answers.npz"))
    with pytest.raises(InputError, match=r"no answers.npz; run the recipe to its stage compare"):
        update(run, tmp_path / "b.json")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "cannot be read as JSON"),
        (lambda text: text.replace('"samples": 10000', '"samples": 9999'), "edited by hand"),
        (lambda text: text.replace("baseline 1", "baseline 9"), "format is 'trt-qat baseline 9'"),
        (lambda text: "[]", "format is None"),
        (lambda text: text.replace('"data": "', '"data": "A', 1), "damaged or edited"),
    ],
)
def test_a_damaged_baseline_is_one_error(
    good: Path, tmp_path: Path, damage: Callable[[str], str], message: str
) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(damage(good.read_text()))
    with pytest.raises(InputError, match=rf"baseline.json: .*{message}.*--update"):
        check(evaluation(tmp_path / "run"), path)


@pytest.mark.parametrize(
    "document", [{}, {"runs": [{"spec": "trt:a"}], "device": "x"}, {"runs": 3}]
)
def test_a_bench_that_is_none_names_its_file(run: Path, baseline: Path, document: Any) -> None:
    artifact.write_json(run / "bench.json", document)
    with pytest.raises(InputError, match=r"bench.json: not as trt-qat writes it"):
        check(run, baseline)


def test_an_unknown_preset_names_the_nearest(good: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"did you mean 'mlperf-99\.9'"):
        check(tmp_path, good, preset="mlperf-999")


def test_a_preset_needs_the_answers_of_fp32(tmp_path: Path) -> None:
    update(evaluation(tmp_path / "run"), tmp_path / "b.json")
    with pytest.raises(InputError, match="no answers of the stage fp32"):
        check(tmp_path / "run", tmp_path / "b.json", preset="mlperf-99")


# Reports and the command line


def test_junit_has_a_case_for_every_check(good: Path, tmp_path: Path) -> None:
    worse = evaluation(tmp_path / "a\x07b", onnx=logits(changed(200, 0)))
    report = check(worse, good)
    suite = ElementTree.fromstring(to_junit(report))[0]
    assert suite.attrib["tests"] == str(len(report.checks)) == str(len(suite))
    (failure,) = suite.iter("failure")
    assert "-2.00 points" in failure.attrib["message"]
    assert suite.attrib["failures"] == "1"
    strict = ElementTree.fromstring(to_junit(report, strict=True))[0]
    assert strict.attrib["failures"] == str(1 + report.count("skipped"))


def test_the_command_updates_passes_and_fails(tmp_path: Path) -> None:
    evaluation(tmp_path / "good", fp32=logits(RIGHT))
    evaluation(tmp_path / "bad", onnx=logits(changed(100, 50)))
    against = ("--against", "base.json")
    made = command_line("check", "good", *against, "--update", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "review it, and keep it in git" in made.stderr
    passed = command_line("check", "good", *against, "--preset", "mlperf-99.9", cwd=tmp_path)
    assert passed.returncode == 0, passed.stderr
    assert "passed: " in passed.stdout
    failed = command_line("check", "bad", *against, "--json", "--junit", "j.xml", cwd=tmp_path)
    assert failed.returncode == 1
    assert "bad is not as good as base.json: top1 onnx" in failed.stderr
    document = json.loads(failed.stdout)
    assert list(document) == [
        "run", "baseline", "passed", "strict", "stage", "samples", "summary", "checks",
    ]  # fmt: skip
    keys = {"name", "status", "baseline", "candidate", "message", "details"}
    assert all(set(entry) == keys for entry in document["checks"])
    assert ElementTree.parse(tmp_path / "j.xml").getroot()[0].attrib["failures"] == "1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([".", "--against", "b.json"], "b.json: no such file"),
        (["nowhere", "--against", "b.json", "--update"], "nowhere: no such folder"),
        ([".", "--against", "b.json", "--update"], "no answers.npz"),
        ([".", "--against", "b.json", "--metric", "top5"], "belong to --update"),
        ([".", "--against", "b.json", "--update", "--strict"], "--update judges nothing"),
    ],
)
def test_bad_input_is_exit_code_2_and_one_sentence(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = command_line("check", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_measured_promises_hold_and_the_docs_show_them() -> None:
    """After a new measurement by benchmarks/gate.py."""
    root = Path(__file__).parents[2]
    document = json.loads((root / benchmark.RESULT).read_text())
    assert benchmark.failed(document) == 0
    assert document["itself"]["comparisons"] == 100
    text = (root / benchmark.DOCS).read_text()
    assert benchmark.filled(text, document) == text
