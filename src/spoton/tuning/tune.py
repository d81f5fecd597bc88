"""The tuning loop: prompts are learned for a frozen model, one or several in every pass through it.

It reads top to bottom: the next batch of every prompt, losses, gradients, a step of each. What belongs to one prompt
alone (its data, optimizer, validation, checkpoint, end) is in ``prompt_run.py``, how passes fit into memory in
``microbatches.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from spoton.errors import DivergenceError
from spoton.evaluation.score import Mode
from spoton.events import OnEvent, silent
from spoton.models.frozen import FrozenModel
from spoton.prompts.card import Parent
from spoton.tasks.task import Task
from spoton.tuning.halving import Halving, Look
from spoton.tuning.microbatches import Microbatches
from spoton.tuning.prompt_run import Job, PromptRun, Tuned
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
    runs = [PromptRun(model, job) for job in jobs]
    passes = Microbatches(model, activation_limit)
    try:
        for run in runs:
            run.start()
        while active := _going_on(runs, halving, rivals or {}):
            batches = [run.next_batch() for run in active]
            losses = passes.gradients([run.state.prompt for run in active], batches)
            for run, loss in zip(active, losses, strict=True):
                run.activation_bytes, run.passes = passes.most_bytes, passes.most_passes
                run.step(loss)
    except KeyboardInterrupt:
        for run in runs:
            if run.stopped is None:
                run.interrupt()
    return [_result(run) for run in runs]


def _going_on(
    runs: Sequence[PromptRun], halving: Halving | None, rivals: Mapping[int, Sequence[Look]]
) -> list[PromptRun]:
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


def _result(run: PromptRun) -> Tuned | DivergenceError:
    try:
        return run.result()
    except DivergenceError as error:
        return error
