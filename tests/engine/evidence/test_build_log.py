"""What a build log proves.

Wordings: ``tests/recordings/layer_info/README.md`` and the issues named.
"""

from __future__ import annotations

from pathlib import Path

from tests.runs import command_line
from trt_qat.engine.evidence.build_log import BuildLog, parse
from trt_qat.engine.evidence.reading import read as read_file

DATA = Path(__file__).parents[2] / "recordings" / "layer_info"


def read(name: str) -> BuildLog:
    return parse((DATA / name).read_text().splitlines())


def test_tensorrt_10_counts_what_it_found_and_chose() -> None:
    log = read("10-build.log")
    assert (log.found, log.chose) == (2, 0)
    assert log.backends["cask"].found_layers == [
        "node_conv2d + node_relu",
        "node_conv2d_1 + node_relu_1",
    ]


def test_tensorrt_8_names_the_layers_and_gives_no_count() -> None:
    log = read("8-build.log")
    assert (log.found, log.chose) == (3, 2)
    assert log.backends["cask"].chose_layers == ["conv2", "conv3"]


def test_an_empty_list_of_tensorrt_8_is_zero() -> None:
    """Issue 2169: eligible layers, and nothing behind the second colon."""
    log = parse(
        [
            "[07/19/2022-11:58:20] [I] [TRT] (Sparsity) Layers eligible for sparse math: Conv_22",
            "[07/19/2022-11:58:20] [I] [TRT] (Sparsity) TRT inference plan picked sparse "
            "implementation for layers:",
        ]
    )
    assert (log.found, log.chose) == (1, 0)


def test_both_backends_are_added_up() -> None:
    """Myelin marks its lines: ``(foreignNode) (Sparsity) Found 1 layer(s)``."""
    log = parse(
        [
            "[V]  (foreignNode) (Sparsity) Found 1 layer(s) eligible to use sparse tactics: fc1",
            "[V]  (foreignNode) (Sparsity) Chose 1 layer(s) using sparse tactics: fc1",
            "[V] (Sparsity) Found 2 layer(s) eligible to use sparse tactics: a, b",
            "[V] (Sparsity) Chose 0 layer(s) using sparse tactics:",
        ]
    )
    assert (log.found, log.chose) == (3, 1)
    assert (log.backends["myelin"].found, log.backends["cask"].found) == (1, 2)


def test_a_line_that_is_printed_twice_counts_once() -> None:
    line = "(Sparsity) Found 2 layer(s) eligible to use sparse tactics: a, b"
    assert parse([line, line]).found == 2
    bare = "(Sparsity) Found 39 layer(s) eligible to use sparse tactics"
    assert parse([bare, bare]).found == 39


def test_a_log_without_a_word_of_sparsity_does_not_say_zero() -> None:
    log = parse(["[V] Engine generation completed in 13 seconds."])
    assert log.found is None
    assert log.to_dict()["sparsity"] is None


def test_kernels_skipped_for_memory_are_counted() -> None:
    """The message of a build on a device that was short of memory (March 2026)."""
    log = parse(
        [
            "[03/13/2026-13:17:50] [TRT] [W] UNSUPPORTED_STATE: Skipping tactic 28 due to "
            "insufficient memory on requested size of 2833252352 detected for tactic "
            "0x0000000204040736.",
            "[W] Skipping tactic 0 due to insufficient memory on requested size of 1290442752",
        ]
    )
    assert log.skipped_tactics == 2
    assert log.largest_request_bytes == 2833252352


def test_a_short_workspace_is_noticed() -> None:
    assert read("8-build.log").short_workspace
    assert not read("10-build.log").short_workspace


def test_warnings_are_told_once_without_noise_and_errors_first() -> None:
    log = parse(
        [
            "[TRT] [W] Make sure output z has Int64 binding.",
            "[TRT] [W] Weights [name=a] had the following issues: subnormal",
            "[TRT] [W] Weights [name=a] had the following issues: subnormal",
            "[TensorRT] ERROR: Could not find any implementation for node conv1.",
            "[TRT] [I] Detected 1 inputs and 2 output network tensors.",
        ]
    )
    assert log.warnings == [
        "Could not find any implementation for node conv1.",
        "Weights [name=a] had the following issues: subnormal",
    ]


def test_the_builders_own_listing_is_read() -> None:
    layers = read("10-build.log").layers
    assert [layer["LayerType"] for layer in layers] == [
        "CaskConvolution", "CaskPooling", "CaskConvolution", "Myelin",
    ]  # fmt: skip
    assert layers[0]["Name"] == "node_conv2d + node_relu"
    assert layers[3]["Name"] == "{ForeignNode[gemm1.weight...ONNXTRT_castHelper_9]}"


RUN = "&&&& RUNNING TensorRT.trtexec [TensorRT v{0}] # trtexec\n"
LINE = "Layer(CaskConvolution): {0}, Tactic: 0x1, x (Int8[1,2]) -> y (Int8[1,2])\n"


def test_of_two_runs_in_one_file_the_last_counts_and_both_are_explained(tmp_path: Path) -> None:
    first = (
        RUN.format(8503) + LINE.format("a") + "[E] Assertion failed: shiftIsAllZeros(zeroPoint)\n"
    )
    path = tmp_path / "x.log"
    path.write_text(
        first + RUN.format(100300) + LINE.format("b") + "&&&& PASSED TensorRT.trtexec\n"
    )
    found = read_file(path)
    assert [layer["name"] for layer in found["layers"]] == ["b"]
    assert found["facts"] == {"tensorrt": "10.3.0", "outcome": "passed"}
    assert [told["id"] for told in found["explained"]] == ["zero-point"]
    assert "the log is of 2 runs of trtexec" in command_line("inspect", path).stdout


def test_several_engines_of_one_program_are_told_to_be_several(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("".join(f"[V] Engine Layer Information:\n{LINE.format(x)}" for x in "ab"))
    assert len(read_file(path)["layers"]) == 2
    assert "the builder lists 2 engines here" in command_line("inspect", path).stdout
