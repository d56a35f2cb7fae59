"""Zero points taken into biases: every code stays, and where it cannot, ranges widen as before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from tests.engine.aot.rtx import needs_rtx
from tests.graph.build import Array, Builder
from trt_qat.engine.aot.child import Compiler
from trt_qat.engine.confirm.preflight import preflight as confirmed
from trt_qat.graph.qdq import Graph
from trt_qat.lint.preflight import preflight
from trt_qat.mend import mends, shifted, symmetric, trial
from trt_qat.mend.fix import FixReport, Half, fix

SHAPE = (2, 8, 6, 6)
EXACT = 1e-5  # of the largest output: sums in another order
TOOK, MADE = "The biases of 2 layers took its zero point", "Made it symmetric"
# Neither the input nor the output is in question here: the first is symmetric, the last is float.
FLOAT_END = {"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]}


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Batches between -3 and 3, both of which occur: the input's zero point is 0."""

    def __init__(self) -> None:
        draw = np.random.default_rng(0)
        self.left = [draw.uniform(-3, 3, SHAPE).astype(np.float32) for _ in range(64)]
        for batch in self.left:
            batch.flat[:2] = -3, 3

    def get_next(self) -> dict[str, Array] | None:
        return {"x": self.left.pop()} if self.left else None


FEED = {"x": np.random.default_rng(9).uniform(-3, 3, SHAPE).astype(np.float32)}


def chain(b: Builder, x: str) -> str:
    """Conv, Relu, MaxPool, 1x1 Conv, Relu, 1x1 Conv, Flatten, Linear, Relu, Linear."""
    y = b.conv(x, (8, 16), "one", quantized=False, relu=True)
    y = b.node("MaxPool", y, name="pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    y = b.conv(y, (16, 24), "two", quantized=False, kernel=1, relu=True)
    y = b.conv(y, (24, 8), "three", quantized=False, kernel=1, group=4)
    y = b.node("Flatten", y, name="flat")
    y = b.node("Gemm", y, b.float_weight("fc", (10, 72)), b.store("fc_bias", b.draw.random(10)),
               name="fc", transB=1)  # fmt: skip
    return b.node("MatMul", b.node("Relu", y, name="act"), b.float_weight("last", (10, 4)))


def saved(folder: Path, grow: Any, opset: int = 17) -> Path:
    b = Builder(opset)
    path = folder / "float.onnx"
    path.write_bytes(b.model(grow(b, b.input("x", SHAPE))).SerializeToString())
    return path


def quantized(folder: Path, grow: Any, **options: Any) -> Path:
    """The network as onnxruntime quantizes it."""
    out = folder / "quantized.onnx"
    given = {"activation_type": QuantType.QUInt8, "extra_options": FLOAT_END, **options}
    quantize_static(saved(folder, grow), out, _Reader(), **given)
    return out


def ran(path: Path, feeds: Sequence[dict[str, Array]] = (FEED,)) -> Array:
    return np.concatenate([out[0] for out in trial.run(onnx.load(path), feeds)])


def widened(path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file mended without biases."""
    with monkeypatch.context() as patch:
        patch.setattr(mends, "ALL", [m for m in mends.ALL if m is not shifted.activations])
        fix(path, out, feeds=[FEED])
    return out


def told(report: FixReport, what: str) -> list[str]:
    return [change.node for change in report.changes if change.what.startswith(what)]


def sqnr(reference: Array, value: Array) -> float:
    noise = np.square(reference.astype(np.float64) - value).sum()
    return float(10 * np.log10(np.square(reference.astype(np.float64)).sum() / noise))


def codes(path: Path) -> dict[str, Array]:
    """The codes of each activation, as those of int8."""
    model = onnx.load(path)
    graph = Graph(model)
    kinds = {p.quantize.output: p.scaling.code_type for p in graph.pairs}
    held = [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
    model.graph.output.extend(held)
    made = trial.run(model, [FEED])[0][1:]
    middle: dict[int, int] = {TensorProto.UINT8: 128, TensorProto.INT8: 0}
    return {n: x.astype(int) - middle[kinds[n]] for n, x in zip(kinds, made, strict=True)}


@pytest.mark.parametrize(
    ("kind", "per_channel"), [*product((QuantType.QUInt8, QuantType.QInt8), (False, True))]
)
def test_every_code_of_onnxruntimes_file_stays(
    tmp_path: Path, kind: QuantType, per_channel: bool
) -> None:
    path = quantized(tmp_path, chain, activation_type=kind, per_channel=per_channel)
    out = tmp_path / "mended.onnx"
    report = fix(path, out, feeds=[FEED])
    assert len(told(report, TOOK)) == 6
    assert [node for node in told(report, MADE) if node != "x_QuantizeLinear"] == []
    assert preflight(out).count("error") == 0
    before, after = codes(path), codes(out)
    assert set(before) == set(after)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
    assert report.largest_difference is not None
    assert report.largest_output is not None
    assert report.largest_difference < EXACT * report.largest_output


def test_the_network_is_nearer_to_its_float_one_than_with_wider_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = quantized(tmp_path, chain, per_channel=True), tmp_path / "mended.onnx"
    fix(path, out, feeds=[FEED])
    wide = widened(path, tmp_path / "wide.onnx", monkeypatch)
    draw = np.random.default_rng(4)
    feeds = [{"x": draw.uniform(-3, 3, SHAPE).astype(np.float32)} for _ in range(100)]
    reference, exact, widest = (ran(file, feeds) for file in (tmp_path / "float.onnx", out, wide))
    assert sqnr(reference, exact) > sqnr(reference, widest) + 1  # dB


def silu(b: Builder, x: str) -> str:
    return b.node("Mul", x, b.node("Sigmoid", x))


def beside(op: str) -> Any:
    """A 1x1 Conv, which could take the zero point, and next to it what cannot."""

    def grow(b: Builder, x: str) -> str:
        y = b.conv(x, (8, 8), "one", quantized=False, relu=True)
        z = b.conv(y, (8, 8), "two", quantized=False, kernel=1)
        if op == "Conv":
            return b.node("Add", z, b.conv(y, (8, 8), "padded", quantized=False))
        if op == "AveragePool":
            y = b.node(op, y, kernel_shape=[1, 1])
        return b.node("Concat", z, y, axis=1) if op == "Concat" else b.node("Add", z, y)

    return grow


def behind_silu(b: Builder, x: str) -> str:
    y = silu(b, b.conv(x, (8, 8), "one", quantized=False))
    return b.conv(y, (8, 8), "two", quantized=False, kernel=1)


def normalized(b: Builder, x: str) -> str:
    """The input is quantized, which no layer writes."""
    return b.conv(b.node("Relu", x), (8, 8), "one", quantized=False, kernel=1)


@pytest.mark.parametrize(
    "grow",
    [*map(beside, ("Conv", "Add", "Concat", "AveragePool")), behind_silu, normalized],
    ids=["padded", "residual", "concat", "pool", "silu", "no-layer"],
)
def test_what_another_reads_or_writes_is_widened_as_before(
    tmp_path: Path, grow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = quantized(tmp_path, grow), tmp_path / "mended.onnx"
    report = fix(path, out, feeds=[FEED])
    assert told(report, TOOK) == []
    assert told(report, MADE)
    assert out.read_bytes() == widened(path, tmp_path / "wide.onnx", monkeypatch).read_bytes()


def test_asymmetric_weights_are_summed_as_they_are_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = quantized(tmp_path, chain, weight_type=QuantType.QUInt8), tmp_path / "mended.onnx"
    fix(path, out, feeds=[FEED])
    with monkeypatch.context() as patch:
        patch.setattr(mends, "ALL", [symmetric.weights])
        fix(path, tmp_path / "weights.onnx", feeds=[FEED])
    expected, found = ran(tmp_path / "weights.onnx"), ran(out)
    np.testing.assert_allclose(found, expected, atol=EXACT * np.abs(expected).max())


def test_what_is_cast_to_half_precision_afterwards_stays_near(tmp_path: Path) -> None:
    path = quantized(tmp_path, chain, per_channel=True)
    report = fix(path, tmp_path / "half.onnx", half=Half(), feeds=[FEED])
    assert len(told(report, TOOK)) == 6
    assert report.largest_difference is not None
    assert report.largest_output is not None
    assert report.largest_difference < 0.02 * report.largest_output


@pytest.fixture(scope="module")
def compiler() -> Iterator[Compiler]:
    with Compiler() as running:
        yield running


@needs_rtx
@pytest.mark.parametrize("half", [False, True])
def test_nvidias_own_parser_and_builder_take_it(
    tmp_path: Path, compiler: Compiler, half: bool
) -> None:
    path, out = quantized(tmp_path, chain, per_channel=True), tmp_path / "mended.onnx"
    fix(path, out, feeds=[FEED], half=Half() if half else None)
    found = confirmed(out, "l4", confirm="rtx", compiler=compiler).confirmation
    assert found is not None
    assert found.built, found.refused
