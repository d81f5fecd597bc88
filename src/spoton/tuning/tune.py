"""The tuning loop: learns prompts for a frozen model, one or several in every pass through it.

It reads top to bottom: the next batch of every prompt, losses, gradients, a step of each. `prompt_run.py` holds what
belongs to one prompt alone (its data, optimizer, validation, checkpoint, end); `microbatches.py` fits passes into
memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from spoton.errors import DivergenceError
from spoton.evaluation.arguments import require_loaded
from spoton.evaluation.score import Mode
from spoton.events import OnEvent, silent
from spoton.models.frozen import FrozenModel
from spoton.prompts.card import Parent
from spoton.tasks.task import Task
from spoton.tuning.halving import Halving, Look
from spoton.tuning.initial_prompt import embedding_rms
from spoton.tuning.microbatches import Microbatches
from spoton.tuning.prompt_run import Job, PromptRun, Tuned
from spoton.tuning.recipe import Recipe, require_recipe
from spoton.tuning.shared_evaluation import shared_evaluations
from spoton.tuning.training_run import TrainingRun

AUTO_RATES = (0.03, 0.1, 0.4)
"""Learning rates that `learning_rate: auto` tries, in root mean squares of the embedding rows."""


def tune(
    model: FrozenModel,
    task: Task,
    recipe: Recipe,
    *,
    initial: Tensor | None = None,
    parents: Sequence[Parent] = (),
    mode: Mode | None = None,
    checkpoint: Path | str | None = None,
    resume: bool = False,
    until: int | None = None,
    on_event: OnEvent = silent,
    phase: str = "tuning",
) -> Tuned:
    """Tunes one prompt (Lester et al. 2021, section 2): the model is frozen, only the prompt gets a gradient.

    The value is the best prompt by validation; the key is the prompt at `recipe.key_step`. The test split is never used
    here.

    Args:
        model: The frozen model.
        task: Train and validation splits are used.
        recipe: How to tune.
        initial: `[P', D]` to start from instead of `recipe.init`; resized to the recipe's length.
        parents: The prompts that made `initial`, for the card.
        mode: How to validate; None: `default_mode`.
        checkpoint: File that keeps the state at every evaluation; the caller removes it, and all of `checkpoints_of`
            if the recipe leaves the learning rate open.
        resume: Resume from `checkpoint` if it exists.
        until: Step after which the run ends, on the schedule of all steps of the recipe, as for a probe of its first
            steps; None: after the last.
        on_event: Called with progress events.
        phase: Name of this run in progress events.

    Raises:
        DataError: The task has no training or validation examples, or is not loaded.
        ModelError: The model is not loaded.
        RecipeError: The recipe is the name of a preset, or plain values.
        DivergenceError: The loss was NaN or infinite before there was anything to keep.
    """
    require_loaded(model, task)
    require_recipe(recipe)
    file = None if checkpoint is None else Path(checkpoint)
    return tune_job(
        model, Job(task, recipe, initial, parents, mode, file, resume, on_event, phase, until=until)
    )


def tune_job(model: FrozenModel, job: Job) -> Tuned:
    """Tunes one prompt, as `tune` does.

    Raises:
        DataError: The task has no training or validation examples.
        DivergenceError: The loss was NaN or infinite before there was anything to keep.
    """
    recipe = job.recipe
    jobs = [job] if recipe.learning_rate != "auto" else with_rates(model, job)
    halving = None
    if len(jobs) > 1 and recipe.evaluate_every < recipe.steps:
        halving = Halving(rungs=[recipe.evaluate_every], keep=1 / len(jobs), select="loss")
    results = tune_together(model, jobs, halving=halving)
    best = best_of(results)
    if len(results) == 1:
        return best
    rate = best.prompt.card.recipe["learning_rate"]
    others = sum(run.steps for run in results if isinstance(run, Tuned)) - best.steps
    words = f"Chose the learning rate {rate:.2g} of {len(results)}; the others took {others} steps."
    return replace(best, message=f"{best.message} {words}".strip())


def tune_together(
    model: FrozenModel,
    jobs: Sequence[Job],
    *,
    activation_limit: float | None = None,
    halving: Halving | None = None,
    rivals: Mapping[int, Sequence[Look]] | None = None,
) -> list[Tuned | DivergenceError]:
    """Tunes several prompts (seeds, learning rates, starts or tasks) in every pass over one copy of the model.

    Each runs as it would alone (same examples, optimizer state, validation, end), up to the order in which
    floating-point numbers are summed. A prompt that ends early leaves the passes of the others.

    Args:
        model: The frozen model.
        jobs: The prompts to tune.
        activation_limit: Bytes that a pass may keep for its backward pass; a larger step is split and its gradients
            are added up. None: half of the free memory at the first step.
        halving: The steps at which the jobs are compared, and the share that continues. None: all continue.
        rivals: Evaluations of prompts that belong to these jobs and are already tuned, by their index among all; the
            jobs are compared with them too.

    Returns:
        The result of each job, in order; a `DivergenceError` where a loss was NaN before there was anything to keep.

    Raises:
        DataError: A task has no training or validation examples.
        RecipeError: The jobs would be compared at steps without an evaluation.
    """
    if halving is not None:
        for job in jobs:
            halving.require_evaluations(job.recipe.steps, job.recipe.evaluate_every)
    runs = [PromptRun(model, job) for job in jobs]
    train_together(
        model, [run.run for run in runs], [run.begin for run in runs], activation_limit, halving, rivals
    )
    return [_result(run) for run in runs]


def train_together(
    model: FrozenModel,
    runs: Sequence[TrainingRun],
    begin: Sequence[Callable[[], None]],
    activation_limit: float | None = None,
    halving: Halving | None = None,
    rivals: Mapping[int, Sequence[Look]] | None = None,
) -> None:
    """Takes the steps of runs that share every pass through one model, until all of them end; see `tune_together`."""
    passes = Microbatches(model, activation_limit)
    try:
        for ready in begin:
            ready()
        while active := _going_on(runs, halving, rivals or {}):
            made = [run.learner.prompt() for run in active]
            losses = passes.backward(made, [run.next_rows() for run in active])
            for run in active:
                run.activation_bytes, run.passes = passes.most_bytes, passes.most_passes
            _step(active, losses)
    except KeyboardInterrupt:
        for run in runs:
            if run.stopped is None:
                run.interrupt()
    for run in runs:
        run.message = " ".join(filter(None, [run.message, *passes.messages]))


def _step(runs: Sequence[TrainingRun], losses: Tensor) -> None:
    """Takes a step of K runs from their gradients.

    Waits for the device twice, however many runs there are, since a GPU runs out of work at every wait.

    Args:
        runs: The runs.
        losses: `[K]` the loss of each in nats, on the device.
    """
    norms = [run.gradient_norm() for run in runs]
    numbers: list[list[float]] = torch.stack(
        [losses, torch.stack([norm.to(losses) for norm in norms])]
    ).tolist()
    finite = [math.isfinite(loss) and math.isfinite(norm) for loss, norm in zip(*numbers, strict=True)]
    moved = [
        run.move(norm).to(losses.device)
        for run, norm, sound in zip(runs, norms, finite, strict=True)
        if sound
    ]
    sound_after = iter(torch.stack(moved).tolist() if moved else [])
    finite = [sound and next(sound_after) for sound in finite]
    # All are noted before the first evaluation, where an interrupt is likely: a step that was taken is counted.
    for run, loss, sound in zip(runs, numbers[0], finite, strict=True):
        run.note_step(loss, finite=sound)
    known = shared_evaluations([run for run in runs if run.evaluates_now()])
    for run in runs:
        run.finish_step(known.get(run))


def _going_on(
    runs: Sequence[TrainingRun], halving: Halving | None, rivals: Mapping[int, Sequence[Look]]
) -> list[TrainingRun]:
    """Returns the runs that take the next step; ends those that fall behind at a rung."""
    rung = None
    if halving is not None:
        waiting = iter(runs)
        places = [None if i in rivals else next(waiting) for i in range(len(runs) + len(rivals))]
        ended, rung = halving.decide(
            [rivals[i] if run is None else run.course.history for i, run in enumerate(places)],
            [run is None or (run.stopped is not None and run.dropped is None) for run in places],
        )
        for run, end in zip(places, ended, strict=True):
            if run is not None and end is not None and run.stopped is None:
                run.drop(end)
    active = [run for run in runs if run.stopped is None]
    if rung is None:
        return active
    return [run for run in active if run.course.step < rung]  # after a resume, some may have to catch up


def with_rates(model: FrozenModel, job: Job) -> list[Job]:
    """Returns the job with each of three learning rates; all but the first keep their checkpoint under another name.

    Args:
        model: The model that gives the unit of the rates.
        job: A job whose recipe leaves the rate open.
    """
    rates = [rate * embedding_rms(model) for rate in AUTO_RATES]
    jobs = []
    files = [None] * len(rates) if job.checkpoint is None else checkpoints_of(job.checkpoint)
    for rate, file in zip(rates, files, strict=True):
        recipe = job.recipe.changed(learning_rate=rate, rate_unit="absolute")
        jobs.append(replace(job, recipe=recipe, checkpoint=file, phase=f"{job.phase}, rate {rate:.2g}"))
    return jobs


def checkpoints_of(file: Path) -> list[Path]:
    """Returns the checkpoint of a run, and those of the further rates that `learning_rate: auto` tries next to it.

    All of them stay until the result is safe: the rate that was chosen may be any of them.
    """
    return [file, *(file.with_name(f"{file.stem}.rate{n}{file.suffix}") for n in range(1, len(AUTO_RATES)))]


def best_of(results: Sequence[Tuned | DivergenceError]) -> Tuned:
    """Returns the run that was not dropped, or scored best. It counts as interrupted if any of them was.

    Raises:
        DivergenceError: Every run diverged before there was anything to keep.
    """
    tuned = [result for result in results if isinstance(result, Tuned)]
    if not tuned:
        raise next(result for result in results if isinstance(result, DivergenceError))
    best = max(tuned, key=lambda run: (run.dropped is None, run.validation))
    stopped = next((run for run in tuned if run.stopped == "interrupted"), None)
    return best if stopped is None else replace(best, stopped="interrupted", message=stopped.message)


def _result(run: PromptRun) -> Tuned | DivergenceError:
    try:
        return run.result()
    except DivergenceError as error:
        return error
