"""The wheel and the sdist, installed where nothing is but what they declare."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.documents import ROOT
from tests.runners.test_ort import linear_onnx

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


def ran(*command: str | Path, cwd: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed; another Python than ours is told nothing of our paths."""
    ours = command[0] == sys.executable
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env={key: value for key, value in os.environ.items() if ours or key != "PYTHONPATH"},
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel and the sdist, built from what git would commit, by the backend installed here."""
    pytest.importorskip("hatchling", reason="the build backend is not installed")
    source = tmp_path_factory.mktemp("source")
    listed = ran("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).stdout.split("\n")
    for name in filter(None, listed):
        if name.split("/")[0] not in ("tests", "benchmarks") and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    ran(sys.executable, "-m", "hatchling", "build", "-d", str(source / "dist"), cwd=source)
    return source / "dist"


def declared(name: str, seen: dict[str, metadata.Distribution]) -> None:
    """Add a distribution that is installed here, and all that it asks for without extras."""
    found = metadata.distribution(name)
    key = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
    if key in seen:
        return
    seen[key] = found
    for text in found.requires or ():
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            declared(needed.name, seen)


def empty(folder: Path) -> Path:
    """Make an environment with the declared base dependencies alone, linked from this one."""
    ran(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    packages = next((folder / "lib").glob("python*")) / "site-packages"
    seen: dict[str, metadata.Distribution] = {}
    for text in PROJECT["dependencies"]:
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate():
            declared(needed.name, seen)
    assert "torch" not in seen
    for found in seen.values():
        for top in {path.parts[0] for path in found.files or () if path.parts[0] != ".."}:
            there = packages / top
            if not there.exists() and top != "__pycache__":
                there.symlink_to(Path(str(found.locate_file(top))))
    return packages


def unpacked(wheel: Path, packages: Path) -> None:
    """Install a wheel: it is of Python alone, so unpacking is all that pip would do."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)


def test_the_wheel_runs_with_its_declared_dependencies_alone(built: Path, tmp_path: Path) -> None:
    packages = empty(tmp_path / "env")
    unpacked(next(built.glob("*.whl")), packages)
    python = tmp_path / "env" / "bin" / "python"
    model = linear_onnx(tmp_path)

    def told(*words: str | Path) -> str:
        return ran(python, "-m", "trt_qat", *words, cwd=tmp_path).stdout

    where = ran(python, "-c", "import trt_qat; print(trt_qat.__file__)", cwd=tmp_path).stdout
    assert str(packages) in where
    assert "pip install 'trt-qat[train]'" in told("doctor")
    assert "mine/model.py" in told("init", "mine", "--task", "segmentation")
    assert "1 layer" in told("preflight", model)
    assert told("explain", "QDQ112").startswith("QDQ112:")
    assert "0 errors" in told("preflight", model, "--fix", tmp_path / "mended.onnx")


def test_the_sdist_holds_all_that_a_wheel_is_made_of(built: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(next(built.glob("*.tar.gz")), tmp_path)
    source = next(tmp_path.glob("trt_qat-*"))
    ran(sys.executable, "-m", "hatchling", "build", "-t", "wheel", cwd=source)
    again, first = next((source / "dist").glob("*.whl")), next(built.glob("*.whl"))
    assert zipfile.ZipFile(again).namelist() == zipfile.ZipFile(first).namelist()


def test_nothing_of_tests_or_of_nvidia_is_in_the_wheel(built: Path) -> None:
    names = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"trt_qat"}
    assert not [name for name in names if name.endswith((".so", ".dll", ".engine"))]


def test_extras_are_those_that_are_spoken_of() -> None:
    extras = set(PROJECT["optional-dependencies"])
    for path in (ROOT / "trt_qat").rglob("*.py"):
        for named in re.findall(r"trt-qat\[([\w,]+)\]", path.read_text(encoding="utf-8")):
            assert set(named.split(",")) <= extras, path
    for text in (line for lines in PROJECT["optional-dependencies"].values() for line in lines):
        Requirement(text)


def test_every_python_that_is_promised_reads_the_code() -> None:
    assert [f"Programming Language :: Python :: {version}" for version in VERSIONS] == [
        each for each in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", each)
    ]
    oldest = (3, int(VERSIONS[0].partition(".")[2]))
    for path in (ROOT / "trt_qat").rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=oldest)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
@pytest.mark.parametrize("version", VERSIONS)
def test_it_installs_from_the_index_into_every_python_that_is_here(
    built: Path, tmp_path: Path, version: str, kind: str
) -> None:
    known = [Path(f"/usr/bin/python{version}"), Path(f"/usr/local/bin/python{version}")]
    known += Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
        known.insert(0, Path(sys.executable))
    python = next((path for path in known if path.is_file()), None)
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    ran(python, "-m", "venv", tmp_path / "env", cwd=tmp_path)
    bin_ = tmp_path / "env" / "bin"
    pip: list[str | Path] = [
        bin_ / "python",
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
    ]
    reach = subprocess.run([*pip, "hatchling"], capture_output=True, check=False, timeout=300)
    if reach.returncode:
        pytest.skip("no package index can be reached")
    ran(*pip, "-c", ROOT / "constraints.txt", next(built.glob(kind)), cwd=tmp_path, timeout=900)
    assert "trt-qat[train]" in ran(bin_ / "trt-qat", "doctor", cwd=tmp_path).stdout
    ran(bin_ / "trt-qat", "init", "mine", cwd=tmp_path)
    ran(bin_ / "trt-qat", "preflight", linear_onnx(tmp_path), cwd=tmp_path)
