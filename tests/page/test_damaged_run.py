"""What reads a run folder names the file in it that is not the one that the run left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from trt_qat.artifact import changed_file
from trt_qat.engine.handover.bundle import bundle
from trt_qat.errors import InputError
from trt_qat.gate.verdict import of_folder
from trt_qat.page import write


@pytest.fixture
def copy(tmp_path: Path, run_folder: Path) -> Path:
    return Path(shutil.copytree(run_folder, tmp_path / "run"))


@pytest.mark.parametrize("read", [of_folder, write, bundle], ids=lambda each: each.__name__)
def test_a_changed_file_of_a_run_is_named(copy: Path, read: Callable[[Path], object]) -> None:
    assert changed_file(copy) is None
    layers = json.loads((copy / "preflight.json").read_text())
    (copy / "preflight.json").write_text(json.dumps({**layers, "layers": 3, "summary": [1]}))
    assert changed_file(copy) == "preflight.json"
    if read is not bundle:  # which reads no preflight
        with pytest.raises(InputError, match=r"preflight.json: damaged, or changed since the run"):
            read(copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "failures": 1, "recipe": []}))
    with pytest.raises(InputError, match=r"manifest.json: .*run the recipe again"):
        read(copy)


def test_a_fault_of_ours_is_not_put_on_the_files(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none: dict[str, str] = {}
    monkeypatch.setattr("trt_qat.page.page", lambda *_: none["op"])
    with pytest.raises(KeyError, match="op"):
        write(copy)
