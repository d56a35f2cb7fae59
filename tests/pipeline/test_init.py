"""``trt-qat init`` writes a project of the user's: it reads the data, makes the network, runs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.runs import command_line
from trt_qat.errors import InputError
from trt_qat.pipeline.init import WORKFLOW, Asked, engine_name, init
from trt_qat.pipeline.init_code import TASKS
from trt_qat.recipe.load import load_recipe
from trt_qat.recipe.named import check_named
from trt_qat.recipe.schema import recipe_schema

ROOT = Path(__file__).parents[2]
FILES = {
    *("model.py", "data.py", "engines/mine.toml", "engines/recipe.schema.json"),
    *("calibration/mine.toml", "README.md", WORKFLOW, ".gitignore"),
}

NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Conv2d(16, 2, 1)
    def forward(self, x):
        return self.head(self.b(self.a(x).relu()).relu())
"""


def loaded(project: Path, name: str) -> Any:
    """Return a module of a project, under a name of no other test's."""
    names: dict[str, Any] = {"__file__": str(project / f"{name}.py"), "__name__": name}
    exec(compile((project / f"{name}.py").read_text(), names["__file__"], "exec"), names)
    return names


def picture(path: Path, colour: Any, mode: str = "RGB", size: int = 20) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (size, size), colour).save(path)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder that the user is in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("task", TASKS)
def test_a_project_of_every_task_is_whole_and_its_code_is_clean(line: Path, task: str) -> None:
    made = init(line / "mine", Asked(task))
    assert {path.relative_to(line / "mine").as_posix() for path in made} == FILES
    recipe = load_recipe(line / "mine" / "engines" / "mine.toml")
    check_named(recipe)
    assert recipe.spec.task.kind == task
    assert json.loads((line / "mine/engines/recipe.schema.json").read_text()) == recipe_schema()
    ruff = [sys.executable, "-m", "ruff", "--config", str(ROOT / "pyproject.toml")]
    for order in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [*ruff[:3], *order, *ruff[3:], "--no-cache", str(line / "mine")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("task", TASKS)
def test_the_network_takes_what_the_data_gives(line: Path, task: str) -> None:
    import torch

    from trt_qat.data import load as load_data
    from trt_qat.qat.losses import loss_of
    from trt_qat.qat.tensors import as_tensors

    init(line / "mine", Asked(task))
    recipe = load_recipe(line / "mine" / "engines" / "mine.toml")
    spec = recipe.spec
    try:
        data = load_data(spec.data, spec.calibration, recipe.folder, spec.task)
        inputs, targets = next(iter(data.test.batches(4)))
        outputs = loaded(line / "mine", "model")["model"]().eval()(as_tensors(inputs))
        if task == "embedding":
            assert targets is None
            targets = outputs["embedding"].detach().numpy()
        loss = loss_of(spec.task, recipe.folder)(outputs, as_tensors(targets))
        assert torch.isfinite(loss)
    finally:
        for name in ("model", "data"):
            sys.modules.pop(name, None)


def test_a_folder_of_classes_is_read_and_sizes_the_network(line: Path) -> None:
    for at in range(10):
        picture(line / "photos" / ("cat", "dog", "owl")[at % 3] / f"{at}.png", (at, 0, 255))
    init("mine", Asked(data="photos"))
    data = loaded(line / "mine", "data")["data"]
    assert (len(data("train")), len(data("test"))) == (8, 2)
    image, label = data("train")[7]
    assert (image.shape, image.dtype, image[2].max()) == ((3, 64, 64), np.float32, 1.0)
    assert label == 2
    assert "CHANNELS, CLASSES = 3, 3" in (line / "mine" / "model.py").read_text()
    recipe = load_recipe(line / "mine" / "engines" / "mine.toml")
    assert recipe.spec.calibration.samples == 2, "a quarter of what is trained on"


def test_masks_that_are_black_and_white_are_two_classes(line: Path) -> None:
    for part in ("train", "test"):
        picture(line / "scans" / part / "images" / "a.png", 7, "L")
        picture(line / "scans" / part / "masks" / "a.png", 0, "L")
    with Image.open(line / "scans/train/masks/a.png") as mask:
        mask.putpixel((10, 10), 255)
        mask.save(line / "scans/train/masks/a.png")
    init("mine", Asked("segmentation", data="scans"))
    image, mask = loaded(line / "mine", "data")["data"]("train")[0]
    assert (image.shape, mask.shape, set(np.unique(mask))) == ((1, 64, 64), (64, 64), {0, 1})
    assert "CHANNELS, CLASSES = 1, 2" in (line / "mine" / "model.py").read_text()


def test_boxes_of_coco_are_scaled_with_the_image(line: Path) -> None:
    picture(line / "street" / "images" / "a.jpg", (1, 2, 3), size=128)
    told = {
        "categories": [{"id": 9, "name": "car"}, {"id": 4, "name": "sign"}],
        "images": [{"id": 1, "file_name": "a.jpg", "width": 128, "height": 128}],
        "annotations": [{"image_id": 1, "category_id": 4, "bbox": [20, 40, 60, 80]}],
    }
    (line / "street" / "annotations.json").write_text(json.dumps(told))
    init("mine", Asked("detection", data="street"))
    _, target = loaded(line / "mine", "data")["data"]("test")[0]
    assert target["boxes"].tolist() == [[10, 20, 40, 60]]
    assert target["labels"].tolist() == [1]


def test_numbers_of_a_table_are_targets(line: Path) -> None:
    for name in ("a", "b"):
        picture(line / "faces" / "images" / f"{name}.png", 1, "L")
    (line / "faces" / "targets.csv").write_text("a.png,0.5,2\nb.png,1,3\n")
    init("mine", Asked("regression", data="faces"))
    assert loaded(line / "mine", "data")["data"]("train")[0][1].tolist() == [1, 3]


def test_arrays_of_a_file_are_read_and_size_the_network(line: Path) -> None:
    random = np.random.default_rng(0)
    np.savez(
        "set.npz",
        x_train=random.integers(0, 255, (10, 3, 8, 8), np.uint8),
        y_train=np.arange(10) % 5,
    )
    init("mine", Asked(data="set.npz"))
    data = loaded(line / "mine", "data")["data"]
    assert (len(data("train")), len(data("test"))) == (8, 2)
    assert data("train")[0][0].max() <= 1
    assert "CHANNELS, CLASSES = 3, 5" in (line / "mine" / "model.py").read_text()


def test_a_network_and_data_of_the_users_are_imported_from_where_they_lie(line: Path) -> None:
    (line / "mynet.py").write_text(NETWORK)
    (line / "mydata.py").write_text("def scans(part):\n    return [part]\n")
    torch_file = line / "net.pt"
    torch_file.write_bytes(b"")
    init("mine", Asked("segmentation", "mynet:Net", "mydata:scans", str(torch_file)))
    assert loaded(line / "mine", "data")["data"]("test") == ["test"]
    assert type(loaded(line / "mine", "model")["model"]()).__name__ == "Net"
    recipe = load_recipe(line / "mine" / "engines" / "mine.toml")
    assert recipe.spec.model.weights is not None
    assert (recipe.folder / recipe.spec.model.weights).resolve() == torch_file
    check_named(recipe)


def test_a_project_around_code_that_is_there_leaves_it_alone(line: Path) -> None:
    (line / "model.py").write_text(NETWORK)
    made = init(".", Asked("segmentation", "model:Net"))
    assert "model.py" not in {path.name for path in made}
    assert (line / "model.py").read_text() == NETWORK
    name = engine_name(line)
    assert load_recipe(line / "engines" / f"{name}.toml").spec.model.factory == "model:Net"


@pytest.mark.parametrize("task", ["detection", "own"])
def test_what_only_the_user_can_write_says_so(line: Path, task: str) -> None:
    (line / "mynet.py").write_text(NETWORK)
    init("mine", Asked(task, "mynet:Net"))
    with pytest.raises(NotImplementedError, match=r"write the loss of your network in model\.py"):
        loaded(line / "mine", "model")["loss"](None, None)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked("segmantation"), r"--task segmantation: no such task; did you mean 'segmentation'"),
        (Asked(model="mynet"), r"--model mynet: give an import path, package.module:name"),
        (Asked(model="nowhere:Net"), r"--model = 'nowhere:Net': no module 'nowhere'"),
        (Asked(data="nowhere"), r"--data nowhere: no such folder; allowed: a folder, an .npz"),
        (Asked(data="empty"), r"--data empty: no images; classification takes a folder of images"),
        (Asked("segmentation", data="empty"), r"empty/images is not there; .* takes images/ and m"),
        (Asked("own", data="empty"), r"with --task own give module:function"),
        (Asked(data="no.npz"), r"no.npz: cannot be read as an .npz: No such"),
        (Asked(weights="no.pt", model="mynet:Net"), r"--weights no.pt: cannot be read: no such"),
        (Asked(weights="mynet.py"), r"--weights is of a network of yours: give --model"),
        (Asked(model="mynet:Nat"), r"module 'mynet' has no 'Nat'; nearest: 'Net'"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(
    line: Path, asked: Asked, message: str
) -> None:
    (line / "mynet.py").write_text(NETWORK)
    (line / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        init("mine", asked)
    assert not (line / "mine").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(InputError, match=r"already has README.md; give another folder"):
        init(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert not (tmp_path / "model.py").exists()


def test_a_file_is_no_place_for_a_project(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file is a file; give a folder"):
        init(tmp_path / "file")


def test_the_command_prints_the_files_and_what_to_run_next(tmp_path: Path) -> None:
    done = command_line("init", "mine", cwd=tmp_path)
    assert done.returncode == 0
    assert "mine/engines/mine.toml\n" in done.stdout
    assert "next: cd mine && trt-qat run mine\n" in done.stderr
    planned = command_line("run", "mine", "--dry-run", cwd=tmp_path / "mine")
    assert "train" in planned.stdout, planned.stderr


def test_on_a_terminal_it_asks_and_a_wrong_answer_is_asked_again(tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "trt_qat", "init", "mine"],
        cwd=tmp_path,
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    ) as process:
        os.write(controller, b"regresion\nregression\n\n\n")
        process.communicate(timeout=60)
    os.close(terminal)
    said = os.read(controller, 65536).decode()
    os.close(controller)
    assert process.returncode == 0, said
    assert "did you mean 'regression'" in said
    assert 'kind = "regression"' in (tmp_path / "mine" / "engines" / "mine.toml").read_text()


def test_the_workflow_runs_commands_that_there_are(tmp_path: Path) -> None:
    init(tmp_path / "mine")
    steps = yaml.safe_load((tmp_path / "mine" / WORKFLOW).read_text())["jobs"]["verify"]["steps"]
    ours = [step["run"].split("trt-qat ")[-1] for step in steps if "trt-qat run" in str(step)]
    assert "run mine" in ours
    recipe = (tmp_path / "mine" / "engines" / "mine.toml").read_text()
    assert recipe.startswith("#:schema recipe.schema.json\n")


@pytest.mark.parametrize("folder", ["engines", "calibration", "benchmarks"])
def test_the_recipe_folders_hold_no_code(folder: str) -> None:
    assert list((ROOT / folder).glob("*.py")) == [] or folder == "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_project_reaches_a_verified_onnx_as_it_stands(tmp_path: Path, task: str) -> None:
    init(tmp_path / "mine", Asked(task))
    done = subprocess.run(
        [sys.executable, "-m", "trt_qat", "run", "mine"],
        cwd=tmp_path / "mine",
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = json.loads((tmp_path / "mine/runs/mine/manifest.json").read_text())
    assert manifest["verdict"]["state"] == "onnx-verified"
