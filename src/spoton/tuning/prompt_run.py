"""One prompt's side of tuning: its data, optimizer, looks at the validation split, checkpoint and end.

Several jobs may share every pass through the model (``tune.py``); each of them goes exactly as it would alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from spoton.errors import DataError, DivergenceError
from spoton.evaluation.encoding import encode, needs_end
from spoton.evaluation.score import Mode, default_mode, evaluate
from spoton.events import OnEvent, silent
from spoton.files import sha256_of_text
from spoton.models.engine import Batch
from spoton.models.frozen import FrozenModel
from spoton.prompts.card import Card, Parent
from spoton.prompts.initial import from_prompt
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.tasks.task import Task
from spoton.tuning.checkpoint import State, read_checkpoint, write_checkpoint
from spoton.tuning.course import Clock, is_number
from spoton.tuning.initial_prompt import starting_prompt
from spoton.tuning.optimizer import make_optimizer
from spoton.tuning.recipe import Recipe
from spoton.tuning.record import versions
from spoton.tuning.row_order import rows_of_step

Stopped = Literal["finished", "interrupted", "diverged"]


@dataclass(frozen=True)
class Tuned:
    """The result of a tuning run.

    Attributes:
        prompt: Key, best value by validation, and card.
        history: One entry a step (``step``, ``loss``) and a look (``step``, ``validation``).
        stopped: Why it ended.
        steps: Steps taken.
        truncated: Training inputs that lost their middle.
        seconds: Wall time, that before a resume included.
        message: What a user should know of the end, or nothing.
        activation_bytes: Most bytes that a step kept for its backward pass, the passes of all prompts tuned
            together included; 0 if no step was taken.
        passes: Into how many passes memory asked to split the largest step; 1: it fitted.
        dropped: After how many steps others, tuned together with it, were better (`Halving`); None: it was not dropped.
    """

    prompt: SoftPrompt
    history: list[dict[str, float]]
    stopped: Stopped
    steps: int
    truncated: int
    seconds: float
    message: str = ""
    activation_bytes: int = 0
    passes: int = 1
    dropped: int | None = None


@dataclass(frozen=True)
class Job:
    """What to tune.

    Attributes:
        task: Train and validation splits are used.
        recipe: How to tune.
        initial: ``[P', D]`` to start from instead of ``recipe.init``; resized to the recipe's length.
        parents: What ``initial`` was made of, for the card.
        mode: How to validate; None: `default_mode`.
        checkpoint: File that keeps the state at every look, removed by the caller.
        resume: Go on from ``checkpoint`` if it is there.
        on_event: Watches the progress.
        phase: What to call this run in progress events.
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


class PromptRun:
    """A job while it is tuned.

    Args:
        model: The frozen model.
        job: What to tune.

    Raises:
        DataError: The task has no training or validation examples.
        RecipeError: The checkpoint to resume from belongs to another run.
    """

    def __init__(self, model: FrozenModel, job: Job) -> None:
        task, recipe = job.task, job.recipe
        if not task.train or not task.validation:
            raise DataError(f"{task.name} needs training and validation examples; found {task.splits()}.")
        self.model, self.job, self.mode = model, job, job.mode or default_mode(task)
        if job.initial is None:
            first, self._ancestors = starting_prompt(model, task, recipe)
        else:
            first, self._ancestors = from_prompt(job.initial, recipe.length), []
        self.state = State(prompt=first.to(model.device).requires_grad_())
        self._optimizer = make_optimizer(recipe, self.state.prompt)
        self._identity = run_identity(model, task, recipe, self.mode, first)
        if job.resume and job.checkpoint is not None and job.checkpoint.is_file():
            self._resume(job.checkpoint)
        self.train = encode(
            model, task.train, end=needs_end(model, task.labels), prompt_length=recipe.length,
            max_input_tokens=recipe.max_input_tokens, labels=task.labels,
        )  # fmt: skip
        self.stopped: Stopped | None = None
        self.dropped: int | None = None
        self.message = ""
        self.activation_bytes, self.passes = 0, 1
        self._clock = Clock(self.state)
        self._tokens = 0

    def start(self) -> None:
        """Looks at a transferred prompt before its first step: it may already be the best; a random one never is."""
        if self.state.step == 0 and (self.job.parents or self._ancestors):
            self._look()
        self._end_if_done()

    def next_batch(self) -> Batch:
        """Rows of the training split for the next step."""
        recipe = self.job.recipe
        batch = self.train.batch(
            rows_of_step(len(self.train), recipe.batch_size, self.state.step, recipe.seed)
        )
        self._tokens = sum(map(len, batch.inputs))
        return batch

    def step(self, loss: float) -> None:
        """Takes the step whose gradient lies in the prompt, and looks at the validation split if it is time.

        Args:
            loss: Mean loss of the batch, nats a target token.
        """
        state, recipe = self.state, self.job.recipe
        if not self._moved(loss):
            self._diverged(state.step + 1)
            return
        state.note_step(loss)
        if state.step == recipe.key_step:
            state.key = state.prompt.detach().clone()
        if state.step % recipe.evaluate_every == 0 or state.step == recipe.steps:
            if not self._look():
                self._diverged(state.step)
                return
            state.seconds = self._clock.elapsed()
            if self.job.checkpoint is not None:
                write_checkpoint(self.job.checkpoint, state, self._optimizer, self._identity)
        self._end_if_done()
        self.job.on_event(
            self._clock.progress(
                self.job.phase, state, recipe.steps, self.job.task.metric, loss, self._tokens, self.passes
            )
        )

    def drop(self, rung: int) -> None:
        """Ends the run because others, tuned together with it, were better after ``rung`` steps."""
        self.stopped, self.dropped = "finished", rung
        self.message = f"Dropped after {rung} of {self.job.recipe.steps} steps: others were better."

    def interrupt(self) -> None:
        """Ends the run where it is."""
        self.stopped = "interrupted"
        self.message = f"Interrupted after {self.state.step} of {self.job.recipe.steps} steps."

    def result(self) -> Tuned:
        """The tuned prompt.

        Raises:
            DivergenceError: The loss was NaN or infinite before there was anything to keep.
        """
        state, stopped = self.state, self.stopped or "finished"
        if state.best is None:  # interrupted, or diverged, before the first look
            if stopped == "diverged":
                raise DivergenceError(self.message)
            state.best, state.best_step, state.best_score = (
                state.prompt.detach().clone(),
                state.step,
                math.nan,
            )
        key = None if state.key is None else state.key.cpu()
        prompt = SoftPrompt(value=state.best.cpu(), card=self._card(), key=key)
        return Tuned(
            prompt, state.history, stopped, state.step, self.train.truncated, self._clock.elapsed(), self.message,
            self.activation_bytes, self.passes, self.dropped,
        )  # fmt: skip

    def _resume(self, checkpoint: Path) -> None:
        ours = self.state.prompt
        self.state = read_checkpoint(checkpoint, self._optimizer, self._identity)
        with torch.no_grad():  # the optimizer holds the tensor, so its values are replaced, not the tensor
            ours.copy_(self.state.prompt)
        self.state.prompt = ours

    def _moved(self, loss: float) -> bool:
        """Takes the optimizer's step; False if loss, gradient or prompt are no numbers."""
        prompt = self.state.prompt
        if not math.isfinite(loss) or prompt.grad is None or not torch.isfinite(prompt.grad).all():
            return False
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return bool(torch.isfinite(prompt).all())

    def _look(self) -> bool:
        """Scores the prompt on the validation split and keeps it if it is the best; False if it is no number."""
        state = self.state
        found = evaluate(
            self.model, state.prompt.detach(), self.job.task.validation, self.job.task, self.mode,
            max_input_tokens=self.job.recipe.max_input_tokens,
        )  # fmt: skip
        if not is_number(found):
            return False
        if state.note_look(found):
            state.best = state.prompt.detach().clone()
        return True

    def _end_if_done(self) -> None:
        state, recipe = self.state, self.job.recipe
        if state.step >= recipe.steps:
            self.stopped = "finished"
        elif state.step >= recipe.key_step:
            self.message = state.out_of_patience(recipe.patience, recipe.steps)
            self.stopped = "finished" if self.message else None

    def _diverged(self, step: int) -> None:
        state = self.state
        kept = f"The best prompt so far (step {state.best_step}) is kept. " if state.best is not None else ""
        self.stopped = "diverged"
        self.message = (
            f"The loss or its gradient stopped being a number at step {step}. {kept}"
            f"Lower the learning rate (it was {self.job.recipe.learning_rate}), or load the model in float32."
        )

    def _card(self) -> Card:
        task, recipe, state, model = self.job.task, self.job.recipe, self.state, self.model
        score = {} if math.isnan(state.best_score) else {"validation": {task.metric: state.best_score}}
        return Card(
            name=task.name, task=task.name, family=task.family, data_hash=task.data_hash(), template=task.template,
            form=task.form,
            labels=None if task.labels is None else list(task.labels), model=model.name,
            model_fingerprint=model.fingerprint, dtype=str(model.dtype).removeprefix("torch."),
            recipe=recipe.model_dump(), seed=recipe.seed, scores=score, evaluation=self.mode, metric=task.metric,
            splits=task.splits(), steps=state.step, best_step=state.best_step,
            key_step=recipe.key_step if state.key is not None else None,
            parents=[*self.job.parents, *self._ancestors], versions=versions(), license=task.license,
            source=task.source,
        )  # fmt: skip


def run_identity(model: FrozenModel, task: Task, recipe: Recipe, mode: Mode, first: Tensor) -> str:
    """Hash of all that decides a run, so that only the same run resumes."""
    parts = [model.fingerprint, str(model.dtype), task.data_hash(), recipe.model_dump_json(), mode]
    return sha256_of_text([*parts, str(first.tolist())])[:16]
