"""export holds the file against the model, and keeps none that differs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from tests.faults import FAULTS, Fault
from tests.qat.test_export import BATCH, prepared
from trt_qat import artifact
from trt_qat.errors import ExportMismatch, ModelError
from trt_qat.graph.islands import Cut
from trt_qat.graph.load import load_graph
from trt_qat.graph.qdq import Graph
from trt_qat.qat import onnx_passes
from trt_qat.qat.deploy import deployed
from trt_qat.qat.export import export
from trt_qat.qat.quantize import quantize
from trt_qat.qat.verify import Verified, resized, verify
from trt_qat.recipe.specs import ExportSpec, QuantizeSpec

X = torch.randn(4, 32, 6, 6, generator=torch.Generator().manual_seed(1))


def net(*more: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    first, last = nn.Conv2d(32, 32, 3), nn.Conv2d(32, 8, 1)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), last, *more).eval()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    model = prepared()
    return model, export(model, BATCH, tmp_path_factory.mktemp("verify") / "model.onnx")


def checked(path: Path) -> dict[str, Any]:
    sidecar = artifact.read_sidecar(path)
    assert sidecar is not None
    assert sidecar.sha256 == artifact.sha256_file(path)
    found: dict[str, Any] = sidecar.metrics["verification"]
    return found


def against(model: nn.Module, file: onnx.ModelProto, folder: Path) -> Verified:
    path = folder / "changed.onnx"
    onnx.save(file, path)
    return verify(model, path, BATCH[:2], name="changed.onnx", dynamic=True)


def test_the_sidecar_says_what_was_compared(written: tuple[nn.Module, Path]) -> None:
    _, path = written
    found = checked(path)
    quantizes = [n for n in onnx.load(path).graph.node if n.op_type == "QuantizeLinear"]
    assert found["checked"] is True
    assert found["batches"] == [1, 3], "neither is the traced one"
    assert found["points"] == len(quantizes) > 5
    assert found["outputs"] == 1
    assert 0 < found["worst"] < found["tolerance"] / 10
    assert found["unmatched"] == []


def test_it_can_be_switched_off_and_the_sidecar_says_so(tmp_path: Path) -> None:
    model = quantize(net(), [X])
    path = export(model, X, tmp_path / "model.onnx", spec=ExportSpec(verify=False))
    assert checked(path) == {"checked": False, "why": "export.verify is false"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_every_fault_of_a_file_is_refused_by_the_name_of_its_node(
    written: tuple[nn.Module, Path],
    tmp_path: Path,
    fault: Callable[[onnx.ModelProto, np.random.Generator], Fault | None],
) -> None:
    model, path = written
    wrong = [fault(onnx.load(path), np.random.default_rng(seed)) for seed in range(4)]
    made = [one for one in wrong if one is not None]
    if fault.__name__ == "swapped_axis" and not made:
        pytest.skip("no weight is square")
    assert made
    for one in made:
        with pytest.raises(ExportMismatch, match="nothing is written") as error:
            against(model, one.model, tmp_path)
        pair = one.node.replace("DequantizeLinear", "QuantizeLinear")
        assert repr(pair)[1:-1] in str(error.value)


def test_one_code_of_one_weight_is_seen(written: tuple[nn.Module, Path], tmp_path: Path) -> None:
    model, path = written
    file = onnx.load(path)
    (codes,) = (t for t in file.graph.initializer if t.name == "stages.1.conv2.codes.weight")
    array = onnx.numpy_helper.to_array(codes).copy()
    array.reshape(-1)[7] += 1
    codes.raw_data = array.tobytes()
    with pytest.raises(ExportMismatch, match=r"stages\.1\.conv2"):
        against(model, file, tmp_path)


class NormAct(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(super().forward(x))


@contextlib.contextmanager
def without_second_relu(model: nn.Module, form: Any) -> Iterator[nn.Module]:
    """A deployed form that forgets a layer."""
    with deployed(model, form):
        relu = model._modules["3"]
        model._modules["3"] = nn.Identity()
        try:
            yield model
        finally:
            model._modules["3"] = relu


def test_a_layer_that_export_drops_is_refused_and_an_older_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = quantize(net(), [X])
    path = tmp_path / "model.onnx"
    path.write_bytes(b"older")
    monkeypatch.setattr("trt_qat.qat.export.deployed", without_second_relu)
    with pytest.raises(ExportMismatch, match=r"first at tensor '2' \(computed by 2/Deq.*, 2\)"):
        export(model, X, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_bytes() == b"older"


def test_a_weight_that_a_pass_changes_is_refused_and_no_file_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = onnx_passes.clean

    def spoilt(model: ir.Model, *, opset: int) -> ir.Model:
        graph = clean(model, opset=opset)
        value = graph.graph.initializers["2.codes.weight"]
        assert value.const_value is not None
        value.const_value = ir.tensor(-value.const_value.numpy(), name=value.name)
        return graph

    monkeypatch.setattr(onnx_passes, "clean", spoilt)
    monkeypatch.setattr("trt_qat.graph.large.LARGE_BYTES", 0)  # weights beside it as well
    with pytest.raises(ExportMismatch, match="first at tensor '3/Relu'"):
        export(quantize(net(), [X]), X, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


class FirstTwo(nn.Module):
    """Right for the traced batch of two and for one, and too short for any larger one."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.body, self.count = net(), count

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x)
        return found[: self.count]


@pytest.mark.parametrize("large", [False, True])
def test_what_is_cut_to_the_traced_batch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """A large model is not run again for it: the islands are given copies of one sample."""
    if large:
        monkeypatch.setattr("trt_qat.qat.verify.LARGE_ELEMENTS", 0)
    model = quantize(FirstTwo(9), [X])
    path = export(model, X, tmp_path / "model.onnx")
    file = onnx.load(path)
    ends = [t for t in file.graph.initializer if onnx.numpy_helper.to_array(t).tolist() == [9]]
    assert len(ends) == 1
    ends[0].CopyFrom(onnx.numpy_helper.from_array(np.asarray([2]), ends[0].name))
    onnx.save(file, path)
    with pytest.raises(ExportMismatch, match=r"on a batch of 3: it is \(2, 8, 2, 2\) in the file"):
        verify(model, path, X[:2], name="model.onnx", dynamic=True)


def test_a_large_model_runs_once_and_its_islands_on_copies(
    written: tuple[nn.Module, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trt_qat.qat.verify.LARGE_ELEMENTS", 0)
    model, path = written
    calls: list[int] = []
    handle = model.register_forward_hook(lambda _m, args, _o: calls.append(len(args[0])))
    try:
        found = verify(model, path, BATCH[:2], name="model.onnx", dynamic=True)
    finally:
        handle.remove()
    assert found.batches == (1, 3)
    assert calls == [1]


def test_weights_are_streamed_where_an_island_has_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 1), nn.Softmax(1), nn.Conv2d(32, 8, 1)]
    model = quantize(nn.Sequential(*layers).eval(), [X], spec=QuantizeSpec(exclude=("1", "3")))
    path = export(model, X, tmp_path / "model.onnx")
    whole = len(Cut(Graph(load_graph(path))).islands)
    before = verify(model, path, X[:2], name="model.onnx", dynamic=True)
    monkeypatch.setattr("trt_qat.graph.islands.PART_BYTES", 1)
    assert len(Cut(Graph(load_graph(path))).islands) > whole
    after = verify(model, path, X[:2], name="model.onnx", dynamic=True)
    assert (after.points, after.batches) == (before.points, before.batches)


class Twice(nn.Module):
    """A part called twice on the same tensor, which is one in the file, and once for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = net(), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.body(x * 2)
        found: Tensor = self.last(self.body(x) + self.body(x))
        return found


def test_calls_that_the_file_merges_or_drops_are_no_disagreement(tmp_path: Path) -> None:
    model = quantize(Twice().eval(), [X])
    found = checked(export(model, X, tmp_path / "model.onnx"))
    assert found["points"] > 0
    assert found["worst"] < found["tolerance"]


def test_a_disabled_quantizer_is_a_disagreement(tmp_path: Path) -> None:
    """The file would round where the model does not."""
    model: Any = quantize(net(), [X])
    next(iter(model.qdq.values())).disable()
    with pytest.raises(ExportMismatch, match="are rounded otherwise than in the model"):
        export(model, X, tmp_path / "model.onnx")


def test_a_model_that_computes_nan_is_refused_by_the_first_tensor(tmp_path: Path) -> None:
    model = quantize(net(), [X])
    with pytest.raises(ModelError, match="the model computes NaN in "):
        export(model, X * float("nan"), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


class Exact(nn.Module):
    """Takes batches of two alone."""

    def __init__(self) -> None:
        super().__init__()
        self.body = net()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).view(2, -1)  # type: ignore[no-any-return]


class Choice(nn.Module):
    """The place of the largest value, as a detector chooses its anchors."""

    lead: Tensor

    def __init__(self, lead: float) -> None:
        super().__init__()
        self.register_buffer("lead", torch.tensor([0.0, lead, 0.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return (x.abs().mean(1).flatten(1) + self.lead).argmax(1)


@pytest.mark.parametrize(("lead", "refused"), [(2e-8, False), (1e-2, True)])
def test_a_choice_among_equals_may_be_another_one(
    lead: float, refused: bool, tmp_path: Path
) -> None:
    """Each place is the same, so that the lead alone decides; the file has it elsewhere."""
    images = X[:2, :, :1, :1].expand(2, 32, 6, 6)
    model = quantize(net(Choice(lead)), [images])
    path = export(model, images, tmp_path / "model.onnx")
    file = onnx.load(path)
    (stored,) = (t for t in file.graph.initializer if t.name.endswith("lead"))
    stored.raw_data = onnx.numpy_helper.to_array(stored)[::-1].tobytes()
    onnx.save(file, path)
    expected = pytest.raises(ExportMismatch) if refused else contextlib.nullcontext()
    with expected:
        verify(model, path, images, name="model.onnx", dynamic=True)


class Decoder(nn.Module):
    """Levels that are made in one order and read in the other, as SegFormer's head does."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(32, 8, 1), nn.Conv2d(32, 8, 1)
        self.fuse = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = nn.functional.interpolate(self.fine(x), size=(8, 8), mode="bilinear")
        coarse = nn.functional.interpolate(self.coarse(x), size=(8, 8), mode="bilinear")
        return torch.relu(self.fuse(torch.cat([coarse, fine], 1)))


def in_reverse() -> nn.Module:
    decoder = Decoder()
    decoder.register_forward_hook(lambda *_: None)  # so that its own code runs, but for the export
    model = net(decoder, nn.Conv2d(8, 4, 1))
    model[4] = nn.Conv2d(32, 32, 1)
    return quantize(model, [X])


def test_calls_in_another_order_than_that_of_the_file_are_told_by_their_values(
    tmp_path: Path,
) -> None:
    model = in_reverse()
    path = export(model, X, tmp_path / "model.onnx")
    assert checked(path)["points"] >= 6
    file = onnx.load(path)
    shared = [n for n in file.graph.node if n.name.endswith(".1") and n.op_type == "QuantizeLinear"]
    assert len(shared) == 1  # two calls of one quantizer
    stored = {i.name: i for i in file.graph.initializer}
    weight = next(n for n in file.graph.node if n.name == "5.fine/DequantizeLinear").input[0]
    codes = onnx.numpy_helper.to_array(stored[weight])
    stored[weight].CopyFrom(onnx.numpy_helper.from_array(-codes, weight))
    onnx.save(file, path)
    with pytest.raises(ExportMismatch, match=r"first at tensor '5"):
        verify(model, path, X, name="model.onnx", dynamic=True)


def test_a_fixed_batch_is_compared_at_its_own_size(tmp_path: Path) -> None:
    model = quantize(Exact().eval(), [X[:2]])
    spec = ExportSpec(dynamic_batch=False)
    assert checked(export(model, X[:2], tmp_path / "model.onnx", spec=spec))["batches"] == [2]


def test_inputs_of_another_batch_keep_samples_apart_and_ids_with_their_masks() -> None:
    ids = torch.arange(6).reshape(2, 3)
    batch = {"ids": ids, "mask": ids > 1, "scale": torch.tensor(2.0), "flag": True}
    found = resized(batch, 5)
    assert found["ids"].tolist() == [[0, 1, 2], [3, 4, 5], [2, 0, 1], [5, 3, 4], [1, 2, 0]]
    assert torch.equal(found["mask"], found["ids"] > 1)
    assert found["scale"] is batch["scale"]
    assert found["flag"] is True
    assert torch.equal(resized(ids, 1), ids[:1])


# What can be told before anything is compared


def test_a_file_whose_batch_is_fixed_breaks_the_promise_of_a_dynamic_one(
    written: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    model, path = written
    file = onnx.load(path)
    file.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    name = file.graph.input[0].name
    with pytest.raises(ExportMismatch, match=f"and the file fixes that of '{name}'"):
        against(model, file, tmp_path)


def test_inputs_and_outputs_are_counted(written: tuple[nn.Module, Path], tmp_path: Path) -> None:
    model, path = written
    with pytest.raises(ExportMismatch, match="the file has 1 inputs where 2 tensors are given"):
        verify(model, path, (BATCH[:2], BATCH[:2]), name="model.onnx", dynamic=False)
    file = onnx.load(path)
    relu = next(node for node in file.graph.node if node.op_type == "Relu")
    file.graph.output.append(onnx.ValueInfoProto(name=relu.output[0]))
    with pytest.raises(ExportMismatch, match="the file has 2 outputs where 1 tensors are returned"):
        against(model, file, tmp_path)


def test_a_model_that_takes_no_batch_is_told_with_its_reason(
    written: tuple[nn.Module, Path],
) -> None:
    model, path = written
    narrow = torch.zeros(2, BATCH.shape[1] + 1, *BATCH.shape[2:])
    with pytest.raises(ModelError, match=r"the model does not take its example inputs: .*channels"):
        verify(model, path, narrow, name="model.onnx", dynamic=False)
    message = r"takes no two sizes of it \(.*channels.*\); set export\.dynamic_batch = false"
    with pytest.raises(ModelError, match=message):
        verify(model, path, narrow, name="model.onnx", dynamic=True)
