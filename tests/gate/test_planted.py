"""Planted cases: what is good must not fail, and what is bad must not pass, in any of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import trt_qat as tq
from tests.graph.build import Builder
from tests.runs import command_line, edit
from trt_qat import artifact
from trt_qat.comparison.result import Comparison, compare_outputs
from trt_qat.data.arrays import ArraySplit, Source
from trt_qat.data.splits import divide
from trt_qat.errors import DataError, NotProven, TrtQatError
from trt_qat.files import RECIPE_PATH
from trt_qat.gate.parity import (
    chance_failures,
    chance_of,
    graded_chance_of,
    parity_failures,
)
from trt_qat.gate.verdict import Verdict, of_folder, verdict
from trt_qat.measure.chance import chance
from trt_qat.measure.metrics import score_titles, scored
from trt_qat.measure.outputs import Axes
from trt_qat.mend.fix import Half, fix
from trt_qat.page import write
from trt_qat.recipe.specs import CalibrationSpec, DataSpec, Tolerances
from trt_qat.runners.feeds import inputs_for
from trt_qat.tasks.classes import miou
from trt_qat.tasks.numbers import r2
from trt_qat.tasks.score import Meter, Score

Array = np.ndarray


def noisy(array: Array, db: float, seed: int = 1) -> Array:
    """The array with noise so many decibel below it."""
    draw = np.random.default_rng(seed).standard_normal(array.shape)
    spread = np.sqrt(np.mean(array.astype(float) ** 2)) * 10 ** (-db / 20)
    return np.asarray(array + draw * spread, np.float32)


def maps(samples: int = 8, classes: int = 4, size: int = 32) -> Array:
    """Scores of a segmenter: a blob of every class, with borders between them."""
    places = np.stack(np.meshgrid(*2 * [np.linspace(-1, 1, size)]))
    draw = np.random.default_rng(0)
    centres = draw.uniform(-1, 1, (samples, classes, 2))
    apart = ((places[None, None] - centres[..., None, None]) ** 2).sum(axis=2)
    return np.asarray(-4 * apart, np.float32)


def logits(samples: int = 450, classes: int = 10, seed: int = 0) -> Array:
    """Scores of a classifier that is sure of its answer; the classes in turns."""
    draw = np.random.default_rng(seed)
    scores = draw.standard_normal((samples, classes)).astype(np.float32)
    scores[np.arange(samples), np.arange(samples) % classes] += 9
    return scores


def detections(images: int = 2, anchors: int = 300) -> Array:
    """Boxes in pixels over scores up to 1 in one tensor, as YOLO has them."""
    draw = np.random.default_rng(0)
    boxes = draw.uniform(0, 640, (images, 4, anchors))
    scores = 0.001 * draw.random((images, 6, anchors))
    for image in range(images):
        scores[image, draw.integers(0, 6, 9), draw.integers(0, anchors, 9)] = 0.9
    return np.concatenate([boxes, scores], axis=1).astype(np.float32)


def against(ref: Array, cand: Array, name: str = "o", **options: Any) -> Comparison:
    return compare_outputs(("ref", {name: ref}), ("cand", {name: cand}), **options)


def flipped(scores: Array, rows: int, margin: float) -> tuple[Array, Array]:
    """Scores in which some rows prefer their answer by a margin, and others that prefer another."""
    ref, cand = scores.copy(), scores.copy()
    for row in range(rows):
        second, first = np.argsort(ref[row])[-2:]
        ref[row, second] = cand[row, first] = ref[row, first] - margin
        cand[row, second] = ref[row, first]
    return ref, cand


def swapped(array: Array, one: int, other: int) -> Array:
    """The array with two channels in each other's place."""
    found = np.array(array)
    found[:, [one, other]] = found[:, [other, one]]
    return found


def with_class_given_up(scores: Array, lost: int) -> Array:
    found = np.array(scores)
    found[:, lost] = scores.min() - 1
    return found


SEGMENTATION = Axes("segmentation")


def rare() -> Array:
    """A map of which one class has under 1 % of the pixels."""
    scores = np.zeros((4, 3, 32, 32), np.float32)
    scores[:, 0] = 5
    scores[:, 1, :10] = 9
    scores[:, 2, 20:23, 20:23] = 9
    return scores


def thousand() -> Array:
    """Sixteen answers of each of a thousand classes."""
    return np.eye(1000, dtype=np.float32)[np.arange(16_000) % 1000]


GOOD: dict[str, Callable[[], Comparison]] = {
    "a good segmenter": lambda: against(maps(), noisy(maps(), 30), axes=SEGMENTATION),
    "a good segmenter whose task nobody named": lambda: against(maps(), noisy(maps(), 30)),
    "a segmenter that hands out class numbers": lambda: against(
        maps().argmax(1), noisy(maps(), 35).argmax(1)
    ),
    "a good detector": lambda: against(
        detections(),
        np.concatenate([noisy(detections()[:, :4], 35), noisy(detections()[:, 4:], 20)], axis=1),
    ),
    "boxes": lambda: against(detections()[:, :4], noisy(detections()[:, :4], 35), "boxes"),
    "a depth": lambda: against(depth(), noisy(depth(), 40)),
    "a depth of hardly any structure": lambda: against(depth(0.05), noisy(depth(0.05), 40)),
    "an embedding": lambda: against(logits(64, 32), noisy(logits(64, 32), 25), "embedding"),
    "one flipped tie": lambda: against(*flipped(logits(16), 1, 1e-4)),
    "one real flip of 450": lambda: against(*flipped(logits(), 1, 1.0)),
    "a class that nothing is of": lambda: against(
        with_class_given_up(logits()[np.arange(450) % 10 != 3], 3),
        noisy(with_class_given_up(logits()[np.arange(450) % 10 != 3], 3), 40),
    ),
}


def depth(varying: float = 0.5) -> Array:
    """A depth of 10 with some structure."""
    return np.asarray(10 + varying * maps()[:, :1] / maps().std(), np.float32)


BAD: dict[str, Callable[[], Comparison]] = {
    "a segmenter with two classes swapped": lambda: against(
        maps(), swapped(maps(), 1, 2), axes=SEGMENTATION
    ),
    "the same without its task": lambda: against(maps(), swapped(maps(), 1, 2)),
    "a segmenter that gives a rare class up": lambda: against(
        rare(), with_class_given_up(rare(), 2), axes=SEGMENTATION
    ),
    "a detector with the scores of other anchors": lambda: against(
        detections(), np.concatenate([detections()[:, :4], detections()[:, 4:, ::-1]], axis=1)
    ),
    "embeddings of other rows": lambda: against(logits(64), logits(64)[::-1], "embedding"),
    "a depth that is the same whatever is seen": lambda: against(
        depth(), np.full_like(depth(), depth().mean())
    ),
    "one real flip of 16": lambda: against(*flipped(logits(16), 1, 1.0)),
    "ten real flips of 450": lambda: against(*flipped(logits(), 10, 1.0)),
    "one class of a thousand given up": lambda: against(
        thousand(), with_class_given_up(thousand(), 7)
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_good_does_not_fail(name: str) -> None:
    found = GOOD[name]()
    assert found.verdict == "passed", found.outputs


@pytest.mark.parametrize("name", BAD)
def test_what_is_bad_does_not_pass(name: str) -> None:
    found = BAD[name]()
    assert found.verdict == "failed", found.outputs


def test_a_class_of_nan_is_no_pass() -> None:
    spoilt = logits()
    spoilt[:, 4] = np.nan
    with pytest.raises(DataError, match="'o' holds NaN or infinity in the candidate"):
        against(logits(), spoilt)


# Random inputs


def classifier(folder: Path, name: str, *, quantized: bool, gain: float = 1.0) -> str:
    """A small network; its first pair, if there is one, covers what images hold and no more."""
    b = Builder(seed=1)
    x = b.input("x", ["N", 4, 8, 8])
    x = b.qdq(x, 1.0 / 127, name="in") if quantized else x
    weight = b.store("w", np.random.default_rng(0).standard_normal((16, 4, 3, 3)) * 0.3)
    y = b.conv(x, (4, 16), "conv", w=weight, relu=True)
    pooled = b.node("GlobalAveragePool", y, name="pool")
    flat = b.node("Flatten", pooled, name="flat")
    head = b.store("head", gain * np.random.default_rng(2).standard_normal((16, 5)))
    onnx.save(b.model(b.node("MatMul", flat, head, name="fc")), folder / f"{name}.onnx")
    return str(folder / f"{name}.onnx")


def test_random_inputs_fail_no_calibrated_network(tmp_path: Path) -> None:
    float_model = classifier(tmp_path, "float", quantized=False)
    int8 = classifier(tmp_path, "int8", quantized=True)
    done = command_line("compare", "--ref", f"ort:{float_model}", "--cand", f"ort:{int8}",
                        "--agreement", "1", "--axis", "none", "--sqnr", "60")  # fmt: skip
    assert done.returncode == NotProven.exit_code, done.stdout
    assert "RANDOM INPUTS" in done.stderr
    assert "UNDECIDED" in done.stdout
    images = np.random.default_rng(0).random((64, 4, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "images.npz", x=images)
    given = inputs_for([f"ort:{int8}"], tmp_path / "images.npz")
    found = tq.compare(f"ort:{float_model}", f"ort:{int8}", given.feeds, axes=Axes(none=True))
    assert found.verdict == "passed"


def test_random_inputs_fail_a_float_network_that_is_another(tmp_path: Path) -> None:
    one = classifier(tmp_path, "one", quantized=False)
    other = classifier(tmp_path, "other", quantized=False, gain=-1.0)
    given = inputs_for([f"ort:{one}"], None)
    found = tq.compare(f"ort:{one}", f"ort:{other}", given.feeds, inputs=given.words)
    assert (given.words.startswith("random"), found.verdict) == (True, "failed")


def test_what_fix_writes_passes_against_its_source(run_folder: Path, tmp_path: Path) -> None:
    """README: preflight model.onnx --fix mended.onnx --fp16, and then compare."""
    source, mended = run_folder / "model.onnx", tmp_path / "mended.onnx"
    fix(source, mended, half=Half())
    for data in (None, run_folder):
        given = inputs_for([f"ort:{source}"], data)
        found = tq.compare(f"ort:{source}", f"ort:{mended}", given.feeds, labels=given.labels,
                           inputs=given.words, layers=False)  # fmt: skip
        assert found.verdict == "passed", found.outputs
    assert found.samples == 450
    # FP16 decides a sample on the fence otherwise, by how the machine's training has rounded.
    assert abs(found.accuracy["ref"] - found.accuracy["cand"]) <= 2 / 450


def test_a_float_onnx_is_a_warning(tmp_path: Path) -> None:
    report = tq.preflight(classifier(tmp_path, "float", quantized=False))
    assert [finding.rule for finding in report.findings if finding.severity == "warning"] == [
        "QDQ124"
    ]
    assert report.headline.startswith("INT8 in 0 of 2 layers")


# Runs


@pytest.fixture
def run(run_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(run_folder, tmp_path / "run")
    return tmp_path / "run"


def engine(run: Path, *, backend: str = "tensorrt", checked: bool = True) -> None:
    """Let the run have built an engine."""
    (run / "model.engine").write_bytes(b"plan")
    census: dict[str, Any] = {"layers": 0, "precision": {}}
    source = {"backend": backend, "tensorrt": "10.16", "rtx": "1.7", "gpu": "NVIDIA L4"}
    layers: dict[str, Any] = {"source": source, "layers": [], "sparsity": None, "census": census}
    artifact.write_json(run / "layers.json", layers)

    def change(manifest: Any) -> None:
        for name in ("model.engine", "layers.json"):
            manifest["artifacts"][name] = artifact.sha256_file(run / name)
        stage = next(stage for stage in manifest["stages"] if stage["name"] == "build")
        held = {"checked": checked} | ({} if checked else {"why": "no GPU"})
        stage.update(status="ran", why=None, verification=held)

    edit(run, "manifest.json", change)


def test_a_run_without_an_engine_is_verified_and_does_not_ship(run: Path) -> None:
    found = of_folder(run)
    assert (found.state, found.title) == ("onnx-verified", "ONNX verified, engine not built")
    assert "TensorRT" in found.reasons[0]
    assert found.next.startswith(f"trt-qat pack {run} ")
    done = command_line("check", run)
    assert (done.returncode, "engine not built" in done.stdout) == (4, True)
    assert command_line("check", run, "--onnx-ships").returncode == 0


def test_an_engine_that_ran_and_agrees_ships(run: Path) -> None:
    engine(run)
    found = of_folder(run)
    assert (found.state, found.exit_code) == ("ship", 0)
    assert found.next == f"trt-qat bundle {run}"


@pytest.mark.parametrize(
    ("options", "title"),
    [
        ({"backend": "rtx"}, "ONNX verified, engine built and never run"),
        ({"checked": False}, "ONNX verified, engine built and not compared"),
    ],
)
def test_an_engine_that_nobody_ran_does_not_ship(
    run: Path, options: dict[str, Any], title: str
) -> None:
    engine(run, **options)
    assert of_folder(run).title == title


def test_an_engine_that_is_gone_does_not_ship(run: Path) -> None:
    engine(run)
    (run / "model.engine").unlink()
    found = of_folder(run)
    assert (found.state, "model.engine is gone" in found.reasons[0]) == ("onnx-verified", True)


def bad(run: Path) -> Verdict:
    found = of_folder(run)
    assert (found.state, found.exit_code) == ("do-not-ship", 1), found
    assert command_line("check", run).returncode == 1
    assert "do not ship" in write(run).read_text()
    return found


def test_a_model_at_chance_level_does_not_ship(run: Path) -> None:
    """Float, QAT and ONNX agree on knowing nothing, so every other check is content."""
    engine(run)
    labels = np.arange(450) % 10
    wrong = np.eye(10, dtype=np.float32)[np.random.default_rng(0).integers(0, 10, 450)]
    entry, known = scored(wrong, labels, 0.1), chance_of(wrong, labels)
    assert known is not None
    assert [failure["check"] for failure in chance_failures(known, entry)] == ["chance"]
    edit(run, "metrics.json", lambda d: d.update(fp32=entry, qat=entry, onnx=entry))
    edit(run, "compare.json", lambda d: d.update(chance=known.to_dict()))
    assert "the ONNX is at chance level" in bad(run).reasons[0]


def scored_engine(run: Path, *, passed: bool, accuracy: float = 0.9) -> None:
    """Let the run have scored its engine on the test set."""
    output = {"name": "logits", "passed": passed, "asked": "9 of 450 answers differ; at most 1 may"}
    scores = {"samples": 450, "outputs": [output], "passed": passed}
    artifact.write_json(run / "engine.json", scores)
    edit(run, "engine.json", lambda d: d)
    edit(run, "metrics.json", lambda d: d.update(engine=d["onnx"] | {"accuracy": accuracy}))


def test_an_engine_that_differs_on_the_test_set_does_not_ship(run: Path) -> None:
    """The build holds eight samples against the ONNX; the score stage holds all of them."""
    engine(run)
    scored_engine(run, passed=False)
    assert "the engine differs from its ONNX" in bad(run).reasons[0]


def test_an_engine_that_lost_accuracy_does_not_ship(run: Path) -> None:
    engine(run)
    scored_engine(run, passed=True, accuracy=0.2)
    edit(
        run, "manifest.json", lambda d: d["recipe"]["spec"]["tolerances"].update(accuracy_loss=0.01)
    )
    assert "the engine reaches 20.00%" in bad(run).reasons[0]


def test_an_engine_for_rtx_that_ran_on_the_test_set_ships(run: Path) -> None:
    engine(run, backend="rtx", checked=False)
    scored_engine(run, passed=True)
    assert of_folder(run).state == "ship"


def segmenter_scores(known: float, images: int = 40) -> Score:
    """A segmenter that sees so large a part of the pixels, and else says the commonest class."""
    draw = np.random.default_rng(0)
    labels = (draw.random((images, 16, 16)) < 0.2).astype(np.int64)
    sees = draw.random(labels.shape) < known
    meter = Meter(miou())
    meter.update(np.eye(2)[np.where(sees, labels, 0)].transpose(0, 3, 1, 2), labels)
    return meter.score()


def regression_scores(known: float, samples: int = 60) -> Score:
    draw = np.random.default_rng(0)
    targets = draw.standard_normal((samples, 2))
    meter = Meter(r2())
    meter.update(known * targets + 0.05 * draw.standard_normal(targets.shape), targets)
    return meter.score()


@pytest.mark.parametrize("scores", [segmenter_scores, regression_scores])
@pytest.mark.parametrize(("known", "above"), [(0.0, False), (0.5, True), (0.95, True)])
def test_tasks_of_graded_scores_have_a_chance_level_too(
    scores: Callable[[float], Score], known: float, above: bool
) -> None:
    found = scores(known)
    judged = graded_chance_of(found.entry(0.0), found.blind)
    assert judged is not None
    assert judged.above is above
    failures = list(chance_failures(judged, found.entry(0.0)))
    assert [f["check"] for f in failures] == ([] if above else ["chance"])


@pytest.mark.parametrize(
    ("right", "count", "classes", "above"),
    [(3, 3, 2, None), (2, 2, 2, None), (5, 6, 2, None), (1, 1, 1, None),
     (10, 10, 10, True), (5, 100, 10, False), (50, 100, 2, False), (99, 100, 2, True)],
)  # fmt: skip
def test_few_samples_that_are_right_are_not_at_chance_level(
    right: int, count: int, classes: int, above: bool | None
) -> None:
    labels = np.arange(count) % classes
    wrong = np.random.default_rng(0).permutation(count)[right:]
    answers = labels.copy()
    answers[wrong] = (labels[wrong] + 1) % classes
    assert chance(answers, labels).above is above


def test_one_flipped_tie_of_a_small_test_set_is_no_failure_of_a_run() -> None:
    ref, cand = flipped(logits(100), 1, 1e-4)
    labels = ref.argmax(axis=1)
    for scores, checks in (
        (cand, []),
        (logits(100)[:, ::-1], ["argmax_agreement", "accuracy_gap"]),
    ):
        found = against(ref, scores, labels=labels, min_agreement=0.999)
        failures = parity_failures(found, Tolerances())
        assert [failure["check"] for failure in failures] == checks


def test_a_run_that_was_not_compared_does_not_ship(run: Path) -> None:
    edit(run, "manifest.json", lambda d: d["artifacts"].pop("compare.json"))
    assert "was not compared" in bad(run).reasons[0]


def test_a_network_without_int8_does_not_ship(run: Path) -> None:
    edit(run, "preflight.json", lambda d: d["summary"].update(int8=0, int8_in_int8_out=0))
    assert "a float network" in bad(run).reasons[0]


def test_a_failure_of_the_run_is_the_reason(run: Path) -> None:
    failure = {"check": "accuracy_loss", "message": "QAT reaches 1 %"}
    edit(run, "manifest.json", lambda d: d.update(failures=[failure], passed=False))
    found = bad(run)
    assert found.reasons[0] == "QAT reaches 1 %"
    known = json.loads((run / RECIPE_PATH).read_text())["recipe"]
    assert found.next == f"trt-qat sensitivity {known} --budget 0.005"


def scored_as(key: str, accuracy: float, metrics: Any) -> None:
    metrics[key]["accuracy"] = accuracy


def test_where_pruning_cost_the_accuracy_the_next_run_is_dense(run: Path) -> None:
    failure = {"check": "accuracy_loss", "message": "QAT reaches 47 %"}
    edit(run, "manifest.json", lambda d: d.update(failures=[failure], passed=False))
    edit(
        run, "manifest.json", lambda d: d["recipe"]["spec"]["tolerances"].update(accuracy_loss=0.01)
    )
    for key, accuracy in (("fp32", 0.92), ("ptq", 0.918), ("sparse", 0.47)):
        edit(run, "metrics.json", partial(scored_as, key, accuracy))
    found = bad(run)
    assert found.reasons[-1].startswith("2:4 costs it: ")
    assert "91.80%" in found.reasons[-1]
    assert found.next.endswith("--set sparsity.enabled=false")


def test_a_dense_run_is_not_called_sparse(run: Path) -> None:
    edit(run, "sparsity.json", lambda d: d.update(sparse=[], skipped=[]))
    edit(run, "compare.json", lambda d: d.update(sparsity=[]))
    edit(run, "metrics.json", lambda d: (d.pop("sparse"), d.pop("sparse_ptq")))
    edit(run, "preflight.json", lambda d: d["summary"].update(sparse_found=0, sparse_likely=0))
    edit(run, "manifest.json", lambda d: d["recipe"]["spec"]["sparsity"].update(enabled=False))
    metrics = json.loads((run / "metrics.json").read_text())
    assert score_titles(metrics)["qat"] == "INT8 QAT, dense"
    text = write(run).read_text()
    shown = text.partition("<footer")[0].partition("How it was made")[0]
    assert "2:4-sparse" not in shown
    assert "2:4 + INT8" not in shown
    assert "dense: no layer has 2:4 weights" in shown


def test_2_4_without_a_kernel_is_among_the_first_lines(run: Path) -> None:
    edit(run, "preflight.json", lambda d: d["summary"].update(sparse_found=51, sparse_likely=0))
    assert "2:4 in 51 layers, a sparse kernel likely in 0" in of_folder(run).notes
    head = write(run).read_text().partition("</header>")[0]
    assert "2:4 in 51 layers, a sparse kernel likely in 0" in head


def test_a_verdict_is_in_the_manifest_of_every_run(run_folder: Path) -> None:
    manifest = json.loads((run_folder / "manifest.json").read_text())
    assert manifest["verdict"]["state"] == "onnx-verified"
    assert manifest["verdict"]["next"].startswith("trt-qat pack runs/small ")


def test_a_verdict_on_nothing_is_no_pass() -> None:
    assert verdict({}, {}).state == "do-not-ship"


def test_the_check_of_a_folder_that_is_no_run_is_one_sentence(tmp_path: Path) -> None:
    done = command_line("check", tmp_path)
    assert done.returncode == 2
    assert "give --against BASELINE" in done.stderr


def test_advice_leaves_more_than_one_image_to_train_on() -> None:
    images = np.random.default_rng(0).random((200, 1, 4, 4), dtype=np.float32)
    ids = np.arange(200)
    split = ArraySplit(images, ids % 4, "train", ids)
    source = Source("own", split, None)
    with pytest.raises(DataError, match=r"set it to 72 at most") as told:
        divide(source, DataSpec(source="own"), CalibrationSpec(samples=500))
    assert isinstance(told.value, TrtQatError)
    found = divide(source, DataSpec(source="own"), CalibrationSpec(samples=72))
    assert len(found.train) == 72
