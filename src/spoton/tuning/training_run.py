"""One tuning run, whatever it tunes: steps, schedule, evaluations, the best so far, checkpoint and end.

A `Learner` holds what is tuned: one prompt (`prompt_run.py`), or all weights of a model (`full_model/weights.py`).
Several runs may share every pass through the model (`tune.py`); each runs exactly as it would alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from spoton.errors import DataError
from spoton.evaluation.calibration import ROWS, fit_calibration, gold_indices
from spoton.evaluation.encoding import needs_end
from spoton.evaluation.late_encoding import LateEncoded, encode_for_training
from spoton.evaluation.many_prompts import label_tokens
from spoton.evaluation.score import Evaluation, Mode, evaluate, label_log_likelihoods, ranked
from spoton.events import OnEvent
from spoton.models.frozen import FrozenModel
from spoton.prompts.card import Calibration
from spoton.tasks.task import Task
from spoton.tuning.course import CALIBRATED, Clock, Course, is_number
from spoton.tuning.microbatches import StepRows
from spoton.tuning.optimizer import make_optimizer, rate_factor, set_rate
from spoton.tuning.recipe import Calibrate, TuningRecipe
from spoton.tuning.row_order import rows_of_step

Stopped = Literal["finished", "interrupted", "diverged"]


class Learner(Protocol):
    """The parameters of a run, and what is kept of them."""

    model: FrozenModel
    """The model that runs steps and evaluations."""
    parameters: list[Tensor]
    """Leaves that need gradients, in a fixed order."""
    rate: float
    """The highest learning rate of the schedule."""
    scaled: bool
    """Whether Adafactor scales rates by the size of a tensor."""

    def prompt(self) -> Tensor:
        """Returns the prompt `[P, D]` of the next step, with its gradient; P is 0 if weights are tuned."""

    def candidates(self) -> dict[str, Tensor]:
        """Returns the prompts `[P, D]` to evaluate, by name."""

    def stepped(self, step: int) -> None:
        """Updates the learner after a step."""

    def keep(self, candidate: str) -> None:
        """Keeps a candidate as the best so far."""


class Checkpoint(Protocol):
    """The place where the state of a run survives a kill."""

    def exists(self) -> bool:
        """Returns whether a run left its state."""

    def write(self, course: Course, learner: Learner, optimizer: torch.optim.Optimizer) -> None:
        """Writes the state of a run in one step."""

    def read(self, learner: Learner, optimizer: torch.optim.Optimizer) -> Course:
        """Restores learner and optimizer; returns the course."""


class TrainingRun:
    """A run in progress.

    Args:
        learner: The parameters to tune.
        task: Train and validation splits are used.
        recipe: How to tune.
        mode: How to validate.
        calibrate: Whether calibrated candidates are compared at every evaluation.
        checkpoint: Keeps the state at every evaluation; None: nothing survives a kill.
        resume: Resume from the checkpoint if it exists.
        on_event: Called with progress events.
        phase: Name of this run in progress events.
        until: Step after which the run ends, on the schedule of all steps of the recipe; None: after the last.

    Raises:
        DataError: The task has no training or validation examples, or no labels for a loss over labels.
        RecipeError: The checkpoint to resume from belongs to another run.
    """

    def __init__(
        self,
        learner: Learner,
        task: Task,
        recipe: TuningRecipe,
        mode: Mode,
        *,
        calibrate: Calibrate = "none",
        checkpoint: Checkpoint | None,
        resume: bool,
        on_event: OnEvent,
        phase: str,
        until: int | None = None,
    ) -> None:
        if not task.train or not task.validation:
            raise DataError(f"{task.name} needs training and validation examples; found {task.splits()}.")
        self.learner, self.task, self.recipe, self.mode = learner, task, recipe, mode
        self._calibrate, self._checkpoint, self._on_event, self._phase = (
            calibrate,
            checkpoint,
            on_event,
            phase,
        )
        self.last = recipe.steps if until is None else min(until, recipe.steps)
        self.train = encode_for_training(
            learner.model, task.train, end=needs_end(learner.model, task.labels), prompt_length=len(learner.prompt()),
            max_input_tokens=recipe.max_input_tokens, labels=task.labels,
        )  # fmt: skip
        self._labels = labels_of_loss(learner.model, task, recipe)
        self._optimizer = make_optimizer(recipe, learner.parameters, learner.rate, scaling=learner.scaled)
        self.course = Course()
        if resume and checkpoint is not None and checkpoint.exists():
            self.course = checkpoint.read(learner, self._optimizer)
        self.stopped: Stopped | None = None
        self.dropped: int | None = None
        self.message = ""
        self.activation_bytes, self.passes = 0, 1
        self._clock, self._tokens = Clock(self.course), 0

    def start(self, *, evaluate_first: bool) -> None:
        """Prepares for the first step.

        Args:
            evaluate_first: Whether the start is a candidate too: a transferred prompt may already be the best.
        """
        if self.course.step == 0 and evaluate_first:
            self._evaluate()
        self._end_if_done()

    def next_rows(self) -> StepRows:
        """Returns the training rows of the next step."""
        recipe = self.recipe
        chosen = rows_of_step(len(self.train), recipe.batch_size, self.course.step, recipe.seed)
        batch = self.train.batch(chosen)
        if isinstance(self.train, LateEncoded) and self.course.step + 1 < self.last:
            self.train.prepare(
                rows_of_step(len(self.train), recipe.batch_size, self.course.step + 1, recipe.seed)
            )
        self._tokens = sum(map(len, batch.inputs))
        return StepRows.of(batch, recipe.loss, self._labels)

    def gradient_norm(self) -> Tensor:
        """Returns the norm `[]` of the gradient of all parameters, on their device; NaN if none has a gradient."""
        gradients = [tensor.grad for tensor in self.learner.parameters if tensor.grad is not None]
        return torch.nn.utils.get_total_norm(gradients) if gradients else torch.tensor(math.nan)

    def move(self, norm: Tensor) -> Tensor:
        """Takes the optimizer's step from the gradient of the parameters.

        Does not wait for the device.

        Args:
            norm: `[]` from `gradient_norm`; a finite number.

        Returns:
            `[]` on the device: whether the parameters are finite now.
        """
        tensors = [tensor for tensor in self.learner.parameters if tensor.grad is not None]
        if self.recipe.clip:
            torch.nn.utils.clip_grads_with_norm_(tensors, self.recipe.clip, norm)
        rate = self.learner.rate * rate_factor(self.recipe, self.course.step)
        set_rate(self._optimizer, self.recipe, rate)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all()

    def note_step(self, loss: float, *, finite: bool) -> None:
        """Notes the step that `move` took; ends the run if loss, gradient or parameters are not finite.

        Args:
            loss: Mean loss of the rows, in nats.
            finite: Whether all of them are finite.
        """
        if not finite:
            self._diverged(self.course.step + 1)
            return
        self.course.note_step(loss)
        self.learner.stepped(self.course.step)

    def evaluates_now(self) -> bool:
        """Returns whether a run evaluates after the step that was noted last."""
        step = self.course.step
        return self.stopped is None and (step % self.recipe.evaluate_every == 0 or step == self.last)

    def finish_step(self, known: Mapping[str, Evaluation] | None = None) -> None:
        """Evaluates and keeps the state if it is time, ends the run if it is done, and reports the step.

        Args:
            known: The evaluations of the candidates, if they were made already.
        """
        course = self.course
        if self.stopped is not None:
            return
        loss = course.history[-1]["loss"]
        if self.evaluates_now():
            if not self._evaluate(known):
                self._diverged(course.step)
                return
            course.seconds = self._clock.elapsed()
            if self._checkpoint is not None:
                self._checkpoint.write(course, self.learner, self._optimizer)
        self._end_if_done()
        self._on_event(
            self._clock.progress(
                self._phase, course, self.last, self.task.metric, loss, self._tokens, self.passes
            )
        )

    def drop(self, rung: int) -> None:
        """Ends the run because other runs, tuned together with it, were better after `rung` steps."""
        self.stopped, self.dropped = "finished", rung
        self.message = f"Dropped after {rung} of {self.recipe.steps} steps: others were better."

    def interrupt(self) -> None:
        """Ends the run at its current step."""
        self.stopped = "interrupted"
        self.message = f"Interrupted after {self.course.step} of {self.last} steps."

    def elapsed(self) -> float:
        """Returns the seconds spent, including those before a resume."""
        return self._clock.elapsed()

    def fit_calibration(self, prompt: Tensor) -> Calibration:
        """Returns the calibration of a prompt `[P, D]` on training rows."""
        rows = rows_of_step(len(self.train), min(ROWS, len(self.train)), 0, self.recipe.seed)
        labels = self.task.labels or ()
        scores = label_log_likelihoods(
            self.learner.model, prompt, self.train.part(rows), labels, label_score=self.recipe.label_score
        )
        return fit_calibration(scores, gold_indices([self.task.train[row].target for row in rows], labels))

    def evaluation(self, prompt: Tensor) -> Evaluation:
        """Returns the evaluation of a prompt `[P, D]` on the validation split."""
        return evaluate(
            self.learner.model, prompt, self.task.validation, self.task, self.mode,
            max_input_tokens=self.recipe.max_input_tokens, label_score=self.recipe.label_score,
        )  # fmt: skip

    def _evaluate(self, known: Mapping[str, Evaluation] | None = None) -> bool:
        """Evaluates the candidates and keeps the best if it improves on all earlier ones; False if one has no loss."""
        results: dict[str, Evaluation] = {}
        for name, prompt in self.learner.candidates().items():
            found = self.evaluation(prompt) if known is None else known[name]
            if not is_number(found):
                return False
            results[name] = found
            if self._calibrate == "every" and found.label_scores is not None:
                fitted = self.fit_calibration(prompt)
                results[f"{name}{CALIBRATED}"] = ranked(
                    self.task, self.task.validation, found.label_scores, fitted
                )
        best = self.course.note_evaluation(results, self.recipe.select)
        if best is not None:
            self.learner.keep(best.removesuffix(CALIBRATED))
        return True

    def _end_if_done(self) -> None:
        course, recipe = self.course, self.recipe
        if course.step >= self.last:
            self.stopped = "finished"
        elif course.step >= getattr(recipe, "key_step", 0):
            self.message = course.out_of_patience(recipe.patience, recipe.steps)
            self.stopped = "finished" if self.message else None

    def _diverged(self, step: int) -> None:
        kept = (
            f"The best so far (step {self.course.best_step}) is kept. " if self.course.has_evaluated else ""
        )
        self.stopped = "diverged"
        self.message = (
            f"The loss or its gradient stopped being a number at step {step}. {kept}"
            f"Lower the learning rate (it was {self.learner.rate:g}), or load the model in float32."
        )


def labels_of_loss(model: FrozenModel, task: Task, recipe: TuningRecipe) -> Sequence[Sequence[int]]:
    """Returns the tokens of the labels that a recipe's loss compares; nothing for a loss over tokens.

    Raises:
        DataError: The loss is over labels, and the task has none.
    """
    if recipe.loss != "labels":
        return ()
    if task.labels is None:
        raise DataError(f"{task.name} has open targets, so there is no loss over its labels. Leave it out.")
    return label_tokens(model, task.labels)
