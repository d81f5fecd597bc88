"""The tuning loop: one plain loop over steps that learns a prompt for a frozen model.

It reads top to bottom: start, step, look at the validation split, keep key and best, finish. Batches, optimizer,
evaluation and checkpoints are next door; what becomes of the tuned prompt is the caller's business.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from spoton.errors import DataError, DivergenceError
from spoton.files import sha256_of_text
from spoton.models.engine import engine_for
from spoton.models.frozen import FrozenModel
from spoton.prompts.card import Card, Parent
from spoton.prompts.initial import from_prompt
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.tasks.task import Task
from spoton.tuning.batches import Encoded, encode, needs_end, rows_of_step
from spoton.tuning.checkpoint import State, read_checkpoint, write_checkpoint
from spoton.tuning.evaluation import Mode, default_mode, evaluate
from spoton.tuning.events import OnEvent, Progress, silent
from spoton.tuning.optimizer import make_optimizer
from spoton.tuning.recipe import Recipe
from spoton.tuning.record import versions
from spoton.tuning.start import starting_prompt

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
    """

    prompt: SoftPrompt
    history: list[dict[str, float]]
    stopped: Stopped
    steps: int
    truncated: int
    seconds: float
    message: str = ""


def tune(
    model: FrozenModel,
    task: Task,
    recipe: Recipe,
    *,
    initial: Tensor | None = None,
    parents: Sequence[Parent] = (),
    mode: Mode | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    on_event: OnEvent = silent,
    phase: str = "tuning",
) -> Tuned:
    """Tunes one prompt (Lester et al. 2021, section 2): the model is frozen, only the prompt gets a gradient.

    The best prompt by validation is the value; the prompt at ``recipe.key_step`` is the key. The test split is never
    looked at here.

    Args:
        model: The frozen model.
        task: Train and validation splits are used.
        recipe: How to tune.
        initial: ``[P', D]`` to start from instead of ``recipe.init``; resized to the recipe's length.
        parents: What ``initial`` was made of, for the card.
        mode: How to validate; None: `default_mode`.
        checkpoint: File that keeps the state at every look, removed by the caller.
        resume: Go on from ``checkpoint`` if it is there.
        on_event: Watches the progress.
        phase: What to call this run in progress events.

    Raises:
        DataError: The task has no training or validation examples.
        DivergenceError: The loss was NaN or infinite before there was anything to keep.
    """
    if not task.train or not task.validation:
        raise DataError(f"{task.name} needs training and validation examples; found {task.splits()}.")
    mode = mode or default_mode(task)
    start, ancestors = (None, []) if initial is not None else starting_prompt(model, task, recipe)
    first = from_prompt(initial, recipe.length) if initial is not None else start
    assert first is not None
    state = State(prompt=first.to(model.device).requires_grad_())
    optimizer = make_optimizer(recipe, state.prompt)
    identity = run_identity(model, task, recipe, mode, first)
    if resume and checkpoint is not None and checkpoint.is_file():
        state = read_checkpoint(checkpoint, optimizer, identity)
        with torch.no_grad():  # the optimizer holds the tensor, so its values are replaced, not the tensor
            optimizer.param_groups[0]["params"][0].copy_(state.prompt)
        state.prompt = optimizer.param_groups[0]["params"][0]
    train = encode(
        model, task.train, end=needs_end(model, task.labels), prompt_length=recipe.length,
        max_input_tokens=recipe.max_input_tokens, labels=task.labels,
    )  # fmt: skip

    def look() -> bool:
        """Scores the prompt on the validation split and keeps it if it is the best; False if it is no number."""
        found = evaluate(
            model,
            state.prompt.detach(),
            task.validation,
            task,
            mode,
            max_input_tokens=recipe.max_input_tokens,
        )
        if found.loss is not None and not math.isfinite(found.loss):
            return False
        loss = math.inf if found.loss is None else found.loss
        entry = {"step": float(state.step), "validation": found.score}
        state.history.append(entry if found.loss is None else entry | {"validation_loss": loss})
        if (found.score, -loss) > (state.best_score, -state.best_loss):
            state.best, state.best_step = state.prompt.detach().clone(), state.step
            state.best_score, state.best_loss = found.score, loss
        return True

    stopped: Stopped = "finished"
    message = ""
    clock = _Clock(state.seconds)
    try:
        if state.step == 0 and (parents or ancestors):
            look()  # a transferred prompt may already be the best; a random one never is
        while state.step < recipe.steps:
            rows = rows_of_step(len(train), recipe.batch_size, state.step, recipe.seed)
            loss = _step(model, optimizer, state.prompt, train, rows)
            if not math.isfinite(loss):
                stopped, message = "diverged", _divergence(state, recipe, state.step + 1)
                break
            state.step += 1
            state.history.append({"step": float(state.step), "loss": loss})
            if state.step == recipe.key_step:
                state.key = state.prompt.detach().clone()
            if state.step % recipe.evaluate_every == 0 or state.step == recipe.steps:
                if not look():
                    stopped, message = "diverged", _divergence(state, recipe, state.step)
                    break
                state.seconds = clock.elapsed()
                if checkpoint is not None:
                    write_checkpoint(checkpoint, state, optimizer, identity)
            on_event(
                clock.progress(
                    phase, state, recipe, task.metric, loss, sum(len(train.inputs[r]) for r in rows)
                )
            )
    except KeyboardInterrupt:
        stopped, message = "interrupted", f"Interrupted after {state.step} of {recipe.steps} steps."
    if state.best is None:
        if stopped == "diverged":
            raise DivergenceError(message)
        state.best, state.best_step = (
            state.prompt.detach().clone(),
            state.step,
        )  # interrupted before the first look
        state.best_score = math.nan
    card = _card(model, task, recipe, mode, state, [*parents, *ancestors])
    key = None if state.key is None else state.key.cpu()
    prompt = SoftPrompt(value=state.best.cpu(), card=card, key=key)
    return Tuned(prompt, state.history, stopped, state.step, train.truncated, clock.elapsed(), message)


def _step(
    model: FrozenModel, optimizer: torch.optim.Optimizer, prompt: Tensor, train: Encoded, rows: list[int]
) -> float:
    """One optimizer step on the mean loss a target token of ``rows``; returns that loss, NaN if it cannot go on."""
    optimizer.zero_grad(set_to_none=True)
    batch = train.batch(rows)
    losses = engine_for(model).losses(prompt[None], batch)
    loss = losses.sum() / sum(len(target) for target in batch.targets)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    if torch.isfinite(loss) and prompt.grad is not None and torch.isfinite(prompt.grad).all():
        optimizer.step()
        if torch.isfinite(prompt).all():
            return float(loss.detach())
    return math.nan


def _divergence(state: State, recipe: Recipe, step: int) -> str:
    kept = f"The best prompt so far (step {state.best_step}) is kept. " if state.best is not None else ""
    return (
        f"The loss or its gradient stopped being a number at step {step}. {kept}"
        f"Lower the learning rate (it was {recipe.learning_rate}), or load the model in float32."
    )


def run_identity(model: FrozenModel, task: Task, recipe: Recipe, mode: Mode, first: Tensor) -> str:
    """Hash of all that decides a run, so that only the same run resumes."""
    parts = [model.fingerprint, task.data_hash(), recipe.model_dump_json(), mode, str(first.tolist())]
    return sha256_of_text(parts)[:16]


def _card(
    model: FrozenModel, task: Task, recipe: Recipe, mode: Mode, state: State, parents: Sequence[Parent]
) -> Card:
    score = {} if math.isnan(state.best_score) else {"validation": {task.metric: state.best_score}}
    return Card(
        name=task.name, task=task.name, family=task.family, data_hash=task.data_hash(), template=task.template,
        labels=None if task.labels is None else list(task.labels), model=model.name,
        model_fingerprint=model.fingerprint, recipe=recipe.model_dump(), seed=recipe.seed, scores=score,
        evaluation=mode, metric=task.metric, splits=task.splits(), steps=state.step, best_step=state.best_step,
        key_step=recipe.key_step if state.key is not None else None, parents=list(parents), versions=versions(),
        license=task.license, source=task.source,
    )  # fmt: skip


class _Clock:
    """Wall time of a run and what it predicts."""

    def __init__(self, before: float) -> None:
        self._start, self._before = time.perf_counter(), before
        self._tokens, self._first_step = 0, -1

    def elapsed(self) -> float:
        """Seconds spent, those before a resume included."""
        return self._before + time.perf_counter() - self._start

    def progress(
        self, phase: str, state: State, recipe: Recipe, metric: str, loss: float, tokens: int
    ) -> Progress:
        """The event of one finished step."""
        if self._first_step < 0:
            self._first_step = state.step - 1
        self._tokens += tokens
        spent = time.perf_counter() - self._start
        looks = [entry["validation"] for entry in state.history if "validation" in entry]
        return Progress(
            phase, state.step, recipe.steps, "step", loss=loss, metric=metric,
            validation=looks[-1] if looks else None, best=state.best_score if looks else None,
            tokens_per_second=self._tokens / spent,
            seconds_left=spent / (state.step - self._first_step) * (recipe.steps - state.step),
        )  # fmt: skip
