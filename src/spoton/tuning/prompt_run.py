"""One prompt in tuning, from a job to the result with its card.

The prompt while it is tuned is in `prompt_learner.py`; steps, evaluations and the end of a run in `training_run.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from spoton.errors import DivergenceError
from spoton.evaluation.score import Evaluation, Mode, mode_of, ranked
from spoton.events import OnEvent, silent
from spoton.files import sha256_of_text
from spoton.models.frozen import FrozenModel
from spoton.prompts.card import Calibration, Card, Parent
from spoton.prompts.initial import from_prompt
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.tasks.majority import majority_scores
from spoton.tasks.task import Task
from spoton.tuning.checkpoint import PromptCheckpoint
from spoton.tuning.course import CALIBRATED
from spoton.tuning.identity import what_decides
from spoton.tuning.initial_prompt import starting_prompt
from spoton.tuning.parameterization import Collapsible
from spoton.tuning.prompt_learner import PromptLearner
from spoton.tuning.recipe import Recipe
from spoton.tuning.record import versions
from spoton.tuning.training_run import Stopped, TrainingRun


@dataclass(frozen=True)
class Tuned:
    """The result of a tuning run.

    Attributes:
        prompt: Key, start, best value by validation, and card.
        history: One entry per step (`step`, `loss`) and per evaluation (`step`, `validation`).
        stopped: Why the run ended.
        steps: Steps taken.
        truncated: Training inputs that lost their middle.
        seconds: Wall time, including that before a resume.
        message: What a user should know about the end; empty if nothing.
        activation_bytes: Most bytes that a step kept for its backward pass, over the passes of all prompts tuned
            together; 0 if no step was taken.
        passes: Number of passes that memory split the largest step into; 1: it fitted.
        dropped: Steps after which prompts tuned together with it were better (`Halving`); None: it was not dropped.
    """

    prompt: SoftPrompt
    history: list[dict[str, float]] = field(repr=False)
    stopped: Stopped
    steps: int
    truncated: int
    seconds: float
    message: str = ""
    activation_bytes: int = 0
    passes: int = 1
    dropped: int | None = None

    @property
    def validation(self) -> float:
        """The validation score; minus infinity if the run ended before its first evaluation."""
        card = self.prompt.card
        return card.scores.get("validation", {}).get(card.metric, -math.inf)


@dataclass(frozen=True)
class Job:
    """One prompt to tune.

    Attributes:
        task: Train and validation splits are used.
        recipe: How to tune.
        initial: `[P', D]` to start from instead of `recipe.init`; resized to the recipe's length.
        parents: The prompts that made `initial`, for the card.
        mode: How to validate; None: `default_mode`.
        checkpoint: File that keeps the state at every evaluation; the caller removes it.
        resume: Resume from `checkpoint` if it exists.
        on_event: Called with progress events.
        phase: Name of this run in progress events.
        tuned_as: What is tuned in place of the prompt, instead of `recipe.reparameterization`.
        until: Step after which the run ends, on the schedule of all steps of the recipe; None: after the last.
    """

    task: Task
    recipe: Recipe
    initial: Tensor | None = None
    parents: Sequence[Parent] = ()
    mode: Mode | None = None
    checkpoint: Path | None = None
    resume: bool = False
    on_event: OnEvent = silent
    phase: str = "tuning"
    tuned_as: Collapsible | None = None
    until: int | None = None


class PromptRun:
    """A job in progress.

    Args:
        model: The frozen model.
        job: What to tune.

    Raises:
        DataError: The task has no training or validation examples.
        RecipeError: The checkpoint to resume from belongs to another run.
    """

    def __init__(self, model: FrozenModel, job: Job) -> None:
        task, recipe = job.task, job.recipe
        self.model, self.job, self.mode = model, job, mode_of(task, job.mode)
        if job.initial is None:
            start, self._ancestors = starting_prompt(model, task, recipe)
        else:
            model.require_width(job.initial)
            start, self._ancestors = from_prompt(job.initial, recipe.length), []
        self.learner = PromptLearner(model, recipe, start, job.tuned_as)
        identity = run_identity(model, task, recipe, self.mode, start, job.tuned_as)
        self.run = TrainingRun(
            self.learner, task, recipe, self.mode, calibrate=recipe.calibrate,
            checkpoint=None if job.checkpoint is None else PromptCheckpoint(job.checkpoint, identity),
            resume=job.resume, on_event=job.on_event, phase=job.phase, until=job.until,
        )  # fmt: skip

    def begin(self) -> None:
        """Prepares for the first step. A learned or given start is a candidate, a random one is not."""
        given = self.job.initial is not None or bool(self._ancestors)
        self.run.start(evaluate_first=given or self.job.recipe.init.startswith(("task", "text:")))

    def result(self) -> Tuned:
        """Returns the tuned prompt.

        Raises:
            DivergenceError: The loss was NaN or infinite before there was anything to keep.
        """
        run, learner = self.run, self.learner
        if learner.best is None:  # interrupted or diverged before the first evaluation
            if run.stopped == "diverged":
                raise DivergenceError(run.message)
            learner.best, run.course.best_step = learner.prompt().detach().clone(), run.course.step
        try:
            calibration, scores = self._scores()
        except KeyboardInterrupt:  # what was tuned is kept, with its score before the calibration
            run.interrupt()
            calibration, scores = self._scores()
        key = None if learner.key is None else learner.key.cpu()
        prompt = SoftPrompt(learner.best.cpu(), self._card(scores, calibration), key, learner.start)
        return Tuned(
            prompt, run.course.history, run.stopped or "finished", run.course.step, run.train.truncated,
            run.elapsed(), run.message, run.activation_bytes, run.passes, run.dropped,
        )  # fmt: skip

    def _scores(self) -> tuple[Calibration | None, dict[str, dict[str, float]]]:
        """Returns the calibration, if it is kept, and the validation scores with and without it.

        If calibrated candidates were compared at every evaluation, the best candidate decides; else it has to lower the
        validation loss.
        """
        run, course, task = self.run, self.run.course, self.job.task
        metric = task.metric
        if not course.has_evaluated:
            return None, {}
        plain = {"validation": {metric: course.best_uncalibrated_score}}
        wanted = self.job.recipe.calibrate != "none" and self.mode == "rank" and run.stopped != "interrupted"
        every = self.job.recipe.calibrate == "every"
        if not wanted or (run.dropped is not None and not every) or self.learner.best is None:
            return None, plain
        raw: Evaluation = run.evaluation(self.learner.best)
        fitted = run.fit_calibration(self.learner.best)
        assert raw.label_scores is not None and raw.loss is not None
        found = ranked(task, task.validation, raw.label_scores, fitted)
        assert found.loss is not None
        if not (course.best_candidate.endswith(CALIBRATED) if every else found.loss < raw.loss):
            return None, {"validation": {metric: raw.score}}
        return fitted, {
            "validation": {metric: found.score},
            "validation_uncalibrated": {metric: raw.score},
        }

    def _card(self, scores: dict[str, dict[str, float]], calibration: Calibration | None) -> Card:
        task, recipe, course, model = self.job.task, self.job.recipe, self.run.course, self.model
        return Card(
            name=task.name, task=task.name, family=task.family, data_hash=task.data_hash(), template=task.template,
            form=task.form, target=task.target,
            labels=None if task.labels is None else list(task.labels), model=model.name,
            model_fingerprint=model.fingerprint, dtype=str(model.dtype).removeprefix("torch."),
            recipe=recipe.model_dump(), seed=recipe.seed, scores=scores,
            majority=majority_scores(task) if self.mode == "rank" else {}, calibration=calibration,
            evaluation=self.mode, metric=task.metric, splits=task.splits(), steps=course.step,
            best_step=course.best_step, key_step=recipe.key_step if self.learner.key is not None else None,
            parents=[*self.job.parents, *self._ancestors], versions=versions(), license=task.license,
            source=task.source,
        )  # fmt: skip


def run_identity(
    model: FrozenModel,
    task: Task,
    recipe: Recipe,
    mode: Mode,
    first: Tensor,
    tuned_as: Collapsible | None = None,
) -> str:
    """Returns a hash of everything that decides a run, so that only the same run resumes; `first` is `[P, D]`."""
    more = [] if tuned_as is None else [tuned_as.identity()]
    parts = [*what_decides(model, task, mode), recipe.model_dump_json(), str(first.tolist()), *more]
    return sha256_of_text(parts)[:16]
