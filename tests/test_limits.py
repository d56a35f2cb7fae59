"""A file that unpacks to more than there is room for is one sentence, and nothing is unpacked."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from trt_qat import limits
from trt_qat.data import calibration_cache
from trt_qat.data.idx import read_idx
from trt_qat.engine.evidence.reading import text_of
from trt_qat.errors import DataError, InputError, RecipeError
from trt_qat.files import read_json, read_npz
from trt_qat.pipeline.pack import CONTENTS, FORMAT, unpack
from trt_qat.recipe.load import read_toml


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be a megabyte of memory."""
    monkeypatch.setattr(limits, "free_memory", lambda: 1_000_000)
    monkeypatch.setattr("trt_qat.data.idx.free_memory", lambda: 1_000_000)


@pytest.mark.usefixtures("little")
def test_an_archive_of_arrays_that_unpacks_to_more_than_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, a=np.zeros(10_000_000, np.uint8))
    assert path.stat().st_size < 20_000
    with pytest.raises(
        DataError, match=r"bomb.npz: .*it holds 10.0 MB unpacked, and 1.0 MB of mem"
    ):
        read_npz(path, "arrays are wanted")


@pytest.mark.usefixtures("little")
def test_a_packed_data_set_that_unpacks_to_more_than_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(bytes(10_000_000)))
    with pytest.raises(DataError, match=r"holds more than 1\.0 MB"):
        read_idx(path, 3)


def test_a_header_that_claims_more_than_any_memory_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "claims.npz"
    header = b"\x93NUMPY\x01\x00"
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", header + len(text).to_bytes(2, "little") + text)
    with pytest.raises(DataError, match=r"cannot be read as an \.npz"):
        read_npz(path, "arrays are wanted")


def test_a_pack_that_unpacks_to_more_than_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.tqpack"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(CONTENTS, json.dumps({"format": FORMAT, "files": {}}))
        archive.writestr("run/a", bytes(3_000_000))
    usage = type("Usage", (), {"free": 2_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(InputError, match=r"3\.0 MB unpacked, and 2\.0 MB of the disk"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_texts_are_read_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.read_whole, "__defaults__", (1000,))
    monkeypatch.setattr(limits.read_stream, "__defaults__", (1000,))
    path = tmp_path / "long.json"
    path.write_text('"' + "a" * 2000 + '"')
    said = "it holds more than 0.0 MB, and no file of its kind needs as much"
    with pytest.raises(InputError, match=f"long.json: .*{said}"):
        read_json(path, "mend it")
    with pytest.raises(InputError, match=said):
        text_of(path)
    with pytest.raises(RecipeError, match=said):
        read_toml(path)
    with pytest.raises(DataError, match=said):
        calibration_cache.load(path)


def test_a_recipe_that_is_nested_too_deep_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text("a = " + "[" * 100_000)
    with pytest.raises(RecipeError, match=r"deep\.toml: not TOML"):
        read_toml(path)
