"""``trt-qat bundle``: what is handed over to Triton, DeepStream and whoever builds again."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.runs import command_line
from trt_qat.artifact import sha256_file, write_sidecar
from trt_qat.engine.handover.bundle import bundle
from trt_qat.engine.handover.nvinfer import nvinfer_config
from trt_qat.engine.handover.serving import triton_config
from trt_qat.errors import InputError
from trt_qat.recipe.specs import BuildSpec, DataSpec
from trt_qat.runners.protocol import TensorSpec

INPUTS = {"x": TensorSpec("x", ("batch", 3, 8, 8), "float32")}
OUTPUTS = {"y": TensorSpec("y", ("batch", 10), "float16")}


# Triton


def test_a_dynamic_batch_is_batched_by_the_server() -> None:
    text = triton_config("m", INPUTS, OUTPUTS, spec=BuildSpec(batch=(1, 4, 16)), labels=True)
    assert "max_batch_size: 16" in text
    assert '{ name: "x" data_type: TYPE_FP32 dims: [ 3, 8, 8 ] }' in text
    assert 'data_type: TYPE_FP16 dims: [ 10 ] label_filename: "labels.txt"' in text
    assert "preferred_batch_size: [ 4, 16 ]" in text


def test_a_fixed_batch_is_a_part_of_the_shape() -> None:
    inputs = {"x": TensorSpec("x", (2, 3, 8, 8), "float32")}
    text = triton_config("m", inputs, OUTPUTS, spec=BuildSpec(), labels=False)
    assert "max_batch_size: 0" in text
    assert "dims: [ 2, 3, 8, 8 ]" in text
    assert "dynamic_batching" not in text
    assert "label_filename" not in text


def test_one_number_a_sample_is_reshaped_because_triton_allows_no_empty_dims() -> None:
    outputs = {"score": TensorSpec("score", ("batch",), "float32")}
    text = triton_config("m", INPUTS, outputs, spec=BuildSpec(), labels=False)
    assert '"score" data_type: TYPE_FP32 dims: [ 1 ] reshape: { shape: [ ] } }' in text
    assert "dims: [  ]" not in text


def test_int64_is_int32_in_an_engine_of_8() -> None:
    inputs = {"ids": TensorSpec("ids", ("batch", 16), "int64")}
    given: dict[str, Any] = {"spec": BuildSpec(), "labels": False}
    assert "TYPE_INT64" in triton_config("m", inputs, OUTPUTS, **given)
    old = triton_config("m", inputs, OUTPUTS, version=(8, 6), **given)
    assert "TYPE_INT32" in old
    assert "TYPE_INT64" not in old


def test_a_name_with_quotes_stays_one_string() -> None:
    outputs = {'a"b\\c': TensorSpec('a"b\\c', ("batch", 2), "float32")}
    text = triton_config("m", INPUTS, outputs, spec=BuildSpec(), labels=False)
    assert r'name: "a\"b\\c"' in text


def test_a_name_with_a_line_break_ends_no_string() -> None:
    name = "a\n} ] input [ {\x1b[31m"
    outputs = {name: TensorSpec(name, ("batch", 2), "float32")}
    text = triton_config("m", INPUTS, outputs, spec=BuildSpec(), labels=False)
    assert r'name: "a\012} ] input [ {\033[31m"' in text


# nvinfer: y = net-scale-factor * (pixel - offset), pixels of 0 to 255


def properties(**given: Any) -> dict[str, str]:
    text = nvinfer_config(
        INPUTS, OUTPUTS, spec=BuildSpec(), data=DataSpec(source="x", **given), classes=10
    )
    parser = configparser.ConfigParser()
    parser.read_string(text)
    return dict(parser["property"])


def test_nvinfer_prepares_images_as_the_recipe_does() -> None:
    found = properties(mean=(0.5, 0.25, 0.75), std=(0.5,))
    scale = float(found["net-scale-factor"])
    offsets = [float(value) for value in found["offsets"].split(";")]
    for pixel in (0.0, 100.0, 255.0):
        ours = [(pixel / 255 - mean) / 0.5 for mean in (0.5, 0.25, 0.75)]
        assert [scale * (pixel - offset) for offset in offsets] == pytest.approx(ours)


def test_a_single_mean_holds_for_every_channel() -> None:
    assert properties(mean=(0.5,))["offsets"] == "127.5;127.5;127.5"
    assert "offsets" not in properties()


def test_what_nvinfer_cannot_do_is_refused() -> None:
    with pytest.raises(InputError, match=r"one scale for all channels and data\.std is"):
        properties(std=(0.5, 0.25, 0.5))
    flat = {"x": TensorSpec("x", ("n", 64), "float32")}
    with pytest.raises(InputError, match=r"\(N, 1 or 3, H, W\)"):
        nvinfer_config(flat, OUTPUTS, spec=BuildSpec(), data=DataSpec(source="x"), classes=10)


# A whole run


@pytest.fixture
def run(run_folder: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("manifest.json", "model.onnx"):
        shutil.copy(run_folder / name, copy / name)
    return copy


def test_a_run_without_an_engine_hands_over_how_to_build_it(run: Path) -> None:
    made = bundle(run)
    names = [path.relative_to(run / "bundle").as_posix() for path in made.files]
    assert names == [
        "triton/small/config.pbtxt",
        "triton/small/labels.txt",
        "triton-onnx/small/config.pbtxt",
        "triton-onnx/small/labels.txt",
        "triton-onnx/small/1/model.onnx",
        "deepstream/config_infer.txt",
        "deepstream/labels.txt",
        "trtexec/model.onnx",
        "trtexec/build.sh",
        "client.py",
        "README.md",
    ]
    assert "is not built" in made.notes[0]
    assert (run / "bundle/deepstream/labels.txt").read_text() == "0;1;2;3;4;5;6;7;8;9\n"
    script = run / "bundle/trtexec/build.sh"
    assert "--stronglyTyped" in script.read_text()
    subprocess.run(["sh", "-n", str(script)], check=True)


def test_the_onnx_of_the_command_is_the_one_with_fp16_casts(run: Path) -> None:
    bundle(run)
    assert sha256_file(run / "bundle/trtexec/model.onnx") != sha256_file(run / "model.onnx")
    bundle(run, run / "old", tensorrt="8.6")
    assert sha256_file(run / "old/trtexec/model.onnx") == sha256_file(run / "model.onnx")
    assert "--int8" in (run / "old/trtexec/build.sh").read_text()


def test_an_engine_is_taken_along_and_decides_the_version(run: Path) -> None:
    engine = run / "model.engine"
    engine.write_bytes(b"plan")
    metrics = {"engine": {"source": {"tensorrt": "8.6.1"}}}
    write_sidecar(engine, fingerprint="f", parents={}, spec={}, metrics=metrics, seconds=0)
    bundle(run)
    assert (run / "bundle/triton/small/1/model.plan").read_bytes() == b"plan"
    assert "--fp16" in (run / "bundle/trtexec/build.sh").read_text()


def test_labels_must_fit(run: Path, tmp_path: Path) -> None:
    labels = tmp_path / "names.txt"
    labels.write_text("\n".join(f"class {at}" for at in range(10)) + "\n")
    bundle(run, labels=labels)
    assert (run / "bundle/triton/small/labels.txt").read_text() == labels.read_text()
    labels.write_text("one\ntwo\n")
    with pytest.raises(InputError, match="2 names for 10 classes"):
        bundle(run, labels=labels)
    with pytest.raises(InputError, match="cannot be read"):
        bundle(run, labels=tmp_path / "none.txt")


@pytest.mark.parametrize("bad", ["a\x0bb", "a\x1b[2Jb", "a\u2028b"])
def test_a_label_with_a_control_character_is_refused(run: Path, tmp_path: Path, bad: str) -> None:
    labels = tmp_path / "names.txt"
    labels.write_text("\n".join([bad, *(f"class {at}" for at in range(9))]) + "\n")
    with pytest.raises(InputError, match="holds a control character"):
        bundle(run, labels=labels)


def test_labels_with_line_ends_of_windows_are_read(run: Path, tmp_path: Path) -> None:
    labels = tmp_path / "names.txt"
    labels.write_bytes(b"".join(b"class %d\r\n" % at for at in range(10)))
    bundle(run, labels=labels)
    assert b"\r" not in (run / "bundle/triton/small/labels.txt").read_bytes()


def test_a_label_that_would_part_the_list_costs_deepstream_alone(run: Path, tmp_path: Path) -> None:
    labels = tmp_path / "names.txt"
    labels.write_text("\n".join(["cat; dog", *(f"class {at}" for at in range(9))]) + "\n")
    made = bundle(run, labels=labels)
    assert any("label 'cat; dog' cannot stand in a list" in note for note in made.notes)
    assert not (run / "bundle" / "deepstream").exists()


def test_what_is_no_run_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json: no such file"):
        bundle(tmp_path)
    (tmp_path / "manifest.json").write_text('{"recipe": {}}')
    with pytest.raises(InputError, match="not a manifest of this version"):
        bundle(tmp_path)


def test_the_command_prints_what_it_wrote(run: Path) -> None:
    done = command_line("bundle", run)
    assert done.returncode == 0, done.stderr
    assert "bundle/trtexec/build.sh" in done.stdout
    assert "note: " in done.stderr


def test_the_client_asks_the_onnx_of_the_bundle(run: Path) -> None:
    bundle(run)
    done = subprocess.run(
        [sys.executable, run / "bundle" / "client.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(maxsplit=1)[1].strip() == "float32 (1, 10)"
    page = (run / "bundle" / "README.md").read_text()
    assert "| input | `x` | float32 |" in page
    assert "client.py localhost:8000" in page


def test_an_onnx_alone_is_bundled_under_its_own_name(run: Path, tmp_path: Path) -> None:
    onnx = tmp_path / "my net.onnx"
    shutil.copy(run / "model.onnx", onnx)
    made = bundle(onnx)
    assert made.folder == tmp_path / "my net-bundle"
    text = (made.folder / "triton-onnx/my-net/config.pbtxt").read_text()
    assert 'platform: "onnxruntime_onnx"' in text
    assert 'default_model_filename: "model.onnx"' in text
    assert "KIND_AUTO" in text
    assert any("pixels from 0 to 1 are assumed" in note for note in made.notes)


# nvinfer, by task


def nvinfer(task: str, outputs: dict[str, TensorSpec]) -> configparser.ConfigParser:
    text = nvinfer_config(
        INPUTS, outputs, spec=BuildSpec(), data=DataSpec(source="x"), classes=3, task=task
    )
    parser = configparser.ConfigParser()
    parser.read_string(text)
    return parser


def test_a_detector_names_its_parser_and_its_outputs() -> None:
    boxes = TensorSpec("boxes", ("batch", 4, 8, 8), "float32")
    found = nvinfer("detection", {"boxes": boxes, "classes": boxes})
    assert found["property"]["network-type"] == "0"
    assert found["property"]["parse-bbox-func-name"] == "NvDsInferParseCustom"
    assert found["property"]["output-blob-names"] == "boxes;classes"
    assert found["class-attrs-all"]["nms-iou-threshold"] == "0.5"


@pytest.mark.parametrize(
    ("task", "kind"),
    [("classification", "1"), ("segmentation", "2"), ("embedding", "100"), ("own", "100")],
)
def test_the_network_type_is_that_of_the_task(task: str, kind: str) -> None:
    assert nvinfer(task, OUTPUTS)["property"]["network-type"] == kind


@pytest.mark.parametrize(
    "name",
    ["a\ncustom-lib-path=/tmp/x.so", "a\rb", "a\x0bb", "a\u2028b", "a;b", "a\\", " a", ""],
)
@pytest.mark.parametrize("task", ["classification", "detection"])
def test_a_name_writes_no_key_of_its_own(task: str, name: str) -> None:
    with pytest.raises(InputError, match="cannot stand in a list"):
        nvinfer(task, {name: TensorSpec(name, ("batch", 4), "float32")})


def test_a_size_with_a_line_break_stays_in_its_comment() -> None:
    size = "n\ncustom-lib-path=/tmp/x.so"
    found = nvinfer("detection", {"boxes": TensorSpec("boxes", ("batch", size), "float32")})
    assert found["property"]["custom-lib-path"] == "libnvds_infer_parser.so"


def test_names_with_brackets_and_equals_signs_are_values() -> None:
    name = "[a]=b:0/c"
    found = nvinfer("embedding", {name: TensorSpec(name, ("batch", 4), "float32")})
    assert found["property"]["output-blob-names"] == name
    assert set(found) == {"DEFAULT", "property"}
