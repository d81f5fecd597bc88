"""Model tuning: learns all weights of a copy of the model on one task, as the baseline of prompt tuning.

The run is that of prompt tuning (`training_run.py`) with other parameters and without a prompt. The frozen model itself
never changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spoton.errors import DivergenceError
from spoton.evaluation.score import Mode, mode_of
from spoton.events import OnEvent, silent
from spoton.files import sha256_of_text
from spoton.models.frozen import FrozenModel
from spoton.tasks.task import Task
from spoton.tuning.full_model.checkpoint import ModelCheckpoint
from spoton.tuning.full_model.recipe import ModelRecipe
from spoton.tuning.full_model.weights import WeightsLearner, copied, is_tuned
from spoton.tuning.identity import what_decides
from spoton.tuning.training_run import Stopped, TrainingRun
from spoton.tuning.tune import train_together


@dataclass(frozen=True)
class TunedModel:
    """The result of model tuning.

    Attributes:
        model: The model with its best weights by validation, in float32, frozen again.
        history: One entry per step (`step`, `loss`) and per evaluation (`step`, `validation`).
        stopped: Why the run ended.
        steps: Steps taken.
        best_step: The step of the weights that were kept.
        scores: Their main metric by split; empty if there was no evaluation.
        parameters: How many numbers were tuned; four bytes each.
        truncated: Training inputs that lost their middle.
        seconds: Wall time, including that before a resume.
        message: What a user should know about the end; empty if nothing.
        activation_bytes: Most bytes that a step kept for its backward pass; 0 if no step was taken.
        passes: Number of passes that memory split the largest step into.
    """

    model: FrozenModel
    history: list[dict[str, float]]
    stopped: Stopped
    steps: int
    best_step: int
    scores: dict[str, dict[str, float]]
    parameters: int
    truncated: int
    seconds: float
    message: str = ""
    activation_bytes: int = 0
    passes: int = 1


def tune_model(
    model: FrozenModel,
    task: Task,
    recipe: ModelRecipe,
    *,
    mode: Mode | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    on_event: OnEvent = silent,
    phase: str = "model tuning",
) -> TunedModel:
    """Tunes all weights of a copy of the model. Does not use the test split.

    Args:
        model: The model to start from; it does not change.
        task: Train and validation splits are used.
        recipe: How to tune.
        mode: How to validate; None: `default_mode`.
        checkpoint: Folder that keeps the state at every evaluation; the caller removes it.
        resume: Resume from `checkpoint` if it holds a state.
        on_event: Called with progress events.
        phase: Name of this run in progress events.

    Raises:
        DataError: The task has no training or validation examples.
        DivergenceError: The loss was NaN or infinite before there was anything to keep.
        RecipeError: The checkpoint belongs to another run.
    """
    mode = mode_of(task, mode)
    identity = model_run_identity(model, task, recipe, mode)
    learner = WeightsLearner(model, recipe, identity)
    run = TrainingRun(
        learner, task, recipe, mode,
        checkpoint=None if checkpoint is None else ModelCheckpoint(checkpoint, identity),
        resume=resume, on_event=on_event, phase=phase,
    )  # fmt: skip
    # Weights tuned on other tasks may already be the best.
    train_together(learner.model, [run], [lambda: run.start(evaluate_first=is_tuned(model))])
    course = run.course
    if not course.has_evaluated:  # interrupted, or diverged, before the first evaluation
        if run.stopped == "diverged":
            raise DivergenceError(run.message)
        learner.best, course.best_step = copied(learner.weights), course.step
    return TunedModel(
        model=learner.frozen(f"{model.name}, tuned on {task.name}"),
        history=course.history, stopped=run.stopped or "finished", steps=course.step, best_step=course.best_step,
        scores={"validation": {task.metric: course.best_score}} if course.has_evaluated else {},
        parameters=sum(weight.numel() for weight in learner.parameters), truncated=run.train.truncated,
        seconds=run.elapsed(), message=run.message, activation_bytes=run.activation_bytes, passes=run.passes,
    )  # fmt: skip


def model_run_identity(model: FrozenModel, task: Task, recipe: ModelRecipe, mode: Mode) -> str:
    """Returns a hash of everything that decides a run: only the same run resumes or gives a model this fingerprint."""
    return sha256_of_text(["model", *what_decides(model, task, mode), recipe.model_dump_json()])[:16]
