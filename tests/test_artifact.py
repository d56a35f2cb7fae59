"""An artefact is the old one or the new one, never half of one, and says where it comes from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trt_qat import artifact

WRITER = """
import sys
from pathlib import Path
from trt_qat.artifact import write_text
path, size = Path(sys.argv[1]), 200_000
turn = 0
while True:
    write_text(path, f"{turn % 10}" * size)
    turn += 1
"""


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "artifact.txt"
    for attempt in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
        try:
            deadline = time.monotonic() + 30
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(0.01 + 0.007 * attempt)
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        text = path.read_text()
        assert len(text) == 200_000
        assert len(set(text)) == 1


def test_what_a_killed_writer_left_behind_is_cleaned_up(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    orphan = tmp_path / f".model.{child.pid}.tmp.onnx"
    other = tmp_path / f".model.{os.getppid()}.tmp.onnx"
    for path in (orphan, other):
        path.write_text("half")
    artifact.write_text(tmp_path / "model.onnx", "whole")
    assert not orphan.exists()
    assert other.exists(), "its writer is alive"


def fail_halfway(path: Path) -> None:
    with artifact.atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        message = "disk full"
        raise OSError(message)


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = artifact.write_text(tmp_path / "a.txt", "old")
    with pytest.raises(OSError, match="disk full"):
        fail_halfway(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_keeps_the_suffix_and_the_folder(tmp_path: Path) -> None:
    with artifact.atomic_path(tmp_path / "deep" / "model.onnx") as temporary:
        assert temporary.suffix == ".onnx"
        assert temporary.parent == tmp_path / "deep"
        temporary.write_bytes(b"graph")
    assert (tmp_path / "deep" / "model.onnx").read_bytes() == b"graph"


def test_nan_is_not_written_as_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        artifact.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_a_fingerprint_depends_on_values_and_not_on_their_order() -> None:
    one = artifact.fingerprint(a=1, b={"x": 1, "y": [1, 2]})
    assert one == artifact.fingerprint(b={"y": [1, 2], "x": 1}, a=1)
    assert one != artifact.fingerprint(a=1, b={"x": 1, "y": [2, 1]})


def seal(path: Path, fingerprint: str = "f") -> None:
    artifact.write_sidecar(
        path, fingerprint=fingerprint, parents={"p": "0"}, spec={}, metrics={"m": 1}, seconds=1.0
    )


def test_a_sidecar_says_what_the_artefact_is_and_came_from(tmp_path: Path) -> None:
    path = artifact.write_text(tmp_path / "model.onnx", "graph")
    seal(path)
    document = json.loads((tmp_path / "model.onnx.json").read_text())
    assert document["sha256"] == artifact.sha256_file(path)
    assert document["parents"] == {"p": "0"}
    assert document["versions"]["python"]
    assert artifact.read_sidecar(path) == artifact.Sidecar(**document)


def test_an_artefact_is_fresh_until_anything_changes(tmp_path: Path) -> None:
    path = artifact.write_text(tmp_path / "a.txt", "text")
    seal(path)
    found = artifact.fresh(path, "f")
    assert found is not None
    assert found.metrics == {"m": 1}
    assert artifact.fresh(path, "g") is None, "other inputs"
    path.write_text("edited")
    assert artifact.fresh(path, "f") is None, "other content"
    path.unlink()
    assert artifact.fresh(path, "f") is None, "gone"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sha256": "x"}', '{"other": 1}'])
def test_a_damaged_sidecar_counts_as_none(tmp_path: Path, text: str) -> None:
    path = artifact.write_text(tmp_path / "a.txt", "text")
    artifact.sidecar_path(path).write_text(text)
    assert artifact.fresh(path, "f") is None


def test_a_digest_of_sources_notices_a_change_and_a_renaming(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1")
    first = artifact.source_digest(tmp_path.glob("*.py"))
    (tmp_path / "a.py").write_text("x = 2")
    second = artifact.source_digest(tmp_path.glob("*.py"))
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, second, artifact.source_digest(tmp_path.glob("*.py"))}) == 3


def test_platform_facts_name_no_host_and_no_user() -> None:
    facts = " ".join(str(value) for value in artifact.platform_facts().values())
    assert os.uname().nodename not in facts
