"""Ordinary lines of forward, and ordinary inputs, for which no part of a model is given up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import trt_qat as tq
from tests.qat.agreement import worst_error
from tests.qat.own_code import Asserting

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Base(nn.Module):
    """Two convolutions and a head, with one line of the user's in their middle."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 32, 3, 1, 1), nn.Conv2d(32, 32, 3, 1, 1)
        self.head = nn.Conv2d(32, 8, 1)

    def middle(self, x: Tensor) -> Tensor:
        return x.relu()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.b(self.middle(self.a(x))))
        return y


class ModuleMadeInForward(Base):
    def middle(self, x: Tensor) -> Tensor:
        return nn.ReLU()(x)  # type: ignore[no-any-return]


class ItemAssignment(Base):
    def middle(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[:, ::2] = y[:, ::2].relu()
        return y


class TensorOfASize(Base):
    def middle(self, x: Tensor) -> Tensor:
        return x.relu() / torch.sqrt(torch.tensor(x.shape[1]))


class MemberByName(Base):
    def middle(self, x: Tensor) -> Tensor:
        kept = torch.topk(x.flatten(2), 16, dim=2)
        largest = x.flatten(2).gather(2, kept.indices).amax(2) + kept.values.mean(2)
        return (x + largest[..., None, None] + x.max(1, keepdim=True).values).relu()


class MaskWrittenInParts(Base):
    """As that of Swin's shifted windows: nothing of it is an activation."""

    def middle(self, x: Tensor) -> Tensor:
        mask = x.new_zeros(x.shape[2:])
        for value, part in enumerate((slice(0, -7), slice(-7, -3), slice(-3, None))):
            mask[part] = value
        return (x * (mask == 1)).relu()


KINDS = [ModuleMadeInForward, ItemAssignment, TensorOfASize, MemberByName, MaskWrittenInParts]


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_traced_whole(kind: type[Base], tmp_path: Path) -> None:
    net = kind().eval()
    want = net(IMAGES)
    model = tq.quantize(net, [IMAGES])
    report = tq.report_of(model)
    assert report.untraced == ()
    assert [note.name for note in report.quantized] == ["a", "b"]
    assert float((model(IMAGES) - want).abs().max()) < 0.1 * float(want.abs().max())
    path = tq.export(model, IMAGES, tmp_path / "model.onnx")
    assert worst_error(model, IMAGES, path) <= 1e-3


def test_a_batch_size_made_a_tensor_is_not_burnt_in() -> None:
    class Mean(Base):
        def middle(self, x: Tensor) -> Tensor:
            return x.relu() / torch.tensor(x.shape[0])

    report = tq.report_of(tq.quantize(Mean().eval(), [IMAGES]))
    assert "holds for one batch size" in report.untraced[0].why


def test_a_batch_size_that_cuts_is_not_burnt_in() -> None:
    """A smaller batch than the traced one does not show it: ``x[:2]`` is all of its samples."""

    class Cut(Base):
        def middle(self, x: Tensor) -> Tensor:
            return x.relu()[: int(x.shape[0])]

    model = tq.quantize(Cut().eval(), [IMAGES])
    assert "holds for one batch size" in tq.report_of(model).untraced[0].why
    many = torch.cat([IMAGES] * 4)
    assert len(model(many)) == len(many)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_a_batch_size_at_which_code_turns_is_not_burnt_in(size: int) -> None:
    class Turns(Base):
        def middle(self, x: Tensor) -> Tensor:
            x = x.relu()
            return x - x.mean(0, keepdim=True) if x.shape[0] >= 4 else x

    float_model = Turns().eval()
    given = torch.randn(size, 3, 16, 16)
    wanted = float_model(given)
    model = tq.quantize(float_model, [torch.randn(8, 3, 16, 16)])
    assert float((model(given) - wanted).norm()) < 0.05 * float(wanted.norm())


def test_images_that_code_pads_to_multiples_are_not_burnt_in() -> None:
    class Padded(Base):
        def forward(self, x: Tensor) -> Tensor:
            below, right = -x.shape[2] % 16, -x.shape[3] % 16
            return super().forward(
                nn.functional.pad(x, (0, right, 0, below)) if below or right else x
            )

    model = tq.quantize(Padded().eval(), [IMAGES])
    for side in (16, 24, 40):
        whole = -(-side // 16) * 16
        assert model(torch.randn(2, 3, side, side)).shape == (2, 8, whole, whole)


@pytest.mark.parametrize("length", [32, 64, 80])
def test_a_length_that_cuts_is_not_burnt_in(length: int) -> None:
    """Rows are padded to whole windows and cut again: a shorter sequence does not show the cut."""

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv1d(16, 16, 3, padding=1), nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            rows = int(x.shape[1])
            x = nn.functional.pad(x, (0, 0, 0, -rows % 16))
            x = self.a(x.transpose(1, 2)).relu().transpose(1, 2)
            made: Tensor = self.b(x[:, :rows])
            return made

    model = tq.quantize(Windows().eval(), [torch.randn(4, 64, 16)])
    assert model(torch.randn(4, length, 16)).shape == (4, length, 16)


def test_a_list_of_images_is_quantized_and_exported(tmp_path: Path) -> None:
    class Each(Base):
        def forward(self, images: list[Tensor]) -> list[Tensor]:  # type: ignore[override]
            return [self.head(self.b(self.a(image).relu())) for image in images]

    batch = ([IMAGES, 2 * IMAGES],)
    model = tq.quantize(Each().eval(), [batch])
    assert tq.report_of(model).untraced == ()
    path = tq.export(model, batch, tmp_path / "model.onnx")
    assert len(tq.preflight(path).layers) == 6


def test_a_mask_that_is_left_out_when_run_and_there_when_exported(tmp_path: Path) -> None:
    """transformers drops an attention mask of ones, but not under torch.export."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(32, 32), nn.Linear(32, 32)

        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            y: Tensor = self.b(self.a(x).relu())
            return y if mask is None else y * mask

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two, self.head = Layer(), Layer(), nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            mask: Tensor | None = torch.ones(x.shape[:2])[..., None]
            if not torch.compiler.is_compiling() and bool((mask == 1).all()):  # type: ignore[union-attr]
                mask = None
            y: Tensor = self.head(self.two(self.one(x, mask), mask))
            return y

    tokens = torch.randn(2, 8, 32)
    model = tq.quantize(Net().eval(), [tokens])
    path = tq.export(model, tokens, tmp_path / "model.onnx")
    assert [layer.precision for layer in tq.preflight(path).layers].count("int8") == 4
    assert worst_error(model, tokens, path) <= 1e-3


def test_a_tensor_named_as_a_method_of_modules_is_quantized() -> None:
    class Cast(Base):
        """``x.to(...)`` is a site of its own where another operation reads what it makes."""

        def forward(self, x: Tensor) -> Tensor:
            y = self.b(self.a(x.to(self.a.weight.dtype)).relu())
            y = self.head(y)
            return y if self.training else y.softmax(1)  # type: ignore[no-any-return]

    model = tq.quantize(Cast().eval(), [IMAGES])
    assert [note.name for note in tq.report_of(model).quantized] == ["a", "b"]


@pytest.mark.parametrize("seed", [6, 7])
def test_code_that_torch_reads_by_bytecode_is_compared_at_each_pair(
    seed: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """An assertion on data: torch.onnx falls back to the strict mode, whose names are its own."""

    net = Asserting().eval()
    torch.manual_seed(seed)
    for parameter in net.parameters():
        nn.init.uniform_(parameter, -0.2, 0.2)
    model = tq.quantize(net, [IMAGES])
    path = tq.export(model, IMAGES, tmp_path / "model.onnx")
    assert not any("__dict__" in layer.name for layer in tq.preflight(path).layers)
    assert "def forward" not in capfd.readouterr().err
