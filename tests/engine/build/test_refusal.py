"""What the parser says of a network that it refuses; its texts are those of TensorRT 8.6.0."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from benchmarks.gpu import net
from trt_qat.engine.build.refusal import refusal

NO_PLUGIN = (
    "In node 12 (importFallbackPluginImporter): UNSUPPORTED_NODE: Assertion failed: creator && "
    '"Plugin not found, are the plugin name, version, and namespace correct?"'
)
NO_KERNEL_SHAPE = (
    "In node 4 (convMultiInput): UNSUPPORTED_NODE: Assertion failed: "
    "checkSpatialDims(kernel_tensor_ptr->getDimensions()) && "
    '"The input tensor shape misaligns with the input kernel shape."'
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return net.write_for((8, 6), tmp_path / "small.onnx")


def test_an_operator_that_is_not_imported_is_named(path: Path) -> None:
    """The number is the node's place in the graph: 12 was the last of these."""
    model = onnx.load(path)
    assert len(model.graph.node) == 13
    model.graph.node[-1].op_type = "NoSuchOperator"
    onnx.save(model, path)
    said = refusal(path, "8.6.0", [NO_PLUGIN])
    assert said.startswith(
        f"{path}: TensorRT 8.6.0 cannot import it: In node 12 with name: relu1 and operator: "
        "NoSuchOperator (importFallbackPluginImporter): UNSUPPORTED_NODE"
    )
    assert "QDQ011 of preflight). Mend: load the plugin's library" in said


def test_a_conv_without_kernel_shape_is_told_with_its_mend(path: Path) -> None:
    said = refusal(path, "8.6.0", [NO_KERNEL_SHAPE])
    assert "In node 4 with name: conv0 and operator: Conv (convMultiInput)" in said
    assert "(QDQ317 of preflight). Mend: write kernel_shape (preflight --fix" in said


def test_a_node_without_a_name_is_called_by_what_it_writes(path: Path) -> None:
    model = onnx.load(path)
    model.graph.node[4].name = ""
    onnx.save(model, path)
    assert "with name: node_of_c0 and operator: Conv" in refusal(path, "8.6.0", [NO_KERNEL_SHAPE])


@pytest.mark.parametrize(
    "text",
    [
        "In node -1 (importModel): INVALID_GRAPH: Assertion failed",
        "In node 99 (importModel): INVALID_GRAPH: Assertion failed",
        "In node 3 with name: q and operator: Conv (importConv): INVALID_NODE: as 10 says it",
    ],
)
def test_what_means_no_node_or_names_it_is_left_as_it_is(path: Path, text: str) -> None:
    assert refusal(path, "10.3.0", [text]) == f"{path}: TensorRT 10.3.0 cannot import it: {text}"


def test_a_file_that_cannot_be_read_again_hides_no_message(tmp_path: Path) -> None:
    said = refusal(tmp_path / "gone.onnx", "8.6.0", [NO_KERNEL_SHAPE])
    assert "In node 4 (convMultiInput)" in said
    assert "it does not say why" in refusal(tmp_path / "gone.onnx", "8.6.0", [])
