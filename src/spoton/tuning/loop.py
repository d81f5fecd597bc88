"""The tuning loop: prompts are learned for a frozen model, one or several in every pass through it.

It reads top to bottom: next rows of every prompt, losses, gradients, a step of each. What belongs to one prompt alone
(its data, optimizer, validation, checkpoint, end) is in ``job.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from spoton.errors import DivergenceError
from spoton.models.engine import Batch, engine_for
from spoton.models.frozen import FrozenModel
from spoton.prompts.card import Parent
from spoton.tasks.task import Task
from spoton.tuning.evaluation import Mode
from spoton.tuning.events import OnEvent, silent
from spoton.tuning.halving import Halving, Look
from spoton.tuning.job import Job, Running, Tuned
from spoton.tuning.memory import SHARE_OF_FREE, count_kept, free_bytes, split
from spoton.tuning.recipe import Recipe


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
    job = Job(task, recipe, initial, parents, mode, checkpoint, resume, on_event, phase)
    (tuned,) = tune_together(model, [job])
    if isinstance(tuned, DivergenceError):
        raise tuned
    return tuned


def tune_together(
    model: FrozenModel,
    jobs: Sequence[Job],
    *,
    activation_limit: float | None = None,
    halving: Halving | None = None,
    rivals: Mapping[int, Sequence[Look]] | None = None,
) -> list[Tuned | DivergenceError]:
    """Tunes several prompts in every pass over one copy of the model: seeds, learning rates, starts or tasks.

    Each goes as it would alone (same examples, optimizer state, validation, end), up to the order in which floating
    point numbers are summed. One that ends early leaves the passes of the others.

    Args:
        model: The frozen model.
        jobs: What to tune.
        activation_limit: Bytes that a pass may keep for its backward pass; a larger step is split and its gradients
            are added up. None: half of what is free when the first step is taken.
        halving: At which steps the jobs are compared and which of them go on. None: all do.
        rivals: Looks of prompts that belong to these and are tuned already, by their place among all; they are
            compared with the jobs, too.

    Returns:
        The result of each job, in order; a `DivergenceError` where a loss was NaN before there was anything to keep.

    Raises:
        DataError: A task has no training or validation examples.
        RecipeError: The jobs are to be compared at steps at which nobody looks.
    """
    if halving is not None:
        for job in jobs:
            halving.require_looks(job.recipe.steps, job.recipe.evaluate_every)
    runs = [Running(model, job) for job in jobs]
    passes = _Passes(model, activation_limit)
    try:
        for run in runs:
            run.start()
        while active := _going_on(runs, halving, rivals or {}):
            for run, loss in zip(active, passes.gradients(active), strict=True):
                run.activation_bytes, run.passes = passes.most_bytes, passes.most_passes
                run.step(loss)
    except KeyboardInterrupt:
        for run in runs:
            if run.stopped is None:
                run.interrupt()
    return [_result(run) for run in runs]


def _going_on(
    runs: Sequence[Running], halving: Halving | None, rivals: Mapping[int, Sequence[Look]]
) -> list[Running]:
    """The runs that take the next step; ends those that are behind at a rung."""
    rung = None
    if halving is not None:
        waiting = iter(runs)
        places = [None if i in rivals else next(waiting) for i in range(len(runs) + len(rivals))]
        ended, rung = halving.decide(
            [rivals[i] if run is None else run.state.history for i, run in enumerate(places)],
            [run is None or (run.stopped is not None and run.dropped is None) for run in places],
        )
        for run, end in zip(places, ended, strict=True):
            if run is not None and end is not None and run.stopped is None:
                run.drop(end)
    active = [run for run in runs if run.stopped is None]
    if rung is None:
        return active
    return [run for run in active if run.state.step < rung]  # after a resume, some may have to catch up


def _result(run: Running) -> Tuned | DivergenceError:
    try:
        return run.result()
    except DivergenceError as error:
        return error


class _Passes:
    """Losses and gradients of a step, in as many passes as memory asks for.

    Args:
        model: The frozen model.
        limit: Bytes that a pass may keep; None: found out at the first step.

    Attributes:
        most_bytes: Most bytes that a pass has kept so far.
        most_passes: Most passes that a step has taken so far.
    """

    def __init__(self, model: FrozenModel, limit: float | None) -> None:
        self._model, self._engine, self._limit = model, engine_for(model), limit
        self._bytes_per_token, self._most_tokens = 0.0, 0
        self.most_bytes, self.most_passes = 0, 1

    def gradients(self, runs: Sequence[Running]) -> list[float]:
        """Adds the gradient of every run's mean loss to its prompt; returns these losses, nats a target token."""
        inputs: list[list[int]] = []
        targets: list[list[int]] = []
        own: list[int] = []
        weights: list[float] = []
        for number, run in enumerate(runs):
            run.state.prompt.grad = None
            rows = run.next_rows()
            total = sum(len(run.train.targets[row]) for row in rows)
            inputs += [run.train.inputs[row] for row in rows]
            targets += [run.train.targets[row] for row in rows]
            own += [number] * len(rows)
            weights += [1.0 / total] * len(rows)
        prompts = [run.state.prompt for run in runs]
        shared = 0 if self._engine.repeats_prompts else sum(map(len, prompts))
        tokens = [len(i) + len(t) for i, t in zip(inputs, targets, strict=True)]
        if self._engine.repeats_prompts:
            tokens = [n + len(prompts[k]) for n, k in zip(tokens, own, strict=True)]
        losses = [0.0] * len(runs)
        parts = split(tokens, self._room(prompts, inputs, targets, own) - shared)
        self.most_passes = max(self.most_passes, len(parts))
        for part in parts:
            batch = Batch([inputs[i] for i in part], [targets[i] for i in part], [own[i] for i in part])
            found = self._losses(prompts, batch, shared + sum(tokens[i] for i in part))
            weighted = found * torch.tensor([weights[i] for i in part], device=found.device)
            weighted.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            for i, value in zip(part, weighted.tolist(), strict=True):
                losses[own[i]] += value
        return losses

    def _losses(self, prompts: Sequence[Tensor], batch: Batch, tokens: int) -> Tensor:
        """The engine's losses; what they keep is counted whenever a pass is larger than all before it."""
        if tokens <= self._most_tokens:
            return self._engine.losses(prompts, batch)
        with count_kept(self._model.network) as kept:
            found = self._engine.losses(prompts, batch)
        self.most_bytes, self._most_tokens = max(self.most_bytes, kept.bytes), tokens
        return found

    def _room(
        self,
        prompts: Sequence[Tensor],
        inputs: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        own: Sequence[int],
    ) -> float:
        """How many tokens a pass may have, from what the first row of the first step keeps."""
        if not self._bytes_per_token:
            prompt = prompts[own[0]]
            with count_kept(self._model.network) as kept:
                self._engine.losses([prompt], Batch([inputs[0]], [targets[0]]))
            self._bytes_per_token = max(1.0, kept.bytes / (len(prompt) + len(inputs[0]) + len(targets[0])))
            if self._limit is None:
                self._limit = SHARE_OF_FREE * free_bytes(self._model.device)
        assert self._limit is not None
        return self._limit / self._bytes_per_token
