"""Data of the user's own: folders of images, .npz files and functions that yield batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.data.test_builtin import SMALL, assert_disjoint
from trt_qat.data import load
from trt_qat.errors import DataError, RecipeError
from trt_qat.recipe.specs import DataSpec

HERE = "tests.data.test_sources"

# Folders of images


def write_images(folder: Path, classes: int, count: int, size: int = 6, mode: str = "L") -> None:
    random = np.random.default_rng(abs(hash(folder.name)) % 1000)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for index in range(count):
            shape = (size, size) if mode == "L" else (size, size, 3)
            pixels = random.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{index}.png")


def test_a_folder_of_classes_is_split_the_same_way_every_time(tmp_path: Path) -> None:
    write_images(tmp_path, 2, 20)
    spec = DataSpec(source=str(tmp_path))
    data = load(spec, SMALL)
    assert data.train.shape == (1, 6, 6)
    assert len(data.test) == 8
    assert load(spec, SMALL).digest == data.digest
    assert_disjoint(data)


def test_a_folder_with_train_and_test_keeps_that_split(tmp_path: Path) -> None:
    write_images(tmp_path / "train", 2, 20, mode="RGB")
    write_images(tmp_path / "test", 2, 5, mode="RGB")
    data = load(DataSpec(source=str(tmp_path)), SMALL)
    assert data.test.shape == (3, 6, 6)
    assert len(data.test) == 10


def test_images_are_resized_and_converted_as_the_recipe_says(tmp_path: Path) -> None:
    write_images(tmp_path, 2, 20, mode="RGB")
    data = load(DataSpec(source=str(tmp_path), size=4, channels=1), SMALL)
    assert data.train.shape == (1, 4, 4)


def test_images_that_cannot_be_read_are_left_out_up_to_a_limit_and_listed(tmp_path: Path) -> None:
    write_images(tmp_path, 2, 20)
    broken = tmp_path / "class1" / "7.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(DataError, match=r"7\.png: cannot be read as an image"):
        load(DataSpec(source=str(tmp_path)), SMALL)
    few = DataSpec(source=str(tmp_path), corrupt=0.05)
    with pytest.warns(UserWarning, match=r"1 of 40 images cannot be read \(class1/7\.png\); they"):
        data = load(few, SMALL)
    assert sum(len(part) for part in data.parts()) == 39
    assert data.facts["left_out"] == ["class1/7.png"]
    for at in range(3):
        (tmp_path / "class0" / f"{at}.png").write_bytes(b"no image")
    said = r"4 of 40 images .*class0/0\.png, class0/1\.png.*data\.corrupt permits 5\.00%; mend or"
    with pytest.raises(DataError, match=said):
        load(few, SMALL)


def test_a_class_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path, 2, 20)
    for path in (tmp_path / "class1").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"20 of 40 images .* and others.*a whole class among them"):
        load(DataSpec(source=str(tmp_path), corrupt=0.9), SMALL)


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, 2, 3)
    (tmp_path / "class2").mkdir()
    with pytest.raises(DataError, match=r"class2: no images; allowed: .*\.png"):
        load(DataSpec(source=str(tmp_path)))


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0 class folders; a data set needs one folder per class"):
        load(DataSpec(source=str(tmp_path)))


def test_images_of_different_size_are_refused_with_the_key_that_mends_it(tmp_path: Path) -> None:
    write_images(tmp_path, 2, 3)
    Image.new("L", (9, 9)).save(tmp_path / "class1" / "odd.png")
    with pytest.raises(DataError, match=r"odd.png: \(1, 9, 9\), but .* set data.size"):
        load(DataSpec(source=str(tmp_path)))


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, 2, 3)
    (tmp_path / "class0" / "bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad.png: cannot be read as an image"):
        load(DataSpec(source=str(tmp_path)))


def test_a_test_class_that_is_not_trained_on_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "train", 2, 3)
    write_images(tmp_path / "test", 3, 3)
    with pytest.raises(DataError, match=r"class 'class2' has no folder in .*train"):
        load(DataSpec(source=str(tmp_path)))


# .npz files


def arrays(count: int = 40) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, 5, 5), dtype=np.uint8)
    return {"images": pixels, "labels": np.arange(count) % 2}


def save(path: Path, **content: NDArray[Any]) -> DataSpec:
    np.savez(path, allow_pickle=True, **content)
    return DataSpec(source=str(path))


def test_an_npz_of_images_and_labels_is_split(tmp_path: Path) -> None:
    data = load(save(tmp_path / "set.npz", **arrays()), SMALL)
    assert data.train.shape == (1, 5, 5)
    assert data.train.images.max() <= 1.0
    assert_disjoint(data)


def test_an_npz_with_a_test_split_keeps_it(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((40, 5, 5, 3), dtype=np.float32)
    labels = np.arange(40) % 2
    spec = save(
        tmp_path / "set.npz",
        x_train=images[:30],
        y_train=labels[:30],
        x_test=images[30:],
        y_test=labels[30:],
    )
    data = load(spec, SMALL)
    assert data.test.shape == (3, 5, 5)
    assert data.test.images[0] == pytest.approx(images[30].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((40, 5))}, r"images have shape \(40, 5\)"),
        ({"images": np.zeros((40, 5, 5), int)}, r"images are int64; allowed: uint8"),
        ({"images": np.full((40, 5, 5), np.nan)}, r"train: 40 images with NaN or infinity"),
        ({"labels": np.zeros(39, int)}, r"train: 40 images but 39 labels"),
        ({"labels": np.zeros(40)}, r"labels are float64 of shape \(40,\); allowed: integers"),
        ({"labels": np.full(40, -1)}, r"train: label -1; classes count from 0"),
        ({"images": np.zeros((0, 5, 5)), "labels": np.zeros(0, int)}, r"train: no images"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path,
    change: dict[str, NDArray[Any]],
    message: str,
) -> None:
    spec = save(tmp_path / "set.npz", **(arrays() | change))
    with pytest.raises(DataError, match=message):
        load(spec, SMALL)


def test_an_npz_with_other_keys_is_refused_with_the_keys_it_needs(tmp_path: Path) -> None:
    spec = save(tmp_path / "set.npz", pictures=np.zeros(3))
    with pytest.raises(DataError, match=r"holds pictures; an .npz holds x_train and y_train"):
        load(spec)


def test_an_npz_without_labels_is_refused(tmp_path: Path) -> None:
    spec = save(tmp_path / "set.npz", images=np.zeros((3, 4, 4)))
    with pytest.raises(DataError, match=r"images without labels"):
        load(spec)


def test_a_damaged_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    path.write_bytes(b"PK not really")
    with pytest.raises(DataError, match=r"set.npz: cannot be read as an .npz"):
        load(DataSpec(source=str(path)))


def test_pickles_in_an_npz_are_never_run(tmp_path: Path) -> None:
    spec = save(tmp_path / "set.npz", images=np.array([{}], dtype=object), labels=np.zeros(1, int))
    with pytest.raises(DataError, match=r"cannot be read as an .npz: .* holds Python objects"):
        load(spec)


# Functions that yield batches


def batches(part: str) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    random = np.random.default_rng(len(part))
    for _ in range(3):
        yield random.random((10, 1, 4, 4), dtype=np.float32), np.arange(10) % 2


def bad_batches(part: str) -> Iterator[NDArray[Any]]:
    yield np.zeros((10, 1, 4, 4), np.float32)


def no_batches(part: str) -> Iterator[NDArray[Any]]:
    yield from ()


def test_a_function_gives_its_own_train_and_test_split() -> None:
    data = load(DataSpec(source=f"{HERE}:batches"), SMALL)
    assert len(data.test) == 30
    assert_disjoint(data)


def test_a_module_beside_the_recipe_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "my_shop.py").write_text("from tests.data.test_sources import batches\n")
    data = load(DataSpec(source="my_shop:batches"), SMALL, base=tmp_path)
    assert len(data.test) == 30


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (
            "tests.data.test_sources:bad_batches",
            DataError,
            r"yielded ndarray; a batch is \(images, labels",
        ),
        (f"{HERE}:no_batches", DataError, r"no_batches\('train'\) yielded nothing"),
        (f"{HERE}:batchs", RecipeError, r"has no 'batchs'; nearest: '\w*batch\w*'"),
        (
            "tests.test_data_source:batches",
            RecipeError,
            r"no module 'tests.test_data_source' in the recipe's",
        ),
        (
            "tests.data.test_sources:SMALL",
            RecipeError,
            r"is CalibrationSpec; it must be a function",
        ),
        (f"{HERE}:", RecipeError, r"an import path is package.module:function"),
        ("digit", DataError, r"allowed: digits, fashion-mnist \(nearest: digits\), a folder"),
    ],
)
def test_a_source_that_gives_no_data_is_refused(
    source: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load(DataSpec(source=source), SMALL)
