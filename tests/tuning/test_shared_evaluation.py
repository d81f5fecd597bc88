"""Evaluations in shared passes are those of each run alone; they are used where they are faster."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import pytest
import torch

from spoton.tuning import Job, Recipe, Tuned, tune_together
from spoton.tuning.prompt_run import PromptRun
from spoton.tuning.shared_evaluation import Found, evaluated_together, shared_evaluations
from spoton.tuning.training_run import TrainingRun
from tests.tiny import tiny, toy_task

RECIPE = Recipe(length=4, steps=4, key_step=2, evaluate_every=2, batch_size=4, average=0.9)
TUNE = import_module("spoton.tuning.tune")  # the package has a function of this name


def jobs() -> list[Job]:
    """Runs on two tasks, of two lengths and two ways of scoring labels; one generates."""
    task, other = toy_task(), toy_task().limited(validation=5)
    recipes = [RECIPE, RECIPE.changed(seed=1), RECIPE.changed(length=7), RECIPE.changed(label_score="mean")]
    return [
        *(Job(task, recipe) for recipe in recipes), Job(other, RECIPE), Job(task, RECIPE, mode="generate"),
    ]  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_each_evaluation_is_that_of_the_run_alone(family: str) -> None:
    runs = [PromptRun(tiny(family), job).run for job in jobs()]
    for run in runs:
        run.learner.stepped(1)  # so that last and average are two candidates
    found = evaluated_together(runs)
    assert list(found) == runs[:-1]
    for run, evaluations in found.items():
        candidates = run.learner.candidates()
        assert evaluations.keys() == candidates.keys() == {"last", "average"}
        for name, together in evaluations.items():
            alone = run.evaluation(candidates[name])
            assert together.loss == pytest.approx(alone.loss, rel=1e-5)
            assert (together.scores, together.n, together.truncated) == (
                alone.scores,
                alone.n,
                alone.truncated,
            )
            torch.testing.assert_close(together.label_scores, alone.label_scores, rtol=1e-5, atol=1e-4)


def test_runs_on_a_cpu_evaluate_alone() -> None:
    assert shared_evaluations([PromptRun(tiny("llama"), job).run for job in jobs()]) == {}


def test_runs_end_the_same_with_shared_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = tiny("llama"), []

    def shared(runs: Sequence[TrainingRun]) -> Found:
        asked.append([(run.course.step, run.recipe.seed) for run in runs])
        return evaluated_together(runs)

    some = [*jobs(), Job(toy_task(), RECIPE.changed(steps=3, calibrate="every", seed=2))]
    alone = tune_together(model, some)
    monkeypatch.setattr(TUNE, "shared_evaluations", shared)
    together = tune_together(model, some)
    assert [len(runs) for runs in asked] == [0, 7, 1, 6]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Tuned) and isinstance(other, Tuned)
        assert torch.equal(one.prompt.value, other.prompt.value)
        for ours, theirs in zip(one.history, other.history, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)
