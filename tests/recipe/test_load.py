"""A recipe is read whole or refused in one error that says how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trt_qat.errors import RecipeError
from trt_qat.recipe.load import load_recipe, parse_override
from trt_qat.recipe.specs import EngineSpec

ROOT = Path(__file__).parents[2]
ENGINES = sorted((ROOT / "engines").glob("*.toml"))

ENGINE = """
name = "mine"
calibration = "../calibration/set.toml"

[model]
factory = "residual_cnn"

[train]
epochs = 3
"""

CALIBRATION = """
samples = 32
algorithm = "percentile"

[data]
source = "digits"
validation = 0.2
"""


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_project(tmp_path, ENGINE, CALIBRATION)


def write_project(folder: Path, engine: str, calibration: str) -> Path:
    for name, text in (("engines/mine.toml", engine), ("calibration/set.toml", calibration)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder / "engines" / "mine.toml"


@pytest.mark.parametrize("path", ENGINES, ids=lambda path: path.stem)
def test_every_shipped_engine_is_valid(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.spec.name == path.stem
    assert recipe.calibration_path is not None


def test_both_engines_of_the_issue_are_shipped() -> None:
    assert {"digits-int8-24", "fashion-int8-24"} <= {path.stem for path in ENGINES}


def test_an_engine_names_its_calibration_set_and_the_set_names_the_data(engine: Path) -> None:
    spec = load_recipe(engine).spec
    assert spec.calibration.samples == 32
    assert spec.calibration.algorithm == "percentile"
    assert spec.data.source == "digits"
    assert spec.data.validation == 0.2


def test_calibration_and_data_may_stand_in_the_engine_itself(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text(
        'name = "one"\n[model]\nfactory = "residual_cnn"\n'
        '[data]\nsource = "digits"\n[calibration]\nsamples = 8\n'
    )
    recipe = load_recipe(path)
    assert recipe.spec.calibration.samples == 8
    assert recipe.calibration_path is None


def test_data_named_twice_is_refused(tmp_path: Path) -> None:
    path = write_project(tmp_path, ENGINE + '\n[data]\nsource = "digits"\n', CALIBRATION)
    with pytest.raises(RecipeError, match=r"\[data\] is also in .*set.toml; name the data in one"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("train.epochs=7", lambda spec: spec.train.epochs == 7),
        ("train.lr=1e-4", lambda spec: spec.train.lr == 1e-4),
        ("calibration.samples=4", lambda spec: spec.calibration.samples == 4),
        ("calibration.algorithm=entropy", lambda spec: spec.calibration.algorithm == "entropy"),
        ('sparsity.exclude=["head", "stem.*"]', lambda spec: len(spec.sparsity.exclude) == 2),
        ("model.args.num_classes=3", lambda spec: spec.model.args == {"num_classes": 3}),
        ("data.seed=5", lambda spec: spec.data.seed == 5),
        ("target=a100", lambda spec: spec.target == "a100"),
    ],
)
def test_an_override_is_laid_over_both_files(
    engine: Path, override: str, read: Callable[[EngineSpec], bool]
) -> None:
    assert read(load_recipe(engine, [override]).spec)


def test_another_calibration_set_can_be_given_by_override(engine: Path, tmp_path: Path) -> None:
    other = tmp_path / "calibration" / "other.toml"
    other.write_text(CALIBRATION.replace("32", "48"))
    assert load_recipe(engine, [f"calibration={other}"]).spec.calibration.samples == 48


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=1.5", 1.5),
        ("a=true", True),
        ("a=[1, 2]", [1, 2]),
        ('a="1"', "1"),
        ("a=word", "word"),
        ("a=", ""),
        ("a=x=y", "x=y"),
        ("a=1\nb = 2", "1\nb = 2"),
    ],
)
def test_an_override_value_is_toml_and_a_bare_word_a_string(text: str, value: object) -> None:
    assert parse_override(text) == ("a", value)


@pytest.mark.parametrize("text", ["train.epochs", "=3", "train..epochs=3"])
def test_an_override_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"allowed is key=value with a dotted key"):
        parse_override(text)


def test_an_override_cannot_go_through_a_value(engine: Path) -> None:
    with pytest.raises(RecipeError, match=r"--set name.x: name is 'mine', not a table"):
        load_recipe(engine, ["name.x=1"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "[train]\nepochs",
            "[train]\nepoch",
            r"mine.toml: train.epoch: unknown key; did you mean 'epochs'\? allowed: .*optimizer",
        ),
        ("[train]", "[trian]", r"mine.toml: trian: unknown key; did you mean 'train'\?"),
        (
            "epochs = 3",
            'epochs = "3"',
            r'mine.toml: train.epochs: got "3"; allowed: number',
        ),
        ("epochs = 3", "epochs = 0", r"train.epochs: got 0; allowed: greater than 0"),
        ("epochs = 3", "batch_size = 1.5", r"train.batch_size: got 1.5; allowed: integer"),
        ("epochs = 3", "batch_size = true", r"train.batch_size: got true; allowed: integer"),
        ("epochs = 3", "lr = nan", r"train.lr: got NaN; allowed: finite number"),
        (
            "epochs = 3",
            'optimizer = "adam"',
            r"train.optimizer: got \"adam\"; allowed: 'adamw' or 'sgd'; nearest: 'adamw'",
        ),
        ('factory = "residual_cnn"', "", r"mine.toml: model.factory: missing; reference name"),
        ('name = "mine"', "", r"mine.toml: name: missing"),
        (
            'name = "mine"',
            'name = "../up"',
            r'mine.toml: name: got "../up"; allowed: text matching',
        ),
        (
            "[train]",
            "[sparsity]\nexclude = 'head'\n[train]",
            r'sparsity.exclude: got "head"; allowed: an array',
        ),
        (
            "[train]",
            "[quantize]\nzero_point = 'learned'\n[train]",
            r"quantize.zero_point: got \"learned\"; TensorRT INT8 is symmetric",
        ),
        ("[train]\nepochs = 3", "[[train]]", r"mine.toml: train: got \[{}\]; allowed: a table"),
        ("epochs = 3", "epochs = 2020-01-01", r"mine.toml: dates and times are not used"),
        ("epochs = 3", "epochs = ", r"mine.toml: not TOML: .*line 9"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in ENGINE
    path = write_project(tmp_path, ENGINE.replace(old, new), CALIBRATION)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


def test_a_mistake_in_the_calibration_set_names_that_file(tmp_path: Path) -> None:
    path = write_project(tmp_path, ENGINE, CALIBRATION.replace("samples", "sample"))
    with pytest.raises(RecipeError, match=r"set.toml: calibration.sample: unknown key; .*samples"):
        load_recipe(path)


def test_a_mistake_in_the_sets_data_names_that_file(tmp_path: Path) -> None:
    path = write_project(tmp_path, ENGINE, CALIBRATION.replace("validation = 0.2", "seed = 'a'"))
    with pytest.raises(RecipeError, match=r'set.toml: data.seed: got "a"; allowed: integer'):
        load_recipe(path)


def test_a_mistake_in_an_override_names_the_option(engine: Path) -> None:
    with pytest.raises(RecipeError, match=r"^--set: finetune.epohcs: unknown key; .*e.epochs'"):
        load_recipe(engine, ["finetune.epohcs=1"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trian.epochs=1", r"^--set: trian.epochs: unknown key; did you mean 'train.epochs'\?"),
        ("train.epoch=1", r"^--set: train.epoch: unknown key; did you mean 'train.epochs'\?"),
        ("sparsty.enabled=true", r"did you mean 'sparsity.enabled'\? allowed: build, calibration"),
        ("targt=1", r"^--set: targt: unknown key; did you mean 'target'\?"),
    ],
)
def test_a_key_that_is_given_wrong_is_not_blamed_on_the_file(
    engine: Path, text: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(engine, [text])


def test_a_table_that_the_file_has_wrong_is_blamed_on_the_file(tmp_path: Path) -> None:
    path = write_project(tmp_path, ENGINE.replace("[train]", "[trian]"), CALIBRATION)
    with pytest.raises(RecipeError, match=r"mine.toml: trian: unknown key; did you mean 'train'"):
        load_recipe(path, ["trian.epochs=1"])


def test_a_folder_is_told_from_a_file_that_is_absent(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot be read: it is a folder, and a file is wanted"):
        load_recipe(tmp_path)


def test_several_mistakes_are_one_error(tmp_path: Path) -> None:
    text = ENGINE.replace("epochs", "epoch").replace("factory", "fctory")
    path = write_project(tmp_path, text, CALIBRATION)
    with pytest.raises(RecipeError, match=r"3 keys cannot be used(?s:.*)fctory(?s:.*)epoch"):
        load_recipe(path)


def test_a_missing_engine_lists_what_the_folder_has(engine: Path) -> None:
    with pytest.raises(RecipeError, match=r"my.toml: no such file; the folder has mine.toml"):
        load_recipe(engine.with_name("my.toml"))


def test_a_missing_calibration_set_is_named_with_where_it_was_looked_for(tmp_path: Path) -> None:
    path = write_project(tmp_path, ENGINE.replace("set.toml", "sett.toml"), CALIBRATION)
    with pytest.raises(RecipeError, match=r"calibration = '../calibration/sett.toml': .* does not"):
        load_recipe(path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"bad.toml: (cannot be read|not TOML)"):
        load_recipe(path)


def test_a_spec_cannot_be_changed(engine: Path) -> None:
    spec = load_recipe(engine).spec
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "other"
