"""fold_norms: BatchNormalization goes into the layer before it where that is exact, only there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes.common import RemoveUnusedNodesPass

from trt_qat.qat.fold_norms import fold_norms

K = 6
GENERATOR = np.random.default_rng(0)
FACTORS = np.array([1.5, -0.7, 0.0, 2.0, -1.0, 0.3], np.float32)


def norm(source: str, result: str, name: str = "n") -> tuple[onnx.NodeProto, dict[str, Any]]:
    arrays = {
        f"{name}.gamma": FACTORS,
        f"{name}.beta": GENERATOR.normal(size=K).astype(np.float32),
        f"{name}.mean": GENERATOR.normal(size=K).astype(np.float32),
        f"{name}.var": GENERATOR.uniform(0.5, 2, K).astype(np.float32),
    }
    return helper.make_node("BatchNormalization", [source, *arrays], [result], name=name), arrays


def weight(shape: tuple[int, ...]) -> NDArray[np.float32]:
    return GENERATOR.normal(size=shape).astype(np.float32)


def codes(shape: tuple[int, ...]) -> NDArray[np.int8]:
    return GENERATOR.integers(-127, 128, shape).astype(np.int8)


def network(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, NDArray[Any]],
    shape: tuple[int, ...],
    outputs: Sequence[str] = ("y",),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def folded(model: onnx.ModelProto) -> list[str]:
    """Fold, hold the result against the model before, and return its operators."""
    mended = ir.from_proto(model)
    fold_norms(mended)
    RemoveUnusedNodesPass()(mended)
    proto = ir.to_proto(mended)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    feed = {"x": GENERATOR.normal(size=shape).astype(np.float32)}
    for want, got in zip(run(model, feed), run(proto, feed), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
    assert [o.name for o in proto.graph.output] == [o.name for o in model.graph.output]
    return [node.op_type for node in proto.graph.node]


def run(model: onnx.ModelProto, feed: dict[str, Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, feed))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scales", [(), (K,)], ids=["per tensor", "per channel"])
def test_the_factor_goes_into_the_scale_of_an_int8_weight(
    bias: bool, scales: tuple[int, ...]
) -> None:
    end, constants = norm("c", "y")
    constants |= {"w": codes((K, 4, 3, 3)), "s": np.full(scales, 0.02, np.float32)}
    constants |= {"b": weight((K,))} if bias else {}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["dw"], axis=0),
        helper.make_node("Conv", ["x", "dw", *(["b"] if bias else [])], ["c"]),
        end,
    ]
    assert folded(network(nodes, constants, (2, 4, 5, 5))) == ["DequantizeLinear", "Conv"]


def test_float_weights_are_multiplied() -> None:
    for op, shape in (("Conv", (K, 4, 3, 3)), ("ConvTranspose", (4, K, 3, 3))):
        end, constants = norm("c", "y")
        nodes = [helper.make_node(op, ["x", "w"], ["c"]), end]
        assert folded(network(nodes, constants | {"w": weight(shape)}, (2, 4, 5, 5))) == [op]


@pytest.mark.parametrize("transposed", [0, 1])
def test_the_bias_of_a_gemm_is_scaled_as_it_says(transposed: int) -> None:
    end, constants = norm("c", "y")
    constants |= {"w": weight((K, 4) if transposed else (4, K)), "b": weight((K,))}
    gemm = helper.make_node("Gemm", ["x", "w", "b"], ["c"], transB=transposed, beta=0.5)
    assert folded(network([gemm, end], constants, (3, 4))) == ["Gemm"]


def test_a_layer_that_somebody_else_reads_keeps_its_norm() -> None:
    end, constants = norm("c", "n")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        end,
        helper.make_node("Add", ["n", "c"], ["y"]),
    ]
    model = network(nodes, constants | {"w": weight((K, 4, 1, 1))}, (2, 4, 5, 5))
    assert "BatchNormalization" in folded(model)
    del model.graph.node[2]
    model.graph.output[0].name = "n"
    model.graph.output.extend([helper.make_tensor_value_info("c", TensorProto.FLOAT, None)])
    assert "BatchNormalization" in folded(model), "an output of the network is read as well"


def test_one_weight_behind_two_norms_is_written_twice_and_behind_one_norm_once() -> None:
    first, constants = norm("a", "p", "n")
    for second_norm, weights in (("m", 2), ("n", 1)):
        second, arrays = norm("b", "y", "m")
        if second_norm == "n":
            second.input[1:] = first.input[1:]
        constants |= arrays | {"w": codes((K, K, 1, 1)), "s": np.float32(0.02).reshape(())}
        nodes = [
            helper.make_node("DequantizeLinear", ["w", "s"], ["dw"]),
            helper.make_node("Conv", ["x", "dw"], ["a"]),
            first,
            helper.make_node("Conv", ["p", "dw"], ["b"]),
            second,
        ]
        found = folded(network(nodes, constants, (2, K, 3, 3)))
        assert found.count("Conv") == 2
        assert "BatchNormalization" not in found
        assert found.count("DequantizeLinear") == weights


def test_an_int8_conv_transpose_keeps_its_norm() -> None:
    """TensorRT has no kernel for its scales per output channel (E3)."""
    end, constants = norm("c", "y")
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["dw"]),
        helper.make_node("ConvTranspose", ["x", "dw"], ["c"]),
        end,
    ]
    constants |= {"w": codes((4, K, 3, 3)), "s": np.float32(0.02).reshape(())}
    assert folded(network(nodes, constants, (2, 4, 5, 5)))[-1] == "BatchNormalization"


def test_a_grouped_conv_transpose_has_no_axis_of_its_channels() -> None:
    end, constants = norm("c", "y")
    nodes = [helper.make_node("ConvTranspose", ["x", "w"], ["c"], group=2), end]
    constants |= {"w": weight((4, K // 2, 3, 3))}
    assert folded(network(nodes, constants, (2, 4, 5, 5)))[-1] == "BatchNormalization"


@pytest.mark.parametrize(("factor", "variance"), [(1e-37, 1.0), (3e38, 1e-4)])
def test_a_scale_that_would_leave_its_type_is_not_written(factor: float, variance: float) -> None:
    end, constants = norm("c", "y")
    constants |= {"w": codes((K, 4, 1, 1)), "s": np.full(K, 0.02, np.float32)}
    constants["n.gamma"] = np.full(K, factor, np.float32)
    constants["n.var"] = np.full(K, variance, np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["dw"], axis=0),
        helper.make_node("Conv", ["x", "dw"], ["c"]),
        end,
    ]
    mended = ir.from_proto(network(nodes, constants, (2, 4, 5, 5)))
    fold_norms(mended)
    assert [node.op_type for node in mended.graph][-1] == "BatchNormalization"


def test_a_norm_by_the_statistics_of_the_batch_stays() -> None:
    end, constants = norm("c", "y")
    end.attribute.append(helper.make_attribute("training_mode", 1))
    end.output.extend(["mean", "var"])
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), end]
    constants |= {"w": weight((K, 4, 1, 1))}
    assert "BatchNormalization" in folded(network(nodes, constants, (2, 4, 5, 5)))


def test_an_operator_of_another_domain_is_no_norm() -> None:
    end, constants = norm("c", "y")
    end.domain = "com.example"
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), end]
    model = network(nodes, constants | {"w": weight((K, 4, 1, 1))}, (2, 4, 5, 5))
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    mended = ir.from_proto(model)
    fold_norms(mended)
    assert [node.op_type for node in mended.graph] == ["Conv", "BatchNormalization"]


# Where a norm stays, because no weight can take its factor


def dequantized(scales: NDArray[np.float32], **attributes: Any) -> list[onnx.NodeProto]:
    pair = helper.make_node("DequantizeLinear", ["w", "s"], ["dw"], **attributes)
    return [pair, helper.make_node("Gemm", ["x", "dw"], ["c"])]


@pytest.mark.parametrize(
    ("nodes", "more"),
    [
        ([helper.make_node("Gemm", ["x", "w"], ["c"], alpha=0.5)], {"w": weight((K, K))}),
        ([helper.make_node("Gemm", ["x", "w"], ["c"], transA=1)], {"w": weight((K, K))}),
        ([helper.make_node("Gemm", ["x", "x"], ["c"])], {}),  # no weight
        ([helper.make_node("Abs", ["w"], ["a"]), helper.make_node("Gemm", ["x", "a"], ["c"])],
         {"w": weight((K, K))}),  # a weight that is computed
        ([helper.make_node("Gemm", ["x", "w", "b"], ["c"])],
         {"w": weight((K, K)), "b": weight((K, K))}),  # a bias of rows
        ([helper.make_node("Gemm", ["x", "w", "x"], ["c"])], {"w": weight((K, K))}),
        (dequantized(np.ones(K, np.float32), axis=0),
         {"w": codes((K, K)), "s": np.full(K, 0.02, np.float32)}),  # scales of what it reads
        ([helper.make_node("Abs", ["t"], ["s"]), *dequantized(np.ones(1, np.float32))],
         {"w": codes((K, K)), "t": np.full((), 0.02, np.float32)}),  # a scale that is computed
        ([helper.make_node("Gemm", ["x", "w"], ["c"])],
         {"w": np.full((K, K), 3e38, np.float32)}),  # beyond float
        ([helper.make_node("Relu", ["x"], ["c"])], {}),
    ],
    ids=range(10),
)  # fmt: skip
def test_a_norm_stays_behind_what_cannot_take_it(
    nodes: list[onnx.NodeProto], more: dict[str, NDArray[Any]]
) -> None:
    end, constants = norm("c", "y")
    model = ir.from_proto(network([*nodes, end], constants | more, (K, K)))
    fold_norms(model)
    assert [node.op_type for node in model.graph] == [
        *(node.op_type for node in nodes), "BatchNormalization"
    ]  # fmt: skip


def test_a_norm_of_the_input_stays() -> None:
    end, constants = norm("x", "y")
    assert folded(network([end], constants, (3, K))) == ["BatchNormalization"]


def test_codes_that_are_all_zero_take_any_scale() -> None:
    end, constants = norm("c", "y")
    constants |= {"w": np.zeros((K, 4), np.int8), "s": np.full(K, 0.02, np.float32)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["dw"], axis=0),
        helper.make_node("Gemm", ["x", "dw"], ["c"], transB=1),
    ]
    assert folded(network([*nodes, end], constants, (3, 4))) == ["DequantizeLinear", "Gemm"]
