"""What decides a run and its scores: only if all of it is the same, a run resumes, and a kept score is used again."""

from __future__ import annotations

from spoton.evaluation.score import Mode
from spoton.models.frozen import FrozenModel
from spoton.tasks.task import Task


def what_decides(model: FrozenModel, task: Task, mode: Mode | None) -> list[str]:
    """Returns the texts to hash, together with the recipe: model, rows, and how they are evaluated.

    The metric and the labels in their order are not part of the rows, but decide scores and calibrations.

    Args:
        model: The frozen model.
        task: The task to tune on.
        mode: How to evaluate; None: not chosen yet.
    """
    return [
        model.fingerprint, str(model.dtype), task.data_hash(), str(mode), task.metric, str(task.labels),
    ]  # fmt: skip
