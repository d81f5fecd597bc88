"""Budgets: the ceiling by data, minutes that become steps, and a resumed run with the same steps."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from spoton.tuning import Recipe
from spoton.tuning.budget import (
    scored_rows,
    seconds_of,
    steps_between_evaluations,
    steps_for_data,
    steps_for_minutes,
    with_budget,
    with_interval,
)
from spoton.tuning.recipe import Calibrate
from tests.tiny import tiny, toy_task

RECIPE = Recipe(length=4, evaluate_every=4, batch_size=4, average=0.9)


@pytest.mark.parametrize(
    ("examples", "batch_size", "steps"),
    [(1, 8, 60), (100, 8, 100), (101, 8, 101), (100, 32, 60), (10**6, 8, 1000)],
)
def test_the_ceiling_is_eight_passes_over_the_rows(examples: int, batch_size: int, steps: int) -> None:
    assert steps_for_data(examples, batch_size) == steps


def test_minutes_are_planned_with_what_a_step_takes_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spoton.tuning.budget.seconds_of", lambda *given: (1.0, 8.0))
    model, task = tiny("llama"), toy_task()
    # 85 % of ten minutes are planned with: 166 steps, 42 evaluations and one of the start, of eight seconds each.
    assert steps_for_minutes(model, task, RECIPE, 10) == 166
    assert steps_for_minutes(model, task, RECIPE, 0.001) == 1
    # Two more rates take four steps and two evaluations each.
    assert steps_for_minutes(model, task, RECIPE.changed(learning_rate="auto"), 10) == 152


@pytest.mark.parametrize("minutes", [1, 2, 3, 10, 60])
def test_the_evaluations_of_the_planned_run_are_within_its_minutes(
    monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    """A short run evaluates more often than a long one, so its interval is part of the plan."""
    monkeypatch.setattr("spoton.tuning.budget.seconds_of", lambda *given: (1.0, 10.0))
    example = toy_task().train[0]
    task = replace(toy_task(), validation=(example,) * 400)
    planned = with_budget(tiny("llama"), task, RECIPE, minutes=minutes)

    def seconds(recipe: Recipe) -> float:
        return recipe.steps + 10 * (1 + math.ceil(recipe.steps / recipe.evaluate_every))

    assert seconds(planned) <= 0.85 * 60 * minutes
    assert seconds(with_interval(planned.changed(steps=planned.steps + 1), task)) > 0.85 * 60 * minutes


def test_a_step_and_an_evaluation_are_really_timed() -> None:
    step, evaluation = seconds_of(tiny("llama"), toy_task(), RECIPE)
    assert 0 < step < 60 and 0 < evaluation < 60


def test_chosen_steps_are_kept_for_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, task, kept = tiny("llama"), toy_task(), tmp_path / "budget.json"
    first = with_budget(model, task, RECIPE, minutes=0.02, kept=kept)
    assert list(json.loads(kept.read_text())["steps"].values()) == [first.steps]
    # The machine is slower now, but the command is the same.
    monkeypatch.setattr("spoton.tuning.budget.seconds_of", lambda *given: (0.01, 0.0))
    assert with_budget(model, task, RECIPE, minutes=0.02, kept=kept).steps == first.steps
    assert with_budget(model, task, RECIPE).steps == 60
    for damaged in ("", "[]", '{"steps": "many"}', '{"steps": {"a": "many"}}', '{"steps": 7}', "[" * 100_000):
        kept.write_text(damaged)
        assert with_budget(model, task, RECIPE, minutes=0.02, kept=kept).steps == 102
        assert list(json.loads(kept.read_text())["steps"].values()) == [102]


def test_other_minutes_rows_or_options_are_another_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`adapt` repeated with more minutes is to take them, and its first command still resumes."""
    monkeypatch.setattr("spoton.tuning.budget.seconds_of", lambda *given: (1.0, 0.0))
    model, task, kept = tiny("llama"), toy_task(), tmp_path / "budget.json"
    assert with_budget(model, task, RECIPE, minutes=10, kept=kept).steps == 510
    assert with_budget(model, task, RECIPE, minutes=20, kept=kept).steps == 1020
    monkeypatch.setattr("spoton.tuning.budget.seconds_of", lambda *given: (2.0, 0.0))
    larger = RECIPE.changed(batch_size=8)
    assert with_budget(model, task, larger, minutes=10, kept=kept).steps == 255
    assert with_budget(model, task.limited(train=12), RECIPE, minutes=10, kept=kept).steps == 255
    assert with_budget(model, task, RECIPE, minutes=10, kept=kept).steps == 510


@pytest.mark.parametrize(
    ("steps", "rows", "average", "calibrate", "every"),
    [
        (400, 50, 0.95, "end", 20),  # never more often than every twentieth step
        (400, 200, 0.95, "end", 50),  # 2 * 200 rows forward are 25 steps of 8 forward and backward, half of 50
        (400, 200, 0.0, "end", 25),
        (400, 200, 0.0, "every", 45),  # and 128 training rows that calibrate: 20.5 steps
        (400, 10_000, 0.95, "end", 200),  # and at least twice
        (10, 10_000, 0.95, "end", 20),
    ],
)  # fmt: skip
def test_evaluations_take_at_most_a_third_of_the_time(
    steps: int, rows: int, average: float, calibrate: Calibrate, every: int
) -> None:
    recipe = Recipe(steps=steps, batch_size=8, average=average, calibrate=calibrate)
    example = toy_task().train[0]
    task = replace(toy_task(), train=(example,) * 200, validation=(example,) * rows)
    assert steps_between_evaluations(recipe, scored_rows(recipe, task)) == every
    assert with_interval(recipe, task).evaluate_every == every


def test_a_budget_chooses_the_interval_between_evaluations_unless_it_is_kept() -> None:
    model, task = tiny("llama"), toy_task()
    chosen = with_budget(model, task, RECIPE)
    assert (
        chosen.evaluate_every
        == steps_between_evaluations(chosen, scored_rows(chosen, task))
        != RECIPE.evaluate_every
    )
    assert with_budget(model, task, RECIPE, interval=False).evaluate_every == RECIPE.evaluate_every
    assert with_interval(RECIPE.changed(steps=10), task).evaluate_every == 20
