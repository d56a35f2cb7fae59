"""Manners of the command line: short flags, bare paths, names, explanations, next commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.runners.test_ort import linear_onnx
from tests.runs import command_line, write_engine
from trt_qat import artifact
from trt_qat.cli.app import COMMANDS
from trt_qat.cli.tables.names import cut
from trt_qat.cli.tables.preflight import grouped, render_statistics
from trt_qat.engine.evidence.explain import table
from trt_qat.errors import RecipeError
from trt_qat.lint.explained import sections
from trt_qat.lint.preflight import preflight
from trt_qat.lint.rule import Finding
from trt_qat.lint.rules import RULES
from trt_qat.pipeline.plan import STAGES
from trt_qat.recipe.keys import all_keys, explained
from trt_qat.recipe.load import load_recipe
from trt_qat.recipe.schema import recipe_schema
from trt_qat.recipe.specs import EngineSpec
from trt_qat.runners.bare import spec_of

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "recordings" / "layer_info"


class Line:
    """The command line in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        """Return exit code, stdout and stderr."""
        done = command_line(*arguments, cwd=self.folder)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Line:
    monkeypatch.chdir(tmp_path)
    return Line(tmp_path)


@pytest.mark.parametrize("command", [[], *([each.__name__] for each in COMMANDS)])
def test_h_is_help_everywhere(line: Line, command: list[str]) -> None:
    short, long = line(*command, "-h"), line(*command, "--help")
    assert short == long
    assert short[0] == 0


def test_quiet_leaves_results_and_errors(line: Line) -> None:
    model = linear_onnx(line.folder)
    assert "next: trt-qat" in line("preflight", model)[2]
    code, out, err = line("preflight", model, "-q")
    assert out
    assert "next:" not in err
    code, _, err = line("run", "missing.toml", "--quiet")
    assert (code, err.count("error: missing.toml: no such file")) == (2, 1)


def test_every_ending_names_the_next_command(line: Line) -> None:
    model = linear_onnx(line.folder)
    fused = f"ort-int8:{model}"
    said = line("compare", "--ref", model, "--cand", fused)[2]
    assert f"next: trt-qat build {model} --out {model.with_suffix('.engine')}" in said
    said = line("bench", model, "--sessions", "1", "--seconds", "0.1")[2]
    assert f"next: trt-qat bench {model} --layers" in said
    assert f"next: sh {line.folder / 'linear-bundle/trtexec/build.sh'}" in line("bundle", model)[2]
    log = line.folder / "build.log"
    entry = next(each for each in table() if each.rule == "QDQ114")
    log.write_text(f"[08/02/2024-14:21:11] [I] TensorRT version: 8.6.1\n{entry.example}\n")
    assert "next: trt-qat explain QDQ114" in line("inspect", log)[2]
    layers = RECORDED / "11.json"
    assert f"next: trt-qat inspect {layers} --layers" in line("inspect", layers)[2]


def test_the_shell_completes_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"_TRT_QAT_COMPLETE": "complete_bash", "COMP_WORDS": "trt-qat pre", "COMP_CWORD": "1"}
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'trt-qat'; from trt_qat.cli.app import "
         "main; main()"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["preflight"], done.stderr


def test_verbose_shows_where_an_error_comes_from(line: Line) -> None:
    assert "Traceback" not in line("run", "missing.toml")[2]
    assert "Traceback" in line("run", "missing.toml", "-v")[2]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("model.onnx", "ort:model.onnx"),
        ("runs/a/model.engine", "trt:runs/a/model.engine"),
        ("b.plan", "trt:b.plan"),
        ("ort-int8:model.onnx", "ort-int8:model.onnx"),
        ("torch:package.module:make", "torch:package.module:make"),
        ("model.bin", "model.bin"),
    ],
)
def test_a_bare_path_is_a_spec_by_its_ending(given: str, meant: str) -> None:
    assert spec_of(given) == meant


def test_an_engine_for_rtx_is_known_by_its_sidecar(tmp_path: Path) -> None:
    plan = tmp_path / "model.engine"
    plan.write_bytes(b"plan")
    told = {"engine": {"source": {"backend": "rtx"}}}
    artifact.write_sidecar(plan, fingerprint="f", parents={}, spec={}, metrics=told, seconds=0)
    assert spec_of(str(plan)) == f"trt-rtx:{plan}"


def test_compare_takes_bare_paths(line: Line) -> None:
    model = linear_onnx(line.folder)
    code, out, _ = line("compare", "--ref", model, "--cand", f"ort-int8:{model}")
    assert code == 0
    assert f"ort:{model}" in out


def test_a_recipe_is_found_by_its_name_in_engines(line: Line) -> None:
    (line.folder / "engines").mkdir()
    write_engine(line.folder / "engines")
    for name in ("small", "small.toml"):
        assert load_recipe(name).path == Path("engines/small.toml")
    with pytest.raises(RecipeError, match=r"smal: no such file; engines/ has small"):
        load_recipe("smal")


def test_every_rule_is_explained_by_the_page_that_the_wheel_carries() -> None:
    found = sections()
    assert set(RULES) <= set(found)
    assert all(len(text.splitlines()) > 1 for text in found.values())
    included = (ROOT / "pyproject.toml").read_text()
    assert '"docs/rules.md" = "trt_qat/templates/docs/rules.md"' in included


def test_every_key_and_table_is_explained() -> None:
    assert len(all_keys()) > 80
    for key in all_keys():
        told = explained(key)
        assert told, key
        assert key.split(".")[-1] in told
    assert explained("train.epoch") is None
    told = explained("train.epochs")
    assert told is not None
    assert {"allowed: > 0", "default: 10.0"} <= set(told.splitlines())


def test_a_layer_is_explained_with_the_knob_that_decides_it(line: Line) -> None:
    run = line.folder / "runs" / "mine"
    head = {"name": "head", "why": "head: its output is a network output"}
    artifact.write_json(
        run / "placement.json",
        {"quantized": [{"name": "body.0", "why": ""}], "float_layers": [head], "float_outputs": []},
    )
    first = {"name": "body.0", "why": "first layer: it reads the network's input"}
    artifact.write_json(run / "sparsity.json", {"sparse": [], "skipped": [first]})
    artifact.write_json(run / "manifest.json", {})
    code, out, _ = line("explain", "head")
    assert (code, "knob: --set quantize.heads=int8" in out) == (0, True)
    code, out, _ = line("explain", "body.0", "--run", run)
    assert "weights and inputs: INT8" in out
    assert "--set sparsity.skip_first=false" in out
    code, _, err = line("explain", "haed")
    assert (code, "nearest layers: head" in err) == (2, True)


@pytest.mark.parametrize(
    ("name", "words"),
    [("QDQ999", "no such rule; nearest: QDQ"), ("trian.epochs", "nearest: train.epochs")],
)
def test_what_cannot_be_explained_names_the_nearest(line: Line, name: str, words: str) -> None:
    code, _, err = line("explain", name)
    assert (code, words in err) == (2, True)


def test_the_schema_is_the_recipes_and_lies_beside_them() -> None:
    schema = recipe_schema()
    assert set(schema["properties"]) == set(EngineSpec.model_fields)
    assert schema["required"] == ["name", "model"]  # a calibration set may name the data
    assert json.loads((ROOT / "engines" / "recipe.schema.json").read_text()) == schema
    for recipe in (ROOT / "engines").glob("*.toml"):
        assert recipe.read_text().startswith("#:schema recipe.schema.json\n")


def test_a_dry_run_says_what_would_be_done_and_does_nothing(line: Line) -> None:
    recipe = write_engine(line.folder)
    code, out, _ = line("run", recipe, "--dry-run", "--json")
    assert code == 0
    stages = {each["name"]: each for each in json.loads(out)["stages"]}
    assert tuple(stages) == STAGES
    assert stages["train"]["does"] == "runs"
    assert stages["export"]["why"] == "reads fp32.pt, which is made anew"
    assert not (line.folder / "runs").exists()
    assert "skipped" in line("run", recipe, "--dry-run", "--until", "build")[1]


def finding(node: str, message: str = "it is float.") -> Finding:
    return Finding("QDQ112", "info", node, message, "Quantize it.")


def test_findings_that_say_the_same_are_one_line() -> None:
    alike = grouped([finding("a"), finding("b", "other."), finding("c")])
    assert [[each.node for each in group] for group in alike] == [["a", "c"], ["b"]]


def test_statistics_count_findings_by_rule(line: Line, tmp_path: Path) -> None:
    report = preflight(linear_onnx(tmp_path))
    console = Console(width=120, record=True, quiet=False)
    render_statistics(report, console)
    told = console.export_text()
    for each in report.findings:
        assert each.rule in told
    assert "findings" in line("preflight", linear_onnx(tmp_path), "--statistics")[1]


def test_names_are_cut_in_the_middle() -> None:
    name = "backbone.encoder.stages.0.blocks.1.conv2"
    assert cut(name, 80) == name
    assert cut(name, 20).endswith("blocks.1.conv2"[-12:])
    assert cut(name, 20).startswith("backbo")
    assert len(cut(name, 20)) == 20
