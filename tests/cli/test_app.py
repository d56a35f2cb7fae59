"""The command line: results on stdout, words on stderr, and an exit code that scripts can trust."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.lint.violations import CASES
from tests.runners.test_ort import feed, linear_onnx
from tests.runs import command_line, own_process, wait_for_checkpoint, write_engine
from trt_qat import __version__
from trt_qat.engine.machine import why_no_engines
from trt_qat.pipeline.plan import STAGES
from trt_qat.targets import names


def test_the_version_is_printed() -> None:
    done = own_process("--version")
    assert (done.returncode, done.stdout) == (0, f"trt-qat {__version__}\n")


def test_help_names_every_command() -> None:
    done = own_process("--help")
    assert done.returncode == 0
    for command in ("doctor", "init", "run", "preflight", "compare", "report"):
        assert command in done.stdout


def test_no_command_shows_the_help() -> None:
    done = command_line()
    assert "Commands" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "No such command 'rnu'"),
        (["run"], "Missing argument 'ENGINE.toml'"),
        (["run", "x.toml", "--sett", "a=1"], "No such option: --sett"),
        (["run", "none.toml"], "error: none.toml: no such file"),
        (["report", "nowhere"], "error: nowhere/manifest.json: no such file"),
        (["preflight", "none.onnx"], "none.onnx"),
        (["compare", "--ref", "a", "--cand", "b"], "error: 'a' is no SPEC"),
    ],
)
def test_bad_usage_and_bad_input_are_exit_code_2_and_one_message(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = command_line(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_backend_that_is_absent_is_exit_code_3(tmp_path: Path) -> None:
    (tmp_path / "model.engine").write_bytes(b"plan")
    cand = f"trt-trusted:{tmp_path / 'model.engine'}"
    done = own_process("compare", "--ref", f"ort:{linear_onnx(tmp_path)}", "--cand", cand)
    if why_no_engines() is None:
        pytest.skip("TensorRT and a GPU are here")
    assert done.returncode == 3
    assert "run without it" in done.stderr


# doctor


def test_doctor_says_of_every_stage_whether_it_runs() -> None:
    document = json.loads(command_line("doctor", "--json").stdout)
    assert [stage["stage"] for stage in document["stages"]] == list(STAGES)
    for stage in document["stages"]:
        assert stage["runs"] == (stage["why"] is None)
    assert document["versions"]["trt-qat"] == __version__


def test_doctor_prints_what_to_install_with_its_brackets() -> None:
    done = command_line("doctor")
    assert done.returncode == 0
    if "TensorRT is not installed" in done.stdout:
        assert "trt-qat[tensorrt]" in done.stdout


# run and report


def test_a_run_that_is_finished_prints_its_metrics_again(run_folder: Path) -> None:
    engine = run_folder.parent / "small.toml"
    done = command_line("run", engine, "--out", run_folder, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["passed"]
    assert document["metrics"] == json.loads((run_folder / "metrics.json").read_text())
    assert "train: unchanged" in done.stderr


def test_a_run_prints_tables_for_people(run_folder: Path) -> None:
    done = command_line("run", run_folder.parent / "small.toml", "--out", run_folder)
    assert done.returncode == 0
    assert "2:4 + INT8 QAT" in done.stdout
    assert "95 % interval" in done.stdout


def test_a_check_that_fails_is_exit_code_1_with_the_result_on_stdout(
    run_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    worse = ("finetune.epochs=0.1", "finetune.lr=1e-9", "tolerances.accuracy_loss=0")
    settings = [text for setting in worse for text in ("--set", setting)]
    where = (write_engine(tmp_path), "--out", tmp_path / "run")
    done = command_line("run", *where, "--json", *settings)
    assert done.returncode == 1
    assert not json.loads(done.stdout)["passed"]
    assert "error: QAT reaches" in done.stderr
    assert "do not ship" in (tmp_path / "run" / "report.html").read_text()


def test_report_writes_the_page_again_and_prints_its_path(run_folder: Path) -> None:
    done = command_line("report", run_folder)
    assert done.stdout == f"{run_folder / 'report.html'}\n"


def test_an_interrupt_is_exit_code_130_and_says_how_to_go_on(tmp_path: Path) -> None:
    engine = write_engine(tmp_path)
    command = [sys.executable, "-m", "trt_qat", "run", str(engine), "--out", str(tmp_path / "run")]
    child = subprocess.Popen(
        [*command, "--set", "train.epochs=500"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores interrupts; the child must not inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    try:
        wait_for_checkpoint(child, tmp_path / "run")
        child.send_signal(signal.SIGINT)
        _, words = child.communicate(timeout=60)
    finally:
        child.kill()  # where it did not end, it would train on behind the other tests
    assert child.returncode == 130
    assert "interrupted: finished stages are kept; the same command with --resume goes on" in words
    assert "Traceback" not in words


# preflight


def test_preflight_of_a_run_is_its_json(run_folder: Path) -> None:
    done = command_line("preflight", run_folder / "model.onnx", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert {"model", "target", "summary", "layers", "findings"} <= set(document)
    assert document["summary"]["sparse_found"] >= 4


def test_preflight_writes_sarif_and_junit_for_ci(run_folder: Path, tmp_path: Path) -> None:
    files = {"--sarif": tmp_path / "p.sarif", "--junit": tmp_path / "p.xml"}
    arguments = [text for pair in files.items() for text in pair]
    done = command_line("preflight", run_folder / "model.onnx", "--target", "a100", *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(files["--sarif"].read_text())["version"] == "2.1.0"
    assert files["--junit"].read_text().lstrip().startswith("<")


def _mendable(folder: Path) -> Path:
    """A concat of unequal scales, and a float Softmax behind an INT8 chain."""
    path = folder / "model.onnx"
    case = next(case for case in CASES if case.rule == "QDQ102")
    path.write_bytes(case.bad().SerializeToString())
    return path


def test_fix_says_what_changed_and_what_remains(tmp_path: Path) -> None:
    path, out = _mendable(tmp_path), tmp_path / "mended.onnx"
    before = path.read_bytes()
    done = command_line("preflight", path, "--fix", out, "--strict")
    assert done.returncode == 0, done.stderr
    assert "QDQ102 mended join: Gave 3 pairs one scale." in done.stdout
    assert "1 change; largest difference of an output on onnxruntime 0." in done.stdout
    assert path.read_bytes() == before
    assert own_process("preflight", path, "--strict").returncode == 1
    assert command_line("preflight", out, "--strict").returncode == 0


def test_fix_and_fp16_as_json(tmp_path: Path) -> None:
    path, out = _mendable(tmp_path), tmp_path / "mended.onnx"
    arguments = ("--fix", out, "--fp16", "--fp32", "last", "--json")
    document = json.loads(command_line("preflight", path, *arguments).stdout)
    assert document["model"] == document["fix"]["out"] == str(out)
    assert [change["rule"] for change in document["fix"]["changes"]][:2] == ["QDQ102", "QDQ201"]
    assert "last" in [change["node"] for change in document["fix"]["changes"]]
    assert document["fix"]["largest_difference"] > 0
    assert document["fix"]["rounding_difference"] >= 0


def test_fix_compares_on_given_data(tmp_path: Path) -> None:
    path = _mendable(tmp_path)
    np.savez(tmp_path / "data.npz", x=np.zeros((2, 16, 8, 8), np.float32))
    data = ("--data", tmp_path / "data.npz", "--json")
    done = command_line("preflight", path, "--fix", tmp_path / "mended.onnx", *data)
    assert json.loads(done.stdout)["fix"]["largest_output"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fix", "model.onnx"], "would overwrite the one it is made from"),
        (["--fix", "model.onnx/out.onnx"], "error: model.onnx"),
        (["--fix", "out.onnx", "--fp16", "--fp32", "lsat"], "'lsat'; nearest: last"),
        (["--fix", "out.onnx", "--fp32", "last"], "give --fp16 too"),
        (["--fix", "out.onnx", "--target", "a1000"], "unknown target 'a1000'"),
        (["--fix", "out.onnx", "--data", "none.npz"], "none.npz: cannot be read"),
        (["--fp16"], "belong to --fix OUT.onnx"),
    ],
)
def test_a_fix_that_cannot_be_made_leaves_no_file(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    path = _mendable(tmp_path)
    before = path.read_bytes()
    done = command_line("preflight", path.name, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_the_help_of_target_names_every_device() -> None:
    text = "".join(command_line("preflight", "--help").stdout.split())
    assert ",".join(names()) in text


# compare


def test_compare_prints_the_json_of_the_contract(tmp_path: Path) -> None:
    path = linear_onnx(tmp_path)
    np.savez(tmp_path / "feeds.npz", **feed(300), labels=np.zeros(300, np.int64))
    sides = ("--ref", f"ort:{path}", "--cand", f"ort-int8:{path}")
    done = command_line("compare", *sides, "--data", tmp_path / "feeds.npz", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["samples"] == 300
    assert set(document["accuracy"]) == {"ref", "cand"}


def test_compare_without_data_uses_the_same_random_inputs_every_time(tmp_path: Path) -> None:
    path = linear_onnx(tmp_path)
    sides = ("--ref", f"ort:{path}", "--cand", f"ort-int8:{path}", "--json")
    assert command_line("compare", *sides).stdout == own_process("compare", *sides).stdout


def test_two_that_differ_are_exit_code_1(tmp_path: Path) -> None:
    sides = (
        "--ref",
        f"ort:{linear_onnx(tmp_path)}",
        "--cand",
        "torch:tests.runners.test_ort:Otherwise",
    )
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).random((8, 4), dtype=np.float32))
    data = ("--data", tmp_path / "x.npz")
    done = command_line("compare", *sides, *data, cwd=Path(__file__).parents[2])
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert "differs from ort:" in done.stderr


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.zeros((2, 4), np.float32)}, r"fed ['y']; its inputs are ['x']"),
        ({"x": np.zeros((2, 5), np.float32)}, "got float32 (2, 5); allowed: float32 (batch, 4)"),
        (
            {"x": np.zeros((2, 4), np.float32), "z": np.zeros(3)},
            "arrays of [2, 3] samples; all must have the same number",
        ),
        ({}, "holds no array"),
    ],
)
def test_feeds_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    path = linear_onnx(tmp_path)
    np.savez(tmp_path / "feeds.npz", allow_pickle=False, **arrays)
    sides = ("--ref", f"ort:{path}", "--cand", f"ort:{path}")
    done = command_line("compare", *sides, "--data", tmp_path / "feeds.npz")
    assert done.returncode == 2
    assert message in done.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "trt_qat", "doctor", "--json"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("preflight", "MODEL", "--sarif", "NEW"),
        ("preflight", "MODEL", "--junit", "NEW"),
        ("preflight", "MODEL", "--fix", "NEW"),
        ("compare", "--ref", "ort:MODEL", "--cand", "ort:MODEL", "--save-outputs", "NEW"),
        ("bench", "ort:MODEL", "--seconds", "0.1", "--sessions", "1", "--out", "NEW"),
        ("init", "NEW"),
        ("bundle", "RUN", "--out", "NEW"),
        ("check", "RUN", "--update", "--against", "NEW"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_the_folders_of_an_output_are_made(
    arguments: tuple[str, ...], tmp_path: Path, run_folder: Path
) -> None:
    new = tmp_path / "made" / "too" / "out.json"
    model = linear_onnx(tmp_path)
    places = {"MODEL": str(model), "NEW": str(new), "RUN": str(run_folder)}
    given = list(arguments)
    for word, place in places.items():
        given = [each.replace(word, place) for each in given]
    done = command_line(*given)
    assert done.returncode == 0, done.stderr
    assert new.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "ENGINE", "--out", "FILE"),
        ("run", "ENGINE", "--out", "FILE/x"),
        ("init", "FILE/x"),
        ("preflight", "MODEL", "--sarif", "FILE/a.sarif"),
        ("preflight", "MODEL", "--junit", "FOLDER"),
        ("compare", "--ref", "ort:MODEL", "--cand", "ort:MODEL", "--save-outputs", "FOLDER"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_an_output_that_cannot_be_written_is_one_message(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    places = {
        "ENGINE": write_engine(tmp_path),
        "MODEL": linear_onnx(tmp_path),
        "FILE": tmp_path / "file",
        "FOLDER": tmp_path / "folder",
    }
    given = list(arguments)
    for word, place in places.items():
        given = [each.replace(word, str(place)) for each in given]
    done = command_line(*given)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr.splitlines()[-1]
    assert str(tmp_path) in done.stderr
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["inner"]
