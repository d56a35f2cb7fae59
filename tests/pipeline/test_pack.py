"""A packed run: what it refuses, and what of a device comes home from it."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runs import edit
from trt_qat import artifact
from trt_qat.errors import DataError, InputError, RecipeError
from trt_qat.pipeline.from_pack import run_pack, unpacked
from trt_qat.pipeline.merge import merge
from trt_qat.pipeline.pack import CONTENTS, is_pack, pack, unpack
from trt_qat.pipeline.packed_data import Shards, write_shards
from trt_qat.pipeline.stage import Run
from trt_qat.recipe.load import load_recipe


@pytest.fixture(scope="module")
def packed(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pack") / "small.tqpack"
    return pack(Run(load_recipe(run_folder.parent / "small.toml"), run_folder, progress=False), out)


@pytest.fixture
def there(packed: Path, tmp_path: Path) -> Path:
    unpack(packed, tmp_path / "there")
    return tmp_path / "there"


def rewritten(packed: Path, out: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A pack whose table of contents was changed."""
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == CONTENTS:
                document = json.loads(content)
                change(document)
                content = json.dumps(document).encode()
            new.writestr(name, content)
    return out


# Packing


def test_a_run_that_is_not_that_far_is_not_packed(run_folder: Path, tmp_path: Path) -> None:
    recipe = load_recipe(run_folder.parent / "small.toml")
    shutil.copytree(run_folder, tmp_path / "run")
    run = Run(recipe, tmp_path / "run", progress=False)
    (tmp_path / "run" / "compare.json").write_text("{}")
    with pytest.raises(InputError, match=r"compare\.json: changed since the run"):
        pack(run)
    (tmp_path / "run" / "compare.json").unlink()
    with pytest.raises(InputError, match=r"has no compare\.json; run the recipe up to compare"):
        pack(run)


# Unpacking


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["files"].update({"run/model.onnx": "0" * 64}), "model.onnx is damaged; pack"),
        (lambda d: d["files"].update({"run/../../x": ""}), "names 'run/../../x', outside its fold"),
        (lambda d: d.update(format="trt-qat pack 9"), "its format is 'trt-qat pack 9', this ver"),
    ],
)
def test_a_pack_that_was_changed_is_refused(
    packed: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    path = rewritten(packed, tmp_path / "odd.tqpack", change)
    with pytest.raises(InputError, match=message):
        unpack(path, tmp_path / "out" / "deep")
    assert not (tmp_path / "x").exists()


def test_a_file_whose_table_is_damaged_is_no_pack(packed: Path, tmp_path: Path) -> None:
    data = bytearray(packed.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at : at + 4] = b"PK\x09\x09"
    (tmp_path / "odd").write_bytes(bytes(data))
    assert zipfile.is_zipfile(tmp_path / "odd")
    assert not is_pack(tmp_path / "odd")


# What may be set on the device


def test_keys_of_the_device_are_set(there: Path) -> None:
    run = unpacked(there, ["target=l4", "build.workspace_mib=64", "tolerances.accuracy_loss=0.5"])
    assert run.recipe.spec.target == "l4"
    assert run.recipe.spec.build.workspace_mib == 64
    assert run.recipe.spec.tolerances.accuracy_loss == 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=9", r"--set train\.epochs: decides what is in the pack; allowed: target"),
        ("build.workspace_mib=few", r"the recipe in the pack: build\.workspace_mib: Input should"),
        ("target=l5", r"l5"),
    ],
)
def test_other_keys_are_refused(there: Path, override: str, message: str) -> None:
    with pytest.raises((RecipeError, InputError), match=message):
        unpacked(there, [override])


def test_a_pack_of_another_version_is_refused(there: Path) -> None:
    edit(there, "manifest.json", lambda document: document.pop("data"))
    with pytest.raises(InputError, match=r"another version of trt-qat \('data'\); pack the run"):
        unpacked(there)


def test_stages_of_another_version_are_refused(packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.tqpack"
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(path, "w") as new:
        document = json.loads(old.read(CONTENTS))
        manifest = json.loads(old.read("run/manifest.json"))
        manifest["stages"][0]["colour"] = "red"
        content = artifact.canonical_json(manifest)
        for name in old.namelist():
            if name not in (CONTENTS, "run/manifest.json"):
                new.writestr(name, old.read(name))
        new.writestr("run/manifest.json", content)
        (tmp_path / "digest").write_text(content)
        document["files"]["run/manifest.json"] = artifact.sha256_file(tmp_path / "digest")
        new.writestr(CONTENTS, json.dumps(document))
    with pytest.raises(InputError, match=r"another version of trt-qat .*colour"):
        run_pack(path, out=tmp_path / "out", start="report")


def test_the_report_is_written_from_a_pack_alone(packed: Path, tmp_path: Path) -> None:
    result = run_pack(packed, out=tmp_path / "out", start="report")
    assert (tmp_path / "out" / "report.html").is_file()
    assert result.stages[-1].name == "report"


# Samples


def test_samples_come_back_with_their_ids(tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    write_shards(tmp_path, iter([(x[:4], None), (x[4:], None)]), np.arange(10, 16))
    shards = Shards(tmp_path)
    split = shards.split("test")
    assert len(split) == 6
    assert shards.steps(split.positions, 4) == 2
    assert shards.digests() is None
    np.testing.assert_array_equal(split.ids, np.arange(10, 16))
    found = np.concatenate([batch[0] for batch in shards.batches(np.array([1, 4, 5]), 2)])
    np.testing.assert_array_equal(found, x[[1, 4, 5]])


@pytest.mark.parametrize("document", [{"shards": [{}], "ids": []}, {"ids": []}, []])
def test_samples_without_their_list_are_refused(tmp_path: Path, document: Any) -> None:
    (tmp_path / "samples.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"not the samples of a run .*; pack the run again"):
        Shards(tmp_path)


# Coming home


def test_results_without_an_engine_bring_nothing(run_folder: Path, there: Path) -> None:
    home = there.with_name("home")
    shutil.copytree(run_folder, home)
    with pytest.raises(InputError, match="holds no engine, scores or times; run it with --from bu"):
        merge(home, there)


def test_results_that_changed_on_the_way_are_refused(run_folder: Path, there: Path) -> None:
    home = there.with_name("home")
    shutil.copytree(run_folder, home)
    (there / "bench.json").write_text("{}")
    edit(there, "manifest.json", lambda d: d["artifacts"].update({"bench.json": "0" * 64}))
    with pytest.raises(InputError, match=r"bench\.json: changed since the run on the device"):
        merge(home, there)


def test_a_packed_result_is_unpacked_first(run_folder: Path, packed: Path, tmp_path: Path) -> None:
    shutil.copytree(run_folder, tmp_path / "home")
    with pytest.raises(InputError, match="holds no engine"):
        merge(tmp_path / "home", packed)


def test_what_is_no_run_is_not_merged(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match=r"manifest\.json: not the manifest of a run"):
        merge(run_folder, tmp_path)
