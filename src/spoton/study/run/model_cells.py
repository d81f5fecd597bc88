"""Runs the cells of a study that tune all weights: on a target, on a mixture, and on a target after a mixture.

Weights tuned on a mixture stay in the study's folder, where the runs that start from them find them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from spoton.errors import StudyError
from spoton.evaluation.score import evaluate
from spoton.events import OnEvent
from spoton.models.frozen import FrozenModel
from spoton.models.loading import load_model
from spoton.study.plan.cell_base import TaskRole
from spoton.study.plan.cells import ModelMixture, MultiTaskModelTuning, WeightTuning
from spoton.study.run.result import Result
from spoton.study.run.store import Store
from spoton.tasks.task import Task
from spoton.tuning.full_model.tune import tune_model
from spoton.tuning.full_model.tune_to_folder import save_model
from spoton.tuning.kept import require_end


class ModelCells:
    """Cells of one study that tune all weights.

    Args:
        model: The frozen model.
        store: The study's folder.
        task: Returns the task of a role and name.
    """

    def __init__(self, model: FrozenModel, store: Store, task: Callable[[TaskRole, str], Task]) -> None:
        self._model, self._store, self._task = model, store, task

    def run(self, cell: WeightTuning, on_event: OnEvent) -> Result:
        """Tunes all weights of a copy of the model and scores them once on the test split, if the cell has one.

        Raises:
            StudyError: The weights that it starts from are not there, or are others.
            Interrupted: Ctrl-C; the checkpoint is kept if the folder is local.
            SpotonError: Tuning failed.
        """
        task, recipe = self._task(cell.role, cell.task), cell.model_recipe
        start = self._mixed(cell) if isinstance(cell, MultiTaskModelTuning) else self._model
        tuned = tune_model(
            start, task, recipe, mode=cell.mode, checkpoint=self._store.checkpoint(cell.name),
            resume=True, on_event=on_event, phase=cell.words,
        )  # fmt: skip
        require_end(tuned, cell.words)
        more = {
            "best_step": tuned.best_step, "tuned_parameters": tuned.parameters, "tuned_bytes": 4 * tuned.parameters,
            "tuned_dtype": "float32",
        }  # fmt: skip
        if isinstance(cell, ModelMixture):
            save_model(tuned.model, self._folder(cell.name))
            return Result(tuned.scores, tuned, more | {"tuned_fingerprint": tuned.model.fingerprint})
        test = evaluate(
            tuned.model, None, task.test, task, cell.mode, max_input_tokens=recipe.max_input_tokens,
            label_score=recipe.label_score, on_event=on_event, phase=f"{cell.words}, test",
        ).scores  # fmt: skip
        return Result(tuned.scores | {"test": test}, tuned, more)

    def _mixed(self, cell: MultiTaskModelTuning) -> FrozenModel:
        """Returns the weights that were tuned on the mixture."""
        folder, there = self._folder(cell.from_cell), self._store.result(cell.from_cell)
        again = f"Remove cells/{cell.from_cell}.json to have them tuned again."
        if there is None or not folder.is_dir():
            raise StudyError(
                f"{self._store.place} has no models/{cell.from_cell}, the weights of the mixture. {again}"
            )
        model = load_model(folder, dtype="float32", device=self._model.device)
        if model.fingerprint != there["tuned_fingerprint"]:
            raise StudyError(f"{folder} has other weights than those that were tuned on the mixture. {again}")
        return model

    def _folder(self, name: str) -> Path:
        assert self._store.local  # studies at a URL have no mixture
        return self._store.local / "models" / name
