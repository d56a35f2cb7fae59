"""A dry run tells of each stage what a run would do with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trt_qat.pipeline import dry
from trt_qat.pipeline.plan import PLAN
from trt_qat.pipeline.run import RunResult


def test_what_is_finished_stays_so_on_a_machine_that_could_not_make_it(
    finished: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an engine that was merged from the device that built it."""
    stage = next(each for each in PLAN if each.name == "preflight")
    cannot = replace(stage, optional=True, why_not=lambda: "no GPU", why_not_for=None)
    monkeypatch.setattr(dry, "PLAN", (cannot,))
    (recipe,) = finished.folder.parent.glob("*.toml")
    (planned,) = dry.dry_run(recipe, finished.folder, None, ())
    assert planned.does == "unchanged"
    (elsewhere,) = dry.dry_run(recipe, finished.folder / "none", None, ())
    assert (elsewhere.does, elsewhere.why) == ("skipped", "no GPU")
