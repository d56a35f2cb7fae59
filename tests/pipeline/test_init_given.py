"""What ``trt-qat init`` finds out about data: channels, classes, sizes, and what is not there."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trt_qat.errors import DataError, InputError
from trt_qat.pipeline.init_code import npz_data
from trt_qat.pipeline.init_given import Facts, of_folder, of_npz


def image(path: Path, mode: str = "RGB", values: tuple[int, ...] = (0,)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.resize(np.array(values, np.uint8), (4, 4) if mode == "L" else (4, 4, 3))
    Image.fromarray(pixels, mode=None).save(path)


def test_classes_are_folders(tmp_path: Path) -> None:
    for name in ("cat", "dog", "eel"):
        for at in range(5):
            image(tmp_path / name / f"{at}.png", "L")
    assert of_folder(tmp_path, "classification") == Facts(1, 3, samples=12)


def test_one_folder_is_no_choice_of_classes(tmp_path: Path) -> None:
    image(tmp_path / "cat" / "0.png")
    with pytest.raises(DataError, match="1 folders of classes; classification takes a folder of"):
        of_folder(tmp_path, "classification")


def test_an_image_that_cannot_be_read_is_taken_for_one_of_colours(tmp_path: Path) -> None:
    image(tmp_path / "cat" / "0.png", "L")
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "0.png").write_bytes(b"no image")
    assert of_folder(tmp_path, "classification").channels == 3


@pytest.mark.parametrize(
    ("values", "facts"),
    [((0, 255), Facts(3, 2, black_and_white=True, samples=0)),
     ((0, 3, 255), Facts(3, 4, samples=0)), ((255,), Facts(3, 2, samples=0))],
)  # fmt: skip
def test_the_values_of_masks_are_classes(
    tmp_path: Path, values: tuple[int, ...], facts: Facts
) -> None:
    image(tmp_path / "images" / "a.png")
    image(tmp_path / "masks" / "a.png", "L", values)
    assert of_folder(tmp_path, "segmentation") == facts


def test_a_mask_that_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    image(tmp_path / "train" / "images" / "a.png")
    (tmp_path / "train" / "masks").mkdir()
    (tmp_path / "train" / "masks" / "a.png").write_bytes(b"no image")
    assert of_folder(tmp_path, "segmentation") == Facts(3, 2, samples=1)


def test_a_task_of_the_users_own_takes_a_function(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="with --task own give module:function, which knows your"):
        of_folder(tmp_path, "own")


def test_a_folder_of_no_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images; embedding takes images, below train/"):
        of_folder(tmp_path, "embedding")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"annotations\.json is not there; detection takes images/"):
        of_folder(tmp_path, "detection")


@pytest.mark.parametrize(
    ("task", "targets", "answers"),
    [
        ("classification", np.array([0, 4] * 5), 5),
        ("segmentation", np.full((10, 8, 8), 255), 1),
        ("regression", np.zeros((10, 2, 3)), 6),
        ("embedding", np.zeros((10, 2)), None),
        ("classification", None, None),
    ],
)
def test_arrays_tell_how_many_answers_there_are(
    tmp_path: Path, task: str, targets: Any, answers: int | None
) -> None:
    arrays = {"images": np.zeros((10, 3, 8, 8), np.float32)}
    arrays |= {} if targets is None else {"labels": targets}
    np.savez(tmp_path / "d.npz", **arrays)  # type: ignore[arg-type]
    facts, _ = of_npz(tmp_path / "d.npz", task)
    assert (facts.answers, facts.channels, facts.size, facts.samples) == (answers, 3, 8, 8)


@pytest.mark.parametrize(
    ("images", "facts"),
    [
        (np.zeros((10, 8, 8, 3), np.uint8), (3, 8)),  # channels last
        (np.zeros((10, 8, 6, 1), np.float32), (1, None)),
        (np.zeros((10, 8, 8), np.uint8), (1, 8)),  # grey, without an axis for it
        (np.zeros((10, 8, 8), np.float32), (None, None)),  # of what, nobody knows
        (np.zeros((10, 5), np.float32), (None, None)),
    ],
)
def test_images_are_laid_out_in_any_way_that_the_help_names(
    tmp_path: Path, images: Any, facts: tuple[int | None, int | None]
) -> None:
    np.savez(tmp_path / "d.npz", images=images, labels=np.arange(10) % 2)
    found, keys = of_npz(tmp_path / "d.npz", "classification")
    assert (found.channels, found.size) == facts
    (tmp_path / "data.py").write_text(npz_data(tmp_path / "d.npz", keys, tmp_path))
    read = runpy.run_path(str(tmp_path / "data.py"))["data"]("train")
    assert len(read) == found.samples
    if found.channels is not None:
        assert read[0][0].shape[0] == found.channels
        assert read[0][0].dtype == np.float32


def test_arrays_of_other_names_are_listed(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", pictures=np.zeros(1), answers=np.zeros(1))
    with pytest.raises(DataError, match=r"d\.npz: holds answers, pictures; "):
        of_npz(tmp_path / "d.npz", "classification")
