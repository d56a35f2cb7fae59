"""A file that cannot be read is named with the reason: absent, a folder, or something else."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.runners.test_ort import linear_onnx
from tests.runs import command_line, write_engine
from trt_qat.errors import DataError, InputError
from trt_qat.files import A_FOLDER, read_json, read_npz

WANTED = "wanted is this and that"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"1 2 3\n", "cannot be read as an .npz, it is something else"),
        ("x.npz", b"", "cannot be read as an .npz, it is something else"),
        ("x.npz", b"PK\x03\x04 not really", "cannot be read as an .npz: File is not a zip file"),
        ("none/x.npz", None, "cannot be read as an .npz: No such file or directory"),
        (".", None, f"cannot be read as an .npz: {A_FOLDER}"),
    ],
)
def test_what_is_no_npz_is_refused_with_what_is_wanted(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_npz(path, WANTED)
    assert str(caught.value) == f"{path}: {message}; {WANTED}"


def test_a_member_whose_header_breaks_off_is_told(tmp_path: Path) -> None:
    """numpy reads a header as Python, whose parser has errors of its own."""
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00\x0a\x00{'descr':(\n")
    with pytest.raises(DataError, match=r"cannot be read as an .npz: .*; wanted is"):
        read_npz(tmp_path / "x.npz", WANTED)


def test_an_array_alone_is_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"x.npy: cannot be read as an .npz, it is something else"):
        read_npz(tmp_path / "x.npy", WANTED)


def test_a_member_that_is_no_array_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", b"nothing")
    with pytest.raises(DataError, match=r"x is no array"):
        read_npz(tmp_path / "x.npz", WANTED)


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "FOLDER"),
        ("sensitivity", "FOLDER"),
        ("preflight", "FOLDER"),
        ("build", "FOLDER", "-o", "x.engine"),
        ("build", "MODEL", "-o", "x.engine", "--recipe", "FOLDER"),
        ("inspect", "FOLDER"),
        ("compare", "--ref", "ort:FOLDER", "--cand", "ort:MODEL"),
        ("bench", "ort:FOLDER"),
        ("bench", "ort:MODEL", "--layer-file", "FOLDER"),
        ("bench", "--from", "FOLDER"),
        ("check", "RUN", "--against", "FOLDER"),
        ("bundle", "RUN", "--out", "new", "--labels", "FOLDER"),
        ("run", "ENGINE", "--out", "new", "--set", "model.weights=FOLDER"),
    ],
    ids=" ".join,
)
def test_a_folder_is_told_from_a_file_that_is_absent(
    arguments: tuple[str, ...], tmp_path: Path, run_folder: Path
) -> None:
    (tmp_path / "folder").mkdir()
    engine = write_engine(tmp_path)
    places = {"FOLDER": tmp_path / "folder", "MODEL": linear_onnx(tmp_path), "RUN": run_folder}
    given = list(arguments)
    for word, place in (places | {"ENGINE": engine}).items():
        given = [each.replace(word, str(place)) for each in given]
    done = command_line(*given, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert A_FOLDER in done.stderr
    assert str(tmp_path / "folder") in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("preflight", "MODEL", "--fix", "new.onnx", "--data", "FOLDER"),
        ("compare", "--ref", "ort:MODEL", "--cand", "ort:MODEL", "--data", "FOLDER"),
        ("bench", "ort:MODEL", "--data", "FOLDER"),
    ],
    ids=" ".join,
)
def test_a_folder_of_data_is_that_of_a_run(arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    places = {"FOLDER": str(tmp_path / "folder"), "MODEL": str(linear_onnx(tmp_path))}
    given = list(arguments)
    for word, place in places.items():
        given = [each.replace(word, place) for each in given]
    done = command_line(*given, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "manifest.json: no such file; give a run folder, a recipe or an .npz" in done.stderr


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    model = linear_onnx(tmp_path)
    done = command_line("check", model, "--against", "b.json")
    assert f"error: {model}: is a file; give the folder of a run" in done.stderr


@pytest.mark.parametrize("command", ["compare", "bench"])
def test_data_of_another_kind_is_refused_with_the_kind_that_is_wanted(
    tmp_path: Path, command: str
) -> None:
    model = linear_onnx(tmp_path)
    (tmp_path / "data.txt").write_text("1 2 3\n")
    spec = f"ort:{model}"
    sides = {"compare": ("--ref", spec, "--cand", spec), "bench": (spec,)}
    done = command_line(command, *sides[command], "--data", tmp_path / "data.txt")
    assert done.returncode == 2
    assert "pickle" not in done.stderr
    assert "data.txt: cannot be read as an .npz, it is something else; wanted is one array per" in (
        done.stderr
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "RUN"],
        ["check", "RUN", "--against", "b.json", "--update"],
        ["bundle", "RUN"],
        ["run", "small.toml", "--out", "RUN"],
    ],
)
def test_a_run_folder_of_another_version_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    write_engine(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    text = '{"format": "trt-qat run 9", "artifacts": {}}'
    (folder / "manifest.json").write_text(text)
    done = command_line(*(str(folder) if a == "RUN" else a for a in arguments), cwd=tmp_path)
    assert done.returncode == 2
    assert "its format is 'trt-qat run 9', and this version" in done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / "manifest.json").read_text() == text


def test_json_that_is_nested_beyond_reason_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 200_000)
    with pytest.raises(InputError, match=r"deep.json: cannot be read as JSON \(maximum recursion"):
        read_json(path, WANTED)
