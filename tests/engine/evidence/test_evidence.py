"""``trt-qat inspect``: the census, the difference of two engines, and what cannot be inspected."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import trt_qat as tq
from tests.engine.evidence.test_layer_info import DATA, SAMPLES
from tests.runs import command_line
from trt_qat.artifact import sha256_file, write_json
from trt_qat.engine.evidence.differences import differences
from trt_qat.engine.evidence.evidence import census
from trt_qat.engine.evidence.layer_info import Layer, LayerInfo
from trt_qat.engine.evidence.reading import read
from trt_qat.engine.evidence.trust import inspect_file
from trt_qat.errors import InputError


def test_the_census_counts_what_computes_and_what_only_moves() -> None:
    census = read(DATA / "8-detailed.json")["census"]
    assert census["layers"] == 4
    assert census["purpose"] == {"qdq": 1, "compute": 3}
    assert census["precision"] == {"int8": 3}
    assert census["int8_in_int8_out"] == 3
    assert census["int8_in_float_out"] == 0


def test_types_that_dynamic_shapes_hide_are_no_count_of_zero() -> None:
    """TensorRT 8.6 tells kernels and no types there: nobody knows what is INT8 in and out."""
    census = read(DATA / "8.6-dynamic.json")["census"]
    assert census["precision"] == {"int8": 2}
    assert census["sparse"] == {"sparse": 1, "dense": 1}
    assert census["int8_not_told"] == 2
    assert census["int8_in_int8_out"] is None
    assert census["int8_in_float_out"] is None
    told = read(DATA / "8.6-one-shape.json")["census"]
    assert (told["int8_in_int8_out"], told["int8_in_float_out"]) == (5, 0)
    assert told["int8_not_told"] == 0


@pytest.mark.parametrize(
    ("types", "both", "floats", "hidden"),
    [
        ((("int8", None), ("int8",)), None, 0, 1),
        ((("fp16", None), ("int8",)), 0, 0, 0),
        ((("int8",), (None,)), None, None, 1),
        ((("int8",), ("fp16", None)), 0, 1, 0),
        (((), ()), None, None, 1),
    ],
)
def test_a_count_is_of_the_layers_that_tell_what_decides(
    types: tuple[tuple[str | None, ...], tuple[str | None, ...]],
    both: int | None,
    floats: int | None,
    hidden: int,
) -> None:
    layer = Layer("a", precision="int8", precision_in=types[0], precision_out=types[1])
    found = census(LayerInfo("combined", detailed=True, layers=[layer]))
    assert found["int8_in_int8_out"] == both
    assert found["int8_in_float_out"] == floats
    assert found["int8_not_told"] == hidden
    other = Layer("b", precision="int8", precision_in=("int8",), precision_out=("int8",))
    found = census(LayerInfo("combined", detailed=True, layers=[layer, other]))
    assert (found["int8_in_int8_out"], found["int8_not_told"]) == (1, hidden)


def test_inspect_says_what_dynamic_shapes_hide() -> None:
    done = command_line("inspect", DATA / "8.6-dynamic.json", "--layers")
    assert done.returncode == 0
    words = " ".join(done.stdout.split())
    assert "INT8 in, INT8 out" not in words
    assert "INT8, in and out not told 2" in words
    assert "2 INT8 layers without types of inputs and outputs: TensorRT 8 hides" in words


def test_the_census_counts_sparse_kernels() -> None:
    census = read(DATA / "10-sparse.json")["census"]
    assert census["sparse"] == {"sparse": 1}
    assert census["sparse_weights"] == 1


def test_a_census_is_of_one_profile() -> None:
    assert read(DATA / "11.json")["census"]["layers"] == 6


def test_a_build_log_alone_is_inspected() -> None:
    found = read(DATA / "10-build.log")
    assert found["sparsity"]["found"] == 2
    first = found["layers"][0]
    assert (first["type"], first["precision_in"], first["precision_out"]) == (
        "CaskConvolution", ["fp32"], ["fp32"],
    )  # fmt: skip


def test_a_build_log_claims_no_counts_that_it_does_not_tell(tmp_path: Path) -> None:
    """Its lines state types and number the kernels, without their names."""
    listed = read(DATA / "10-build.log")["census"]
    assert (listed["layers"], listed["purpose"]) == (4, {"compute": 4})
    assert (listed["sparse"], listed["sparse_weights"]) == (None, None)
    lines = (DATA / "10-build.log").read_text().splitlines()
    (tmp_path / "x.log").write_text("\n".join(line for line in lines if "(Sparsity)" in line))
    bare = read(tmp_path / "x.log")["census"]
    assert bare.pop("profile") == 0
    assert set(bare.values()) == {None}


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_our_own_file_reads_back_as_it_was(path: Path, tmp_path: Path) -> None:
    found = read(path)
    saved = write_json(tmp_path / "layers.json", found)
    assert read(saved) == json.loads(json.dumps(found))


def test_two_equal_engines_do_not_differ() -> None:
    found = read(DATA / "11.json")
    told = differences(found, found)
    assert not told["changed"] + told["only_a"] + told["only_b"]


def test_a_layer_that_changed_its_kernel_is_named(tmp_path: Path) -> None:
    document = json.loads((DATA / "10-sparse.json").read_text())
    document["Layers"][1]["TacticName"] = "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32"
    del document["Layers"][0]
    other = write_json(tmp_path / "dense.json", document)
    told = differences(read(DATA / "10-sparse.json"), read(other))
    (changed,) = told["changed"]
    assert changed["sparse"] == ["sparse", "dense"]
    assert len(told["only_a"]) == 1


# Engines


def engine_with_layers(folder: Path, name: str) -> Path:
    engine = folder / "model.engine"
    engine.write_bytes(b"plan")
    found = read(DATA / "11.json")
    found["source"] = {"file": engine.name, "sha256": sha256_file(engine)}
    write_json(folder / name, found)
    return engine


@pytest.mark.parametrize("name", ["model.layers.json", "layers.json"])
def test_an_engine_is_described_by_what_its_build_left(tmp_path: Path, name: str) -> None:
    assert inspect_file(engine_with_layers(tmp_path, name))["census"]["layers"] == 6


def test_the_description_of_another_engine_is_not_taken(tmp_path: Path) -> None:
    engine = engine_with_layers(tmp_path, "model.layers.json")
    engine.write_bytes(b"another plan")
    with pytest.raises(InputError, match="no TensorRT plan"):
        inspect_file(engine)


def test_it_is_public_and_takes_a_path_as_text() -> None:
    found = tq.inspect(str(DATA / "10-sparse.json"))
    assert found["census"]["sparse"] == {"sparse": 1}
    assert found == tq.inspect(DATA / "10-sparse.json")


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_what_a_build_returns_is_what_reading_it_again_returns(path: Path) -> None:
    found = read(path)
    assert json.loads(json.dumps(found)) == found


# The command


def test_the_command_prints_a_census() -> None:
    done = command_line("inspect", DATA / "10-sparse.json", "--layers")
    assert done.returncode == 0, done.stderr
    assert "1 sparse" in done.stdout
    assert "avdt_sparse_int8int8" in done.stdout
    assert "the build log is not at hand" in done.stdout


def test_the_command_prints_json() -> None:
    document = json.loads(command_line("inspect", DATA / "10-build.log", "--json").stdout)
    assert document["schema"] == "trt-qat layers 1"
    assert document["sparsity"]["chose"] == 0


def test_of_a_build_log_the_command_prints_what_it_tells(tmp_path: Path) -> None:
    log = DATA / "10-build.log"
    listed = command_line("inspect", log, "--layers").stdout
    assert "by purpose" in listed
    assert "CaskPooling" in listed
    (tmp_path / "x.log").write_text(
        "\n".join(line for line in log.read_text().splitlines() if "(Sparsity)" in line)
    )
    bare = command_line("inspect", tmp_path / "x.log", "--layers").stdout
    for text in (listed, bare):
        assert "found 2 layers with 2:4 weights, chose a sparse kernel for 0" in text
        assert "log: it" in text
        for word in ("kernels  ", "with 2:4 weights  ", "verbosity = "):
            assert word not in text
    assert "all, profile 0" not in bare


def test_the_command_sets_two_engines_against_each_other() -> None:
    done = command_line("inspect", DATA / "8-detailed.json", "--diff", DATA / "10-sparse.json")
    assert done.returncode == 0, done.stderr
    assert "only in 10-sparse.json" in done.stdout


def test_names_alone_say_how_to_get_more() -> None:
    assert "build.verbosity = 'detailed'" in command_line("inspect", DATA / "8-names.json").stdout


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (None, "none.json", "no such file"),
        (b"\xff\xfe\x00", "x.json", "not text"),
        (b"{}", "x.json", "JSON without a list 'Layers'"),
        (b'{"schema": "trt-qat layers 1"}', "x.json", "not a whole layers.json"),
    ],
)
def test_what_cannot_be_inspected_is_one_error(
    tmp_path: Path, content: bytes | None, name: str, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        inspect_file(tmp_path / name)


def test_an_error_has_no_traceback(tmp_path: Path) -> None:
    shutil.copy(DATA / "10-build.log", tmp_path / "cut.json")
    (tmp_path / "cut.json").write_text('{"Layers": [')
    done = command_line("inspect", tmp_path / "cut.json")
    assert done.returncode == 2
    assert "JSON that breaks off" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_lists_no_layers_is_not_called_equal(tmp_path: Path) -> None:
    (tmp_path / "fail.log").write_text("[E] Engine could not be created from network\n")
    done = command_line("inspect", tmp_path / "fail.log", "--diff", tmp_path / "fail.log")
    assert done.returncode == 2
    assert "fail.log: lists no layers to set against others" in done.stderr
