"""``tq.Run``: a training loop of the user's own, recorded as ``trt-qat run`` records a recipe's."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from torch import nn

from trt_qat import artifact
from trt_qat.data.calibration import lock_text
from trt_qat.errors import InputError
from trt_qat.pipeline import flow, stage, torch_stages, torch_task
from trt_qat.pipeline.flow import RunResult, StageRecord
from trt_qat.pipeline.loop_data import held, loop_data
from trt_qat.pipeline.loop_spec import loop_spec
from trt_qat.pipeline.pack import pack
from trt_qat.pipeline.plan import PLAN
from trt_qat.pipeline.study import keep_study
from trt_qat.pipeline.torch_resume import Position
from trt_qat.qat import checkpoint, ranks
from trt_qat.qat.inputs import input_batches
from trt_qat.qat.quantize import quantize, ranges_of
from trt_qat.qat.randomness import preserved_random_state
from trt_qat.qat.reports import report_of
from trt_qat.qat.sensitivity import Sensitivity, Study, Suggestion
from trt_qat.qat.sparsify import sparsify
from trt_qat.qat.tensors import as_tensors
from trt_qat.recipe.load import Recipe
from trt_qat.tasks.own import own

if TYPE_CHECKING:
    from typing_extensions import Self

Figures = dict[str, Any]


class Run:
    """A run folder that a loop of the user's fills.

    Inside the block the float model is shown, quantized, trained as the user likes, and exported;
    when it ends well, the ONNX is judged, compared with the model and scored, and the report is
    written: report, check, bundle and sensitivity then read the folder as that of a recipe. Where a
    launcher started several processes all of them go through it, and the first one fills the
    folder; the others have one for themselves, which is thrown away.

    Args:
        folder: of the run; made if absent.
        test: samples that every stage is scored on: a DataLoader, a list of ``(inputs, targets)``,
            a data set, or one batch. Of the task ``embedding`` inputs alone will do.
        validation: likewise, for sensitivity; None: the test samples.
        metrics: ``metrics(outputs, targets)`` in place of the task's, as ``task.metrics`` says.
        progress: called with one line at a time of what happens.
        tables: tables of a recipe as dicts or specs: ``task``, ``quantize``, ``export``,
            ``target`` and so on.

    Raises:
        RecipeError: a table has an unknown key or a wrong value.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        test: Any,
        validation: Any = None,
        metrics: Callable[[Any, Any], Any] | None = None,
        progress: Callable[[str], None] = lambda line: None,
        **tables: Any,
    ) -> None:
        ranks.join()
        self._scratch = None if ranks.is_first() else tempfile.TemporaryDirectory()
        self.folder = Path(folder if self._scratch is None else self._scratch.name)
        spec = loop_spec(Path(folder), tables, own_metrics=metrics is not None)
        recipe = Recipe(spec, Path.cwd() / f"{spec.name}.toml")
        self._context = stage.Run(recipe, self.folder, progress=False)
        self._context.checkpoints = self.folder / "checkpoints" / "loop"
        if metrics is not None:
            title = getattr(metrics, "__name__", type(metrics).__name__)
            self._context.made["measure"] = own(metrics, title, as_tensors)
        self._test, self._validation, self._say = test, validation, progress
        self._history: list[Figures] = []
        self._position = Position(self._context.checkpoints)
        self._started = time.perf_counter()
        self.result = RunResult(self.folder)

    def __enter__(self) -> Self:
        self._lock = flow.locked(self.folder)
        self._lock.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and "export" in self._done and ranks.is_first():
                rest = PLAN[[each.name for each in PLAN].index("preflight") :]
                with ranks.alone():
                    flow.run_stages(rest, self._context, self.result, self._say)
                self._position.clear()
        finally:
            self._lock.__exit__(None, None, None)
            if self._scratch is not None:
                self._scratch.cleanup()

    @property
    def _done(self) -> set[str]:
        return {record.name for record in self.result.stages}

    def float_model(self, model: nn.Module, calibration: Any) -> nn.Module:
        """Record the float model, before it is pruned or quantized, and score it.

        Args:
            model: trained; a copy is kept.
            calibration: batches that ranges are to be measured on: a DataLoader, a list of
                batches, or one, with or without targets. ``calibration.samples`` of them are held.

        Returns:
            The copy, which stays float: a teacher, where there are no labels.
        """
        kept = copy.deepcopy(model).eval()
        self._context.made["fp32"] = kept
        count = self._context.recipe.spec.calibration.samples
        ranges = held(input_batches(model, calibration), count)
        # What `Run.data` is of a recipe is read from its files; here it is what was handed over.
        apart = self._context.recipe.spec.task.kind == "detection"
        data = loop_data(self._test, self._validation, ranges, apart=apart)
        self._context.__dict__["data"] = data
        lock = lock_text(self._context.calibration)
        artifact.write_text(self._context.path("calibration.lock.json"), lock)

        def work() -> dict[str, Any]:
            checkpoint.save(model, self._context.path("fp32.pt"))
            artifact.write_json(self._context.path("train.history.json"), report_of(model).history)
            return {"fp32": torch_task.kept_score(self._context, model, "fp32_logits.npz")}

        self._record("train", work)
        return kept

    def sparsify(self, model: nn.Module) -> nn.Module:
        """Apply 2:4 masks as `trt_qat.sparsify` does, record which layers hold them, and score."""
        self._needs("train", "float_model")
        context = self._context
        model = sparsify(
            model,
            torch_task.example_of(context),
            context.recipe.spec.sparsity,
            calibration_batches=torch_task.CalibrationBatches(context),
            target=context.recipe.spec.target,
            quantize=context.recipe.spec.quantize,
        )

        def work() -> dict[str, Any]:
            torch_stages.write_sparsity(context, model)
            return {"sparse": torch_task.score(context, model)}

        self._record("sparsify", work)
        return model

    def quantize(self, model: nn.Module) -> nn.Module:
        """Quantize as `trt_qat.quantize` does, on the calibration batches; record and score."""
        self._needs("train", "float_model")
        context, spec = self._context, self._context.recipe.spec
        if "sparsify" not in self._done:
            self._record("sparsify", lambda: self._written_sparsity(model))
        batches = torch_task.CalibrationBatches(context)
        model = quantize(
            model, batches, spec=spec.quantize, calibration=spec.calibration, ptq=spec.ptq
        )

        def work() -> dict[str, Any]:
            with artifact.atomic_path(context.path("ranges.json")) as path:
                ranges_of(model).save(path)
            torch_stages.write_placement(context, model)
            checkpoint.save(model, context.path("ptq.pt"))
            sparse = bool(report_of(model).sparse)
            return {"sparse_ptq" if sparse else "ptq": torch_task.score(context, model)}

        self._record("quantize", work)
        return model

    def _written_sparsity(self, model: nn.Module) -> dict[str, Any]:
        torch_stages.write_sparsity(self._context, model)
        return {}

    def epochs(self, count: int, model: nn.Module, *others: Any) -> Iterator[int]:
        """Yield the epochs that are left, from 0 to ``count`` - 1, each kept when it has ended.

        Where the folder holds the state of an interrupted loop, it is put back first: the same
        script run again goes on where it stopped.

        Args:
            count: of epochs.
            model: trained in the loop.
            others: optimizers, schedulers and whatever else has ``state_dict`` and
                ``load_state_dict``.
        """
        start, history = self._position.restore((model, *others))
        self._history = history or self._history
        for epoch in range(start, count):
            yield epoch
            self._position.keep(epoch + 1, (model, *others), self._history)

    def log(self, **figures: float) -> None:
        """Add a row to the history: ``epoch``, ``loss``, ``accuracy``, ``lr`` or others."""
        row = {"step": len(self._history) + 1, "epoch": float(len(self._history) + 1)}
        row |= {"seconds": time.perf_counter() - self._started}
        self._history.append(row | {key: float(value) for key, value in figures.items()})

    def export(self, model: nn.Module) -> Path:
        """Score the trained model and write ``model.onnx`` and ``fp32.onnx``.

        Returns:
            The path of ``model.onnx``.
        """
        self._needs("quantize", "quantize")
        context = self._context
        context.made["qat"] = model.eval()

        def trained() -> dict[str, Any]:
            checkpoint.save(model, context.path("qat.pt"))
            entry = torch_task.kept_score(context, model, "qat_logits.npz")
            history = self._history or report_of(model).history
            artifact.write_json(context.path("finetune.history.json"), history)
            return {"qat": entry}

        self._record("finetune", trained)
        self._record("export", lambda: torch_stages.export(context))
        return context.path("model.onnx")

    def sensitivity(
        self, model: nn.Module | None = None, *, budget: float | None = None
    ) -> tuple[Sensitivity, Suggestion | None]:
        """Rank layers by what INT8 costs them, and with a budget say which to keep float.

        The study goes into the folder, where the report shows it.

        Args:
            model: float, with or without masks; None: the float model of the run.
            budget: score that may be lost, 0 to 1.
        """
        self._needs("train", "float_model")
        context, spec = self._context, self._context.recipe.spec
        study = Study(
            torch_task.float_model(context) if model is None else model,
            torch_task.CalibrationBatches(context),
            context.data.validation,
            spec=spec.quantize,
            calibration=spec.calibration,
            measure=torch_task.measure(context),
            teacher=torch_task.teacher_of(context),
            ptq=spec.ptq,
        )
        ranked = study.sensitivity(self._say)
        found = None if budget is None else study.suggest(ranked, budget, self._say)
        keep_study(context, ranked.to_dict(found))
        return ranked, found

    def pack(self, out: str | Path | None = None) -> Path:
        """Write the run as one file for a machine without torch, as ``trt-qat pack`` does.

        Args:
            out: the file; None: ``RUN.tqpack`` beside the run folder.
        """
        if self._scratch is not None:
            return self.folder if out is None else Path(out)  # the first process writes it
        if "compare" not in self._done:
            message = f"{self.folder}: pack after the with block, where the ONNX is compared"
            raise InputError(message)
        return pack(self._context, None if out is None else Path(out))

    def _needs(self, done: str, method: str) -> None:
        if done not in self._done:
            message = f"{self.folder}: call run.{method}(...) first, inside the with block"
            raise InputError(message)

    def _record(self, name: str, work: Callable[[], Mapping[str, Any]]) -> None:
        """Do what a stage of a recipe does, seal its files, and tell the manifest."""
        context = self._context
        plan = next(each for each in PLAN if each.name == name)
        start = time.perf_counter()
        with preserved_random_state():  # scoring must not change what the loop draws next
            metrics = {key: value for key, value in work().items() if value is not None}
        seconds = time.perf_counter() - start
        self._say(f"{name}: done in {seconds:.1f} s")
        flow.seal(plan, context, stage.stage_fingerprint(plan, context), metrics, seconds)
        record = StageRecord(name, "ran", round(seconds, 3))
        record.verification = metrics.get("verification")
        flow.note(self.result, context, record, metrics)
