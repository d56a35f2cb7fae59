"""How long preflight takes, and how much memory.

    python benchmarks/preflight_speed.py --repeat 3

Two graphs: 10,000 nodes with 1 GB of external weights (limit 5 s, 500 MB), and a network of the
layers of ResNet-50 (limit 0.5 s after import). Each is judged in a fresh process, of which the
growth of resident memory is measured; the files are removed afterwards.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_CHILD = """
import json, pathlib, re, sys, time
import trt_qat.graph.preflight as p
def peak():  # of this process alone: getrusage's survives exec, so it would count the parent
    return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
before = peak()
began, cpu = time.perf_counter(), time.process_time()
report = p.preflight(sys.argv[1], "a100", tensorrt="10.16")
seconds = time.perf_counter() - began
growth = round((peak() - before) / 1024, 1)
print(json.dumps({"seconds": round(seconds, 3), "cpu_seconds": round(time.process_time() - cpu, 3),
                  "growth_mib": growth, "summary": report.summary}))
"""
_LAYERS, _SIDE = 2000, 362  # five nodes a layer; 2000 * 362 * 362 floats are 1.05 GB


def large(folder: Path) -> Path:
    """Write 10,000 nodes and 1 GB of weights."""
    return matmuls(folder, _LAYERS, _SIDE)


def matmuls(folder: Path, layers: int, side: int) -> Path:
    """Write a chain of quantized MatMuls, five nodes a layer, its FP32 weights in one file."""
    nodes, stored, tensor = [], [], "x"
    stored.append(numpy_helper.from_array(np.float32(0.1), "s"))
    stored.append(numpy_helper.from_array(np.int8(0), "z"))
    draw = np.random.default_rng(0)
    block = draw.standard_normal((side, side)).astype(np.float32)
    with (folder / "weights.bin").open("wb") as file:
        for i in range(layers):
            weight = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[side, side])
            weight.data_location = TensorProto.EXTERNAL
            weight.external_data.add(key="location", value="weights.bin")
            weight.external_data.add(key="offset", value=str(file.tell()))
            weight.external_data.add(key="length", value=str(block.nbytes))
            file.write(block.tobytes())
            stored.append(weight)
            names = [f"{kind}{i}" for kind in ("q", "d", "wq", "wd", "y")]
            nodes += [
                helper.make_node("QuantizeLinear", [tensor, "s", "z"], [names[0]], names[0]),
                helper.make_node("DequantizeLinear", [names[0], "s", "z"], [names[1]], names[1]),
                helper.make_node("QuantizeLinear", [f"w{i}", "s", "z"], [names[2]], names[2]),
                helper.make_node("DequantizeLinear", [names[2], "s", "z"], [names[3]], names[3]),
                helper.make_node("MatMul", [names[1], names[3]], [names[4]], names[4]),
            ]
            tensor = names[4]
    return _save(folder / "large.onnx", nodes, stored, ["N", side], tensor)


class Network:
    """Grows a QDQ graph whose activations share one scale."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.stored = [
            numpy_helper.from_array(np.float32(0.1), "s"),
            numpy_helper.from_array(np.int8(0), "z"),
        ]
        self.draw = np.random.default_rng(0)

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node that is called as its output, and return that name."""
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    def pair(self, x: str, name: str) -> str:
        """Quantize and dequantize a tensor."""
        codes = self.add("QuantizeLinear", [x, "s", "z"], f"{name}_q")
        return self.add("DequantizeLinear", [codes, "s", "z"], f"{name}_d")

    def conv(self, x: str, name: str, shape: tuple[int, int, int, int], stride: int = 1) -> str:
        """Add a Conv with INT8 weights of one scale an output channel."""
        codes = self.draw.integers(-127, 128, shape).astype(np.int8)
        self.stored.append(numpy_helper.from_array(codes, f"{name}_w"))
        self.stored.append(numpy_helper.from_array(np.full(shape[0], 0.01, "f4"), f"{name}_s"))
        w = self.add("DequantizeLinear", [f"{name}_w", f"{name}_s"], f"{name}_wd", axis=0)
        return self.add("Conv", [x, w], name, strides=[stride] * 2, pads=[shape[2] // 2] * 4)

    def relu(self, x: str) -> str:
        """Add a Relu and a pair behind it."""
        return self.pair(self.add("Relu", [x], f"{x}_relu"), x)


def resnet50(folder: Path) -> Path:
    """Write the 53 convolutions and the classifier of ResNet-50, INT8 weights and Q/DQ."""
    net = Network()
    x = net.relu(net.conv(net.pair("x", "in"), "stem", (64, 3, 7, 7), 2))
    x, width = net.add("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2]), 64
    for name, planes, stride in _blocks():
        y = net.relu(net.conv(x, f"{name}_1", (planes, width, 1, 1)))
        y = net.relu(net.conv(y, f"{name}_2", (planes, planes, 3, 3), stride))
        y = net.conv(y, f"{name}_3", (planes * 4, planes, 1, 1))
        if width != planes * 4:
            side = net.conv(x, f"{name}_s", (planes * 4, width, 1, 1), stride)
            x = net.pair(side, f"{name}_s")
        x, width = net.relu(net.add("Add", [y, x], f"{name}_add")), planes * 4
    x = net.add("GlobalAveragePool", [x], "gap")
    x = net.conv(net.pair(x, "gap"), "fc", (1000, 2048, 1, 1))
    return _save(folder / "resnet50.onnx", net.nodes, net.stored, ["N", 3, 224, 224], x)


def _blocks() -> Iterator[tuple[str, int, int]]:
    for stage, (count, planes) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512))):
        for i in range(count):
            yield f"s{stage}b{i}", planes, 2 if stage and not i else 1


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    stored: list[TensorProto],
    shape: list[int | str],
    output: str,
) -> Path:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    made = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, path.stem, [given], [made], stored)
    opsets = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets).SerializeToString())
    return path


def main() -> None:
    """Measure both graphs some times and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args().repeat
    result: dict[str, object] = {"machine": platform.machine(), "python": platform.python_version()}
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as name:
        for build in (large, resnet50):
            path = build(Path(name))
            result[path.stem] = [
                json.loads(
                    subprocess.run(
                        [sys.executable, "-c", _CHILD, str(path)],
                        cwd=root, check=True, capture_output=True, text=True,
                    ).stdout
                )
                for _ in range(repeat)
            ]  # fmt: skip
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
