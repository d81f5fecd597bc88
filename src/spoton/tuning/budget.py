"""The steps and evaluations of a run when none are given: by the size of the data, or by minutes of wall time.

This sets the ceiling; patience may end a run earlier.
"""

from __future__ import annotations

import json
import math
import time
from bisect import bisect_right
from contextlib import suppress
from pathlib import Path

import torch

from spoton.evaluation.calibration import ROWS
from spoton.evaluation.encoding import needs_end
from spoton.evaluation.late_encoding import encode_for_training
from spoton.evaluation.score import Mode, evaluate, mode_of
from spoton.files import atomic_write, sha256_of_text
from spoton.models.frozen import FrozenModel
from spoton.parsing import parse_json
from spoton.reading import read_text
from spoton.tasks.task import Task
from spoton.tuning.identity import what_decides
from spoton.tuning.initial_prompt import starting_prompt
from spoton.tuning.microbatches import Microbatches, StepRows
from spoton.tuning.recipe import Recipe
from spoton.tuning.row_order import rows_of_step
from spoton.tuning.tune import AUTO_RATES

FEWEST_STEPS, MOST_STEPS = 60, 1000
EPOCHS = 8
"""Passes over the training rows that the ceiling allows, between the minimum and the maximum number of steps."""
PATIENCE = 5
"""Evaluations without an improvement that end a run whose steps are not given."""
_SHORTEST_INTERVAL = 20
"""Smallest chosen interval between two evaluations, in steps."""
_TIMED_STEPS = 2
_TIMED_ROWS = 32
_MARGIN = 0.85
"""Share of the minutes that is planned; loading, testing and noise take the rest."""


def steps_for_data(examples: int, batch_size: int) -> int:
    """Returns the ceiling for this many training rows.

    Examples:
        >>> steps_for_data(100, 8), steps_for_data(400, 8), steps_for_data(100_000, 8)
        (100, 400, 1000)
    """
    return min(MOST_STEPS, max(FEWEST_STEPS, -(-EPOCHS * examples // batch_size)))


def scored_rows(recipe: Recipe, task: Task) -> int:
    """Returns how many rows an evaluation scores: the validation split for every candidate, the last prompt and, where
    one is kept, the average; and training rows, if each is calibrated."""
    candidates = 2 if recipe.average else 1
    calibrated = min(ROWS, len(task.train)) if recipe.calibrate == "every" and task.labels is not None else 0
    return candidates * (len(task.validation) + calibrated)


def steps_between_evaluations(recipe: Recipe, scored: int) -> int:
    """Returns an interval that leaves two thirds of a run to tuning, or allows two evaluations if the run is short.

    Scoring a row costs a forward pass. Tuning on a row costs about two, since the frozen weights need no gradient. So
    an evaluation costs as much as `scored / (2 * batch_size)` steps if the rows of both splits are equally long.

    Args:
        recipe: A recipe, for its steps and batch size.
        scored: Number of rows that an evaluation scores, as from `scored_rows`.

    Example:
        >>> recipe = Recipe.preset("decoder", steps=400)
        >>> [steps_between_evaluations(recipe, rows) for rows in (100, 400, 1000)]
        [20, 50, 125]
    """
    cost = scored / (2 * recipe.batch_size)
    fair = max(_SHORTEST_INTERVAL, 5 * math.ceil(2 * cost / 5))
    return min(fair, max(_SHORTEST_INTERVAL, math.ceil(recipe.steps / 2)))


def steps_for_minutes(
    model: FrozenModel,
    task: Task,
    recipe: Recipe,
    minutes: float,
    mode: Mode | None = None,
    *,
    interval: bool = False,
) -> int:
    """Returns the steps that fit into some minutes, estimated from a few real steps and evaluated rows.

    Args:
        model: The frozen model.
        task: The task to tune on.
        recipe: How to tune, apart from the steps.
        minutes: Wall time of the whole run.
        mode: How to validate.
        interval: Whether the steps between two evaluations are chosen too, by `steps_between_evaluations`.
    """
    step, evaluation = seconds_of(model, task, recipe, mode)
    scored = scored_rows(recipe, task)
    rates = len(AUTO_RATES) if recipe.learning_rate == "auto" else 1

    def seconds(steps: int) -> float:
        run = recipe.changed(steps=steps)
        every = steps_between_evaluations(run, scored) if interval else run.evaluate_every
        evaluations = 1 + math.ceil(steps / every)  # a start may be evaluated too
        tried = (rates - 1) * (min(every, steps) * step + 2 * evaluation)
        return steps * step + evaluations * evaluation + tried

    most = max(1, int(_MARGIN * 60 * minutes / step))
    return max(1, bisect_right(range(1, most + 1), _MARGIN * 60 * minutes, key=seconds))


def seconds_of(
    model: FrozenModel, task: Task, recipe: Recipe, mode: Mode | None = None
) -> tuple[float, float]:
    """Measures the seconds of one step and of one evaluation, all candidates included."""
    prompt = starting_prompt(model, task, recipe)[0].to(model.device).requires_grad_()
    train = encode_for_training(
        model, task.train, end=needs_end(model, task.labels), prompt_length=len(prompt),
        max_input_tokens=recipe.max_input_tokens, labels=task.labels,
    )  # fmt: skip
    passes = Microbatches(model)
    began = 0.0
    for number in range(_TIMED_STEPS + 1):
        if number == 1:  # the first step also chooses the engine and measures memory
            began = time.perf_counter()
        rows = train.batch(rows_of_step(len(train), recipe.batch_size, number, recipe.seed))
        passes.gradients([prompt], [StepRows.of(rows, "examples")])
    step = (time.perf_counter() - began) / _TIMED_STEPS
    some = task.validation[:_TIMED_ROWS]
    began = time.perf_counter()
    with torch.no_grad():
        evaluate(
            model,
            prompt.detach(),
            some,
            task,
            mode_of(task, mode),
            max_input_tokens=recipe.max_input_tokens,
        )
    return step, (time.perf_counter() - began) * scored_rows(recipe, task) / len(some)


def with_budget(
    model: FrozenModel,
    task: Task,
    recipe: Recipe,
    *,
    minutes: float | None = None,
    interval: bool = True,
    mode: Mode | None = None,
    kept: Path | None = None,
) -> Recipe:
    """Returns the recipe with the steps and evaluations of its budget, and with patience if it has none.

    Args:
        model: The frozen model.
        task: The task to tune on.
        recipe: How to tune, apart from the steps.
        minutes: Wall time of the whole run; None: the ceiling that the data sets.
        interval: Whether the steps between two evaluations are chosen, too; False keeps `recipe.evaluate_every`.
        mode: How to validate.
        kept: File that keeps the steps chosen for these minutes, rows and recipe, so that a resumed run has the same;
            the caller removes it.
    """
    recipe = recipe.changed(patience=PATIENCE if recipe.patience is None else recipe.patience)
    if minutes is None:
        steps = steps_for_data(len(task.train), recipe.batch_size)
    else:
        steps = _planned_steps(model, task, recipe, minutes, mode, kept, interval=interval)
    recipe = recipe.changed(steps=steps)
    return with_interval(recipe, task) if interval else recipe


def with_interval(recipe: Recipe, task: Task) -> Recipe:
    """Returns the recipe with the steps between two evaluations that `steps_between_evaluations` chooses."""
    return recipe.changed(evaluate_every=steps_between_evaluations(recipe, scored_rows(recipe, task)))


def _planned_steps(
    model: FrozenModel,
    task: Task,
    recipe: Recipe,
    minutes: float,
    mode: Mode | None,
    kept: Path | None,
    *,
    interval: bool,
) -> int:
    """Returns the steps that fit into some minutes, as kept in a file if they were planned before."""
    if kept is None:
        return steps_for_minutes(model, task, recipe, minutes, mode, interval=interval)
    # A command may be repeated with other minutes, rows or options: their plan is another one. All plans are kept, so
    # that the first command still resumes after that.
    decided = [*what_decides(model, task, mode), recipe.model_dump_json(), str(minutes), str(interval)]
    plan = sha256_of_text(decided)[:16]
    plans: dict[str, int] = {}
    # A damaged file counts as missing: its steps are measured again, and a checkpoint with other steps is refused.
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        plans = {name: int(steps) for name, steps in parse_json(read_text(kept))["steps"].items()}
    if plan not in plans:
        plans[plan] = steps_for_minutes(model, task, recipe, minutes, mode, interval=interval)
        atomic_write(kept, json.dumps({"steps": plans}).encode())
    return plans[plan]
