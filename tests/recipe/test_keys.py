"""``trt-qat run --keys`` names every key of a recipe, with the default that holds."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel

from tests.runs import command_line
from trt_qat.recipe.keys import keys_as_toml
from trt_qat.recipe.load import load_recipe
from trt_qat.recipe.specs import DataSpec, EngineSpec, ModelSpec

NEEDED = ('name = "x"', 'factory = "residual_cnn"', 'source = "digits"')


def test_with_what_every_recipe_must_say_it_is_the_recipe_of_all_defaults(tmp_path: Path) -> None:
    text = keys_as_toml()
    for line in NEEDED:
        key = line.partition(" ")[0]
        text, count = re.subn(rf"^# {key} = # needed.*$", line, text, flags=re.MULTILINE)
        assert count == 1, key
    (tmp_path / "x.toml").write_text(text)
    defaults = EngineSpec(
        name="x", model=ModelSpec(factory="residual_cnn"), data=DataSpec(source="digits")
    )
    assert load_recipe(tmp_path / "x.toml").spec == defaults


def test_every_key_is_there_with_what_it_means_and_what_it_may_be() -> None:
    text = keys_as_toml()
    for name, field in EngineSpec.model_fields.items():
        spec = field.annotation
        if isinstance(spec, type) and issubclass(spec, BaseModel):
            _, _, rest = text.partition(f"\n[{name}] # ")
            table = rest.partition("\n\n")[0]
            for key in spec.model_fields:
                assert re.search(rf"^(# )?{key} =", table, re.MULTILINE), f"{name}.{key}"
    allowed = '"max" | "percentile" | "entropy" | "mse" | "moving_average"'
    assert f'\nalgorithm = "mse" # {allowed}\n' in text
    assert "\nlr = 0.002 # peak learning rate\n" in text


def test_the_command_needs_no_recipe() -> None:
    done = command_line("run", "--keys")
    assert (done.returncode, done.stdout, done.stderr) == (0, keys_as_toml(), "")
