"""Data is read whole or refused with a sentence, and its four parts never share an image."""

from __future__ import annotations

import gzip
import struct
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from trt_qat.backends import FASHION_FOLDER
from trt_qat.data import ArraySplit, Dataset, load
from trt_qat.data.idx import read_idx
from trt_qat.data.splits import stratified
from trt_qat.errors import DataError
from trt_qat.recipe.specs import CalibrationSpec, DataSpec

needs_fashion = pytest.mark.skipif(
    not FASHION_FOLDER.is_dir(), reason="Fashion-MNIST is absent: apt install dataset-fashion-mnist"
)
SMALL = CalibrationSpec(samples=4)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(DataSpec(source="digits"), CalibrationSpec(samples=128))


def split(count: int = 20, classes: int = 2, seed: int = 0) -> ArraySplit:
    images = np.random.default_rng(seed).random((count, 1, 4, 4), dtype=np.float32)
    return ArraySplit(images, np.arange(count) % classes, "train", np.arange(count))


def assert_disjoint(data: Dataset) -> None:
    for one, other in combinations(data.parts(), 2):
        assert not set(one.ids.tolist()) & set(other.ids.tolist()), (one.name, other.name)
    test = set(data.test.sample_digests or ())
    for part in (data.train, data.validation, data.calibration):
        assert not set(part.sample_digests or ()) & test, part.name


# digits


def test_digits_are_real_images_in_the_unit_range(digits: Dataset) -> None:
    assert digits.train.shape == (1, 8, 8)
    assert digits.train.images.dtype == np.float32
    assert 0.0 <= digits.train.images.min() < digits.train.images.max() == 1.0
    assert digits.classes == 10


def test_digits_hold_out_450_images_and_use_all_others(digits: Dataset) -> None:
    assert len(digits.test) == 450
    assert sum(len(part) for part in digits.parts()) + digits.dropped == 1797


def test_the_parts_of_digits_are_disjoint(digits: Dataset) -> None:
    assert_disjoint(digits)


def test_no_recipe_can_move_the_test_split_of_digits(digits: Dataset) -> None:
    other = load(DataSpec(source="digits", seed=9, validation=0.3), CalibrationSpec(samples=5))
    assert other.test.digest == digits.test.digest
    assert other.train.digest != digits.train.digest


def test_every_part_of_digits_has_every_class(digits: Dataset) -> None:
    for part in digits.parts():
        assert set(part.labels.tolist()) == set(range(10)), part.name


def test_the_seed_of_calibration_moves_only_what_is_calibrated_and_trained_on(
    digits: Dataset,
) -> None:
    other = load(DataSpec(source="digits"), CalibrationSpec(samples=128, seed=1))
    assert other.calibration.digest != digits.calibration.digest
    assert other.validation.digest == digits.validation.digest


def test_the_same_spec_gives_the_same_digest(digits: Dataset) -> None:
    again = load(DataSpec(source="digits"), CalibrationSpec(samples=128))
    assert again.digest == digits.digest
    assert again.facts == digits.facts


def test_more_calibration_samples_than_there_are_images_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"calibration.samples = 5000, but only \d+ images are left"
    ):
        load(DataSpec(source="digits"), CalibrationSpec(samples=5000))


@pytest.mark.parametrize("part", [0.0, 1.0])
def test_a_validation_part_of_nothing_or_everything_is_refused(part: float) -> None:
    with pytest.raises(DataError, match=r"data.validation = .* both sides need some"):
        load(DataSpec(source="digits", validation=part))


def test_a_path_for_digits_is_refused() -> None:
    with pytest.raises(DataError, match=r"digits comes with scikit-learn; leave the key out"):
        load(DataSpec(source="digits", path="somewhere"))


def test_mean_and_std_are_applied_to_every_part(digits: Dataset) -> None:
    spec = DataSpec(source="digits", mean=(0.5,), std=(0.25,))
    normalised = load(spec, CalibrationSpec(samples=128))
    assert normalised.test.images == pytest.approx((digits.test.images - 0.5) / 0.25)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mean": (0.1, 0.2)}, r"data.mean has 2 values for images of 1 channel"),
        ({"std": (0.0,)}, r"data.std = \[0.0\]; every value must be above 0"),
    ],
)
def test_a_mean_or_std_that_does_not_fit_is_refused(
    keys: dict[str, tuple[float, ...]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load(DataSpec(source="digits", **keys))  # type: ignore[arg-type]


# Fashion-MNIST and idx files


def write_idx(path: Path, array: np.ndarray) -> Path:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    data = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """A folder with the four files, two of them gzipped, as small as can be."""
    random = np.random.default_rng(0)
    for stem, count in (("train", 60), ("t10k", 20)):
        pixels = random.integers(0, 256, (count, 28, 28))
        write_idx(tmp_path / f"{stem}-images-idx3-ubyte.gz", pixels)
        write_idx(tmp_path / f"{stem}-labels-idx1-ubyte", np.arange(count) % 10)
    return tmp_path


def test_idx_files_are_read_gzipped_or_not(fashion: Path) -> None:
    data = load(DataSpec(source="fashion-mnist", path=str(fashion)), SMALL)
    assert data.train.shape == (1, 28, 28)
    assert len(data.test) == 20
    assert data.train.images.max() <= 1.0
    assert_disjoint(data)


def test_an_image_of_the_test_split_is_dropped_from_the_training_side(fashion: Path) -> None:
    pixels = read_idx(fashion / "t10k-images-idx3-ubyte.gz", 3)
    train = read_idx(fashion / "train-images-idx3-ubyte.gz", 3).copy()
    train[:3] = pixels[0]
    write_idx(fashion / "train-images-idx3-ubyte.gz", train)
    data = load(DataSpec(source="fashion-mnist", path=str(fashion)), SMALL)
    assert data.dropped == data.facts["train_images_also_in_test_dropped"] == 3
    assert_disjoint(data)


def test_training_on_the_test_split_itself_is_refused(fashion: Path) -> None:
    for kind in ("images-idx3-ubyte.gz", "labels-idx1-ubyte"):
        (fashion / f"train-{kind}").write_bytes((fashion / f"t10k-{kind}").read_bytes())
    with pytest.raises(DataError, match=r"every training image is also in the test split"):
        load(DataSpec(source="fashion-mnist", path=str(fashion)), SMALL)


def test_a_missing_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train-images.*\(apt install dataset-fashion-mnist\)"):
        load(DataSpec(source="fashion-mnist", path=str(tmp_path)))


def test_another_number_of_labels_than_images_is_refused(fashion: Path) -> None:
    write_idx(fashion / "train-labels-idx1-ubyte", np.zeros(59))
    with pytest.raises(DataError, match=r"60 images but 59 labels of train"):
        load(DataSpec(source="fashion-mnist", path=str(fashion)), SMALL)


def test_a_truncated_idx_file_is_refused(tmp_path: Path) -> None:
    path = write_idx(tmp_path / "labels", np.arange(10))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"says 10 bytes of shape \(10,\), but 9 follow"):
        read_idx(path, 1)


def test_an_idx_file_that_ends_in_its_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(bytes((0, 0, 8, 3, 0, 0, 0, 1)))
    with pytest.raises(DataError, match=r"the file is truncated or damaged"):
        read_idx(path, 3)


def test_a_truncated_gzip_file_is_refused(tmp_path: Path) -> None:
    path = write_idx(tmp_path / "labels.gz", np.arange(1000))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"labels.gz: cannot be read .*truncated or damaged"):
        read_idx(path, 1)


@pytest.mark.parametrize("content", [b"", b"\x00\x00\x0d\x03rest", b"PK\x03\x04zip"])
def test_a_wrong_magic_number_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"starts with .*; an idx file .* starts with 00000803"):
        read_idx(path, 3)


@needs_fashion
def test_fashion_mnist_is_the_official_split() -> None:
    data = load(DataSpec(source="fashion-mnist", validation=0.05))
    assert len(data.test) == 10_000
    assert sum(len(part) for part in data.parts()) + data.dropped == 70_000
    assert set(data.calibration.labels.tolist()) == set(range(10))
    assert_disjoint(data)


# Splits


def test_a_stratified_choice_keeps_the_classes_in_proportion() -> None:
    labels = np.array([0] * 80 + [1] * 20)
    rest, chosen = stratified(labels, 25, seed=0)
    assert sorted([*rest, *chosen]) == list(range(100))
    assert abs(int((labels[chosen] == 1).sum()) - 5) <= 1


@pytest.mark.parametrize("count", range(1, 12))
def test_a_stratified_choice_has_any_size(count: int) -> None:
    _, chosen = stratified(np.array([0, 1, 2] * 4), count, seed=3)
    assert len(set(chosen.tolist())) == count


def test_batches_cover_a_split_in_order() -> None:
    part = split(10)
    sizes = [len(labels) for _, labels in part.batches(4)]
    assert sizes == [4, 4, 2]
    assert np.concatenate([images for images, _ in part.batches(4)]) == pytest.approx(part.images)


def test_one_changed_pixel_changes_the_digest() -> None:
    part, other = split(), split()
    other.images[3, 0, 1, 1] += 1e-6
    assert part.digest != other.digest
