"""What users get wrong in data, loss and metrics of their own: one sentence, no traceback."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trt_qat.errors import InputError
from trt_qat.pipeline.merge import merge
from trt_qat.pipeline.remember import remembered
from trt_qat.pipeline.run import run

MODULE = '''
import numpy as np, torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        first, inner, last = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.body = nn.Sequential(first, nn.ReLU(), inner, nn.ReLU(), last)
    def forward(self, x):
        return self.body(x)

class Pair(Net):
    """The judged output is the second."""
    def forward(self, x):
        return x.sum(1), super().forward(x)

class Seg(nn.Module):
    def __init__(self):
        super().__init__()
        first, inner, last = nn.Conv2d(1, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 3, 1)
        self.body = nn.Sequential(first, nn.ReLU(), inner, nn.ReLU(), last)
    def forward(self, x):
        return self.body(x)

class Set:
    def __init__(self, x, y):
        self.x, self.y = x, y
    def __len__(self):
        return len(self.x)
    def __getitem__(self, at):
        return self.x[at], self.y[at]

def arrays(part):
    random = np.random.default_rng(part == "test")
    x = random.normal(size=(64 if part == "test" else 160, 8)).astype("float32")
    return x, (x[:, 0] > 0).astype("int64") + (x[:, 1] > 0)

def data(part):
    return Set(*arrays(part))

def same(part):
    return data("train")

def labels_of_one_to_three(part):
    x, y = arrays(part)
    return Set(x, y + 1)

def negative(part):
    x, y = arrays(part)
    return Set(x, y - 1)

def nan_targets(part):
    x, y = arrays(part)
    targets = x[:, :3].copy()
    targets[5] = np.nan
    return Set(x, targets)

def several_shapes(part):
    x, y = arrays(part)
    return Set([row[: 7 + at % 2] for at, row in enumerate(x)], y)

def nothing(part):
    return None

def two_arguments(part, other):
    return None

def one_by_one(part):
    return zip(*arrays(part))

def uneven(part):
    x, y = arrays(part)
    for at in range(0, len(x), 16):
        yield x[at : at + 16], y[at : at + 15]

def breaks(part):
    yield tuple(array[:16] for array in arrays(part))
    raise OSError("truncated")

def ignored(part):
    random = np.random.default_rng(part == "test")
    x = random.normal(size=(64, 1, 8, 8)).astype("float32")
    return Set(x, np.full((64, 8, 8), 255))

def stream(part):
    x, y = arrays(part)
    for at in range(0, len(x), 16):
        yield torch.tensor(x[at : at + 16]), torch.tensor(y[at : at + 16])

def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets)

def no_gradient(outputs, targets):
    return loss(outputs.detach(), targets)

def right(outputs, targets):
    return (outputs.argmax(1) == targets).float()

def leaves(outputs, targets):
    raise SystemExit(3)

def no_box(outputs):
    raise IndexError("no box")
'''

RECIPE = """
name = "t"
[model]
factory = "mistakes:{model}"
[data]
source = "mistakes:{data}"
[task]
{task}
[calibration]
samples = 32
[sparsity]
enabled = false
[train]
epochs = 8
batch_size = 16
lr = 1e-2
[finetune]
epochs = 1
batch_size = 16
[build]
backend = "tensorrt"
[tolerances]
accuracy_loss = 1.0
"""

CLASSES = 'kind = "classification"'
OWN = 'kind = "own"\nloss = "mistakes:{}"\nmetrics = "mistakes:{}"'


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "mistakes.py").write_text(MODULE)
    yield tmp_path
    sys.modules.pop("mistakes", None)


def written(project: Path, *, data: str = "data", task: str = CLASSES, model: str = "Net") -> Path:
    path = project / "t.toml"
    path.write_text(RECIPE.format(model=model, data=data, task=task))
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "same"}, "training and test samples are the same"),
        ({"data": "labels_of_one_to_three"}, r"hold label 3, and the model answers 3 classes"),
        ({"data": "negative"}, r"hold label -1, .* 0 to 2 are allowed"),
        ({"data": "several_shapes"}, r"inputs of several shapes, .* task.collate"),
        ({"data": "nothing"}, r"nothing\('train'\) failed: .*not iterable"),
        ({"data": "two_arguments"}, r"two_arguments\('train'\) failed: TypeError"),
        ({"data": "one_by_one"}, r"yields one sample at a time; yield batches"),
        ({"data": "uneven"}, r"uneven\('train'\): 15 targets for 16 samples"),
        ({"data": "breaks"}, r"breaks\('train'\) failed: OSError: truncated"),
        (
            {"data": "nan_targets", "task": 'kind = "regression"'},
            r"the targets of sample \d+ hold NaN or infinity",
        ),
        ({"task": OWN.format("no_gradient", "right")}, "a tensor without a gradient"),
        ({"task": OWN.format("loss", "leaves")}, r"mistakes:leaves' failed: SystemExit: 3"),
        (
            {"task": OWN.format("loss", "right") + '\ndecode = "mistakes:no_box"'},
            r"task.decode = 'mistakes:no_box' failed: IndexError: no box",
        ),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(
    project: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(written(project, **options), out=project / "run", until="train")


def test_a_test_set_of_ignored_pixels_is_no_score(project: Path) -> None:
    path = written(project, data="ignored", model="Seg", task='kind = "segmentation"')
    with pytest.raises(InputError, match="every pixel of the targets is"):
        run(path, out=project / "run", until="train")


def test_the_output_that_is_judged_need_not_be_the_first(project: Path) -> None:
    """And vectors in batches of a generator are data like any other, of classification too."""
    path = written(project, data="stream", model="Pair", task=f'{CLASSES}\noutput = "1"')
    result = run(path, out=project / "run", until="compare")
    assert result.failures == []
    scores = result.metrics
    assert scores["onnx"]["accuracy"] == pytest.approx(scores["qat"]["accuracy"], abs=0.02)
    assert scores["onnx"]["accuracy"] > 0.6


def test_a_recipe_that_was_moved_is_asked_for(project: Path, tmp_path: Path) -> None:
    folder = project / "run"
    run(written(project), out=folder, until="train")
    assert remembered(folder).recipe.spec.name == "t"
    (tmp_path / "elsewhere").mkdir()
    shutil.move(project / "t.toml", tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"its recipe lay at .*t\.toml and is not there any more"):
        remembered(folder)


def test_a_merge_into_a_folder_that_is_no_run_makes_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json: no such file"):
        merge(tmp_path / "nowhere", tmp_path)
    assert not (tmp_path / "nowhere").exists()
