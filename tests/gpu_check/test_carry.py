"""What is carried arrives whole, or the piece at fault is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu import carry
from trt_qat.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name, size in (("a/dense.onnx", 70_000), ("a/inputs.npz", 10), ("b/dense.onnx", 50_000)):
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.bytes(size))
    carry.write_manifest(tmp_path / "folder", {"models": {"a": {}, "b": {}}})
    return tmp_path / "folder"


def test_pieces_put_together_are_the_folder(folder: Path, tmp_path: Path) -> None:
    made = carry.split(folder, tmp_path / "pieces", size=40_000)
    assert len(made) == 4
    assert max(path.stat().st_size for path in made) <= 40_000
    found = carry.join(tmp_path / "pieces", tmp_path / "there")
    assert found == carry.read_manifest(folder)
    for path in folder.rglob("*.onnx"):
        assert (tmp_path / "there" / path.relative_to(folder)).read_bytes() == path.read_bytes()
    left = {path.name for path in (tmp_path / "pieces").iterdir()}
    assert left == {"00", "01", "02", "03", carry.SUMS}


def test_fewer_pieces_than_before_leave_none_of_the_old(folder: Path, tmp_path: Path) -> None:
    carry.split(folder, tmp_path / "pieces", size=20_000)
    assert len(carry.split(folder, tmp_path / "pieces", size=80_000)) == 2
    carry.join(tmp_path / "pieces", tmp_path / "there")


@pytest.mark.parametrize("harm", ["lost", "damaged"])
def test_a_piece_at_fault_is_named(folder: Path, tmp_path: Path, harm: str) -> None:
    carry.split(folder, tmp_path / "pieces", size=40_000)
    piece = tmp_path / "pieces" / "02"
    if harm == "lost":
        piece.unlink()
    else:
        piece.write_bytes(piece.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match=r"pieces/02: missing or damaged; carry it again"):
        carry.join(tmp_path / "pieces", tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_file_at_fault_is_named(folder: Path) -> None:
    (folder / "b" / "dense.onnx").write_bytes(b"other")
    with pytest.raises(DataError, match=r"b/dense\.onnx: its bytes are not those"):
        carry.read_manifest(folder)
    (folder / "b" / "dense.onnx").unlink()
    with pytest.raises(DataError, match=r"b/dense\.onnx: missing"):
        carry.read_manifest(folder)


def test_without_a_manifest_it_is_said_how_to_make_one(folder: Path) -> None:
    shutil.rmtree(folder)
    with pytest.raises(DataError, match=r"make the folder with benchmarks/gpu/prepare\.py"):
        carry.read_manifest(folder)
