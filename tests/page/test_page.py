"""The report is one page that needs nothing else, shows every number, and believes no text."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runs import edit
from trt_qat.artifact import sha256_file
from trt_qat.benching.bench import bench
from trt_qat.benching.settings import Settings
from trt_qat.errors import InputError
from trt_qat.gate.answers import RunFolder
from trt_qat.gate.verdict import of_folder
from trt_qat.page import SENSITIVITY, write
from trt_qat.page.charts import Series, _nice, _score_axis, interval_chart, line_chart
from trt_qat.page.markup import anchor, escape, table, tag
from trt_qat.page.samples import changes_of

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Collects elements, and notices those that are closed in the wrong order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.policy: str | None = None
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(name)
        self.attributes += attributes
        if ("http-equiv", "Content-Security-Policy") in attributes:
            self.policy = dict(attributes)["content"]
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, text: str) -> None:
        self.text += text


@pytest.fixture(scope="module")
def page(run_folder: Path) -> Page:
    return Page((run_folder / "report.html").read_text())


def test_the_page_is_well_formed_and_says_what_it_is(page: Page, run_folder: Path) -> None:
    text = (run_folder / "report.html").read_text()
    assert text.startswith("<!doctype html>\n<html lang=")
    assert '<meta name="viewport"' in text
    assert page.tags.count("h1") == 1
    assert page.tags.count("main") == 1


def test_the_page_needs_nothing_from_elsewhere(page: Page) -> None:
    assert not {"link", "img", "iframe", "object"} & set(page.tags)
    assert page.tags.count("script") == 1, "its own, which stands in it"
    assert "src" not in dict(page.attributes)
    assert page.policy is not None
    assert page.policy.startswith("default-src 'none'")
    loaded = [value for key, value in page.attributes if key in ("src", "href", "xlink:href")]
    assert [value for value in loaded if not (value or "").startswith("#")] == []
    assert "url(" not in page.text
    assert "@import" not in page.text


def test_the_page_follows_light_and_dark_and_narrow(page: Page) -> None:
    assert "prefers-color-scheme: dark" in page.text
    assert "max-width: 40rem" in page.text
    assert "@media print" in page.text


def test_every_accuracy_of_the_metrics_is_on_the_page(page: Page, run_folder: Path) -> None:
    metrics = json.loads((run_folder / "metrics.json").read_text())
    for entry in metrics.values():
        assert f"{100 * entry['accuracy']:.2f} %" in page.text
        assert f"{100 * entry['interval95'][0]:.2f} %" in page.text


def test_the_check_of_accuracy_names_what_was_measured(page: Page, run_folder: Path) -> None:
    metrics = json.loads((run_folder / "metrics.json").read_text())
    fp32, qat = (100 * metrics[key]["accuracy"] for key in ("fp32", "qat"))
    told = f"QAT reaches {qat:.2f} % and FP32 {fp32:.2f} %: {qat - fp32:+.2f} points"
    assert f"{told} (at least -100.00)" in page.text


@pytest.mark.parametrize(
    "title",
    ["Accuracy on the test set", "Checks", "Training", "Layers", "Activation ranges",
     "ONNX against torch fake-quant", "PTQ against QAT", "Error, layer by layer", "Engine",
     "Samples and classes", "Findings", "Data", "How it was made"],
)  # fmt: skip
def test_the_page_has_every_section_and_a_link_to_it(page: Page, title: str) -> None:
    assert title in page.text
    assert ("id", anchor(title)) in page.attributes
    assert page.attributes.count(("href", f"#{anchor(title)}")) == 2, "in the list, and its own"


def test_every_layer_scale_digest_and_version_is_on_the_page(page: Page, run_folder: Path) -> None:
    manifest = json.loads((run_folder / "manifest.json").read_text())
    sparsity = json.loads((run_folder / "sparsity.json").read_text())
    ranges = json.loads((run_folder / "ranges.json").read_text())
    expected = [
        *(note["name"] for note in [*sparsity["sparse"], *sparsity["skipped"]]),
        *ranges["amax"],
        manifest["artifacts"]["model.onnx"],
        manifest["versions"]["torch"],
        manifest["data"]["test"]["sha256"][:16],
    ]
    assert [text for text in expected if text not in page.text] == []


def test_training_is_drawn_for_both_trainings(page: Page) -> None:
    assert page.tags.count("polyline") == 8, "loss and accuracy, training and validation, twice"
    assert "QAT: accuracy" in page.text


def test_every_picture_is_said_in_words(run_folder: Path) -> None:
    text = (run_folder / "report.html").read_text()
    pictures = re.findall(r"<svg[^>]*role=\"img\".*?</svg>", text)
    assert pictures
    assert all("<title>" in picture for picture in pictures)


def damaged(run_folder: Path, folder: Path, **changes: Any) -> Path:
    shutil.copytree(run_folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))
    return folder


def test_text_from_outside_is_never_markup(run_folder: Path, tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>\"&"
    folder = damaged(run_folder, tmp_path / "run", name=evil)
    sparsity = json.loads((folder / "sparsity.json").read_text())
    sparsity["skipped"].append({"name": evil, "why": evil})
    (folder / "sparsity.json").write_text(json.dumps(sparsity))
    preflight = json.loads((folder / "preflight.json").read_text())
    preflight["layers"].append(preflight["layers"][0] | {"name": evil})
    (folder / "preflight.json").write_text(json.dumps(preflight))
    page = Page(write(folder).read_text())
    assert page.tags.count("script") == 1
    assert page.text.count(evil) >= 4


@pytest.mark.parametrize("own", [True, False])
def test_a_study_of_sensitivity_is_shown_if_it_is_of_this_float_model(
    run_folder: Path, tmp_path: Path, own: bool
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    fp32 = json.loads((folder / "manifest.json").read_text())["artifacts"]["fp32.pt"]
    layers = [{"name": "stem.0", "alone_db": 31.25, "without_db": 37.4}]
    suggestion = {"exclude": ["stem.0"], "recipe": '[quantize]\nexclude = ["stem.0"]\n'}
    study = {"full_db": 30.0, "layers": layers, "suggestion": suggestion}
    document = study | {"fp32": fp32 if own else "0" * 64}
    (folder / SENSITIVITY).write_text(json.dumps(document))
    text = Page(write(folder).read_text()).text
    assert ("Sensitivity to INT8" in text) == own
    assert ('exclude = ["stem.0"]' in text) == own


def test_ptq_stands_beside_qat(page: Page, run_folder: Path) -> None:
    metrics = json.loads((run_folder / "metrics.json").read_text())
    ptq, qat = metrics["sparse_ptq"]["accuracy"], metrics["qat"]["accuracy"]
    assert f"points against PTQ{100 * (qat - ptq):+.2f}" in page.text


def test_the_first_screen_tells_what_everybody_asks_for(page: Page, run_folder: Path) -> None:
    head = (run_folder / "report.html").read_text().partition("</header>")[0]
    text = Page(f"{head}</header></body></html>").text
    onnx = json.loads((run_folder / "metrics.json").read_text())["onnx"]
    for words in (
        "ONNX verified, engine not built", f"{100 * onnx['accuracy']:.2f} %", "INT8 coverage",
        "a sparse kernel likely in", "MB ONNX", "Target", "TensorRT", "Latency", "not built",
        "Made",
        "commit" if json.loads((run_folder / "manifest.json").read_text())["commit"] else "git",
        "Next: trt-qat pack runs/small",
    ):  # fmt: skip
        assert words in text, words


def test_one_table_tells_all_of_a_layer(page: Page, run_folder: Path) -> None:
    text = (run_folder / "report.html").read_text()
    body = text.partition('id="layer-table"')[2].partition("</table>")[0]
    compare = json.loads((run_folder / "compare.json").read_text())
    preflight = json.loads((run_folder / "preflight.json").read_text())
    assert body.count("<tr") == 1 + len(preflight["layers"])
    for layer in compare["weights"]:
        assert f">{layer['name']}<" in body
        assert "x".join(map(str, layer["shape"])) in body
        assert layer["scale"] is None or f"{layer['scale']:.4g}" in body
    for title in ("op", "in", "out", "scale in", "own dB", "2:4", "zeros", "why"):
        assert f">{title}</button>" in body
    assert ">ms</button>" not in body, "without an engine there are no times"


def test_samples_that_changed_are_named_and_classes_ranked(
    run_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    with np.load(folder / "answers.npz") as archive:
        arrays = dict(archive)
    right = np.flatnonzero(np.load(folder / "fp32_logits.npz")["logits"].argmax(1)
                           == arrays["labels"])[:2]  # fmt: skip
    arrays["onnx"][right] = np.eye(10)[(arrays["labels"][right] + 1) % 10]
    np.savez(folder / "answers.npz", **arrays)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["artifacts"]["answers.npz"] = sha256_file(folder / "answers.npz")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    changes = changes_of(RunFolder(folder).answers())
    assert changes is not None
    lost = (changes.float_answers == changes.labels) & (changes.answers != changes.labels)
    assert set(right) <= set(np.flatnonzero(lost))
    text = Page(write(folder).read_text()).text
    assert f"INT8 loses {lost.sum()} that FP32 has right" in text
    assert "Right answers by class, the largest drop first" in text


def test_every_quantized_tensor_has_its_histogram_and_clip_point(
    page: Page, run_folder: Path
) -> None:
    found = json.loads((run_folder / "compare.json").read_text())["histograms"]
    assert len(found) >= 6
    for item in found:
        assert f"clip ±{item['clip']:.4g}, largest {item['largest']:.4g}" in page.text
        assert 0 <= item["beyond"] <= 1
    assert page.attributes.count(("class", "clip")) == len(found)


def test_every_layer_of_the_comparison_is_drawn_and_listed(page: Page, run_folder: Path) -> None:
    layers = json.loads((run_folder / "compare.json").read_text())["layers"]
    assert len(layers) > 10
    assert page.attributes.count(("class", "own")) == len(layers)
    assert [row["name"] for row in layers if row["name"] not in page.text] == []


def test_a_run_that_failed_says_so(run_folder: Path, tmp_path: Path) -> None:
    failures = [{"check": "accuracy_gap", "message": "too far"}]
    folder = damaged(run_folder, tmp_path / "run", passed=False, failures=failures)
    text = write(folder).read_text()
    assert "✗ do not ship" in text
    assert '<b class="bad">✗</b>their accuracies differ' in text


def test_what_placement_warned_of_is_in_the_verdict_and_among_the_findings(
    run_folder: Path, tmp_path: Path
) -> None:
    """A model that was placed in pieces makes a slow engine: nobody should have to look for it."""
    shutil.copytree(run_folder, tmp_path / "run")
    warning = "the model was not traced whole (control flow, net.py:3): 7 layers write float"
    edit(tmp_path / "run", "placement.json", lambda told: told["warnings"].append(warning))
    assert warning in of_folder(tmp_path / "run").notes
    page = Page(write(tmp_path / "run").read_text())
    assert "What placement warned of" in page.text
    assert page.text.count(warning) == 2


def test_a_run_that_stopped_early_has_a_page_too(run_folder: Path, tmp_path: Path) -> None:
    folder = damaged(run_folder, tmp_path / "run", artifacts={})
    page = Page(write(folder).read_text())
    assert "How it was made" in page.text
    assert "Accuracy on the test set" not in page.text


def test_the_same_run_gives_the_same_page(run_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    assert write(folder).read_text() == write(folder).read_text()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest.json: no such file; give the folder of a run"):
        write(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", r"manifest.json: cannot be read"), ("{}", r"not the manifest of a run")],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=message):
        write(tmp_path)


# Charts and markup


def entry(accuracy: float, low: float, high: float) -> dict[str, Any]:
    return {"accuracy": accuracy, "interval95": [low, high]}


@pytest.mark.parametrize("low", [0.0, 0.001, 0.3, 0.95, 0.999, 1.0])
def test_an_interval_chart_fits_any_accuracy(low: float) -> None:
    text = interval_chart([("a", entry(low, low * 0.99, min(1.0, low * 1.001)))])
    places = [float(x) for x in re.findall(r'(?:x1|x2|cx)="([-\d.]+)%"', text)]
    assert places
    assert all(0.0 <= place <= 100.0 for place in places)


@pytest.mark.parametrize(
    "points", [[(1.0, 0.5)], [(0.0, 2.0), (1.0, 2.0)], [(1.0, 0.0), (2.0, 9e9)]]
)
def test_a_line_chart_stays_in_its_frame(points: list[tuple[float, float]]) -> None:
    text = line_chart("loss", [Series("training", points, "first")], as_percent=False)
    (drawn,) = re.findall(r'points="([^"]+)"', text)
    for pair in drawn.split():
        x, y = map(float, pair.split(","))
        assert 0.0 <= x <= 100.0
        assert -0.01 <= y <= 100.01


def test_values_are_escaped_once_and_attributes_too() -> None:
    assert escape(escape("<&>")) == "&lt;&amp;&gt;"
    assert tag("p", "<b>", title='"') == '<p title="&quot;">&lt;b&gt;</p>'
    assert "&lt;td&gt;" in table("<td>", ["a"], [["b"]], set())


# The benchmark of a run


@pytest.fixture(scope="module")
def timed(run_folder: Path) -> dict[str, Any]:
    """A benchmark of the run's ONNX, with a warning that could be markup."""
    settings = Settings(seconds=0.02, sessions=1, warmup_s=0.01, layers=True, energy_s=0)
    specs = [f"ort:{run_folder / 'model.onnx'}", f"ort-int8:{run_folder / 'model.onnx'}"]
    found = bench(specs, accuracy=(0.99, 0.98), settings=settings).to_dict()
    return {**found, "warnings": ["<script>alert(1)</script>"]}


@pytest.fixture
def measured(run_folder: Path, timed: dict[str, Any], tmp_path: Path) -> Path:
    """A copy of the run with the benchmark in it."""
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    (folder / "bench.json").write_text(json.dumps(timed))
    return folder


def test_a_benchmark_of_the_run_is_drawn(measured: Path) -> None:
    text = write(measured).read_text()
    page = Page(text)
    assert page.tags.count("figure") >= 4
    labels = {value for name, value in page.attributes if name == "aria-label"}
    assert {"Latency against the first model", "Time by layer, batch 1"} <= labels
    assert "var(--bench-1, #0072b2)" in text
    assert page.tags.count("script") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_a_benchmark_of_other_files_is_not(measured: Path) -> None:
    path = measured / "bench.json"
    document = json.loads(path.read_text())
    for run in document["runs"]:
        run["sha256"] = "0" * 64
    path.write_text(json.dumps(document))
    assert "--bench-1" not in write(measured).read_text()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"runs": [1]}'])
def test_a_file_that_is_no_benchmark_is_left_out(measured: Path, text: str) -> None:
    (measured / "bench.json").write_text(text)
    assert "--bench-1" not in write(measured).read_text()


@pytest.mark.parametrize(
    ("low", "high"), [(1.0, 1.0), (0.97, 1.0), (-0.4, 0.1), (-30.0, -2.0), (28.0, 34.0), (0.0, 0.0)]
)
def test_scores_of_any_size_have_an_axis(low: float, high: float) -> None:
    """R squared is below 0 where a model knows less than the mean; decibels are above 1."""
    ticks = _score_axis(low, high)
    assert ticks == sorted(ticks)
    assert ticks[0] <= low
    assert high <= ticks[-1] + 1e-9
    assert 2 <= len(ticks) <= 9
    bottom, top = _nice(low, high, as_percent=True)
    assert bottom <= low <= high <= top
