"""The runs of the demo and of the starter library that the benchmark times: what they are, and on which engine."""

from __future__ import annotations

import pytest
import torch

from experiments.bench.jobs import ENGINE, PLAIN, models, runs, work
from spoton.models import engine_for
from spoton.tuning import Recipe
from tests.tiny import tiny


def test_runs_are_those_of_a_user_cut_to_one_look() -> None:
    found = runs()
    assert list(found) == ["demo", "starter library"]
    for task, recipe, seeds in found.values():
        assert recipe.steps == recipe.evaluate_every
        assert recipe.learning_rate == Recipe.preset("decoder").learning_rate
        assert seeds >= 1
        assert task.train
        assert task.validation


def test_both_engines_find_the_same_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.bench.jobs.load_model", lambda: tiny("llama"))
    both = models()
    assert [engine_for(both[arm]).name for arm in (ENGINE, PLAIN)] == ["packed", "concatenation"]
    task, recipe, seeds = runs()["demo"]
    few = task.limited(train=16, validation=4)
    losses = [work(both[arm], few, recipe.changed(steps=3, evaluate_every=3), seeds)() for arm in both]
    assert len(losses[0]) == seeds
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-4)
