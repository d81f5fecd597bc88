"""Events: what every phase of a long run tells whoever watches, and that watching changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch

from spoton.evaluation import evaluate
from spoton.events import OnEvent, Progress, silent
from spoton.models import FrozenModel
from spoton.tuning import Recipe, diagnose, tune
from tests.tiny import draw, tiny, toy_task

RECIPE = Recipe(length=4, steps=4, key_step=2, evaluate_every=2, batch_size=4)


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return tiny("llama")


RUNS: dict[str, Callable[[FrozenModel, OnEvent], Any]] = {
    "tune": lambda model, watch: tune(model, toy_task(), RECIPE, on_event=watch),
    "rank": lambda model, watch: evaluate(model, draw(4, 48), toy_task().train, toy_task(), on_event=watch),
    "generate": lambda model, watch: evaluate(
        model, draw(4, 48), toy_task().train, toy_task(), "generate", on_event=watch
    ),
    "diagnose": lambda model, watch: diagnose(model, toy_task(), RECIPE, on_event=watch),
}


@pytest.mark.parametrize("name", RUNS)
def test_progress_rises_to_its_total(model: FrozenModel, name: str) -> None:
    seen: list[Progress] = []
    RUNS[name](model, seen.append)
    assert len({event.phase for event in seen}) == len({event.total for event in seen}) == 1
    done = [event.done for event in seen]
    assert done == sorted(set(done)) and done[0] > 0
    assert done[-1] == seen[-1].total


@pytest.mark.parametrize(
    ("name", "unit"), [("tune", "step"), ("rank", "example"), ("generate", "example"), ("diagnose", "step")]
)
def test_units_are_steps_or_examples(model: FrozenModel, name: str, unit: str) -> None:
    seen: list[Progress] = []
    RUNS[name](model, seen.append)
    assert {event.unit for event in seen} == {unit}


def test_the_caller_names_the_phase(model: FrozenModel) -> None:
    seen: list[Progress] = []
    tune(model, toy_task(), RECIPE, on_event=seen.append, phase="probe")
    evaluate(model, None, toy_task().test, toy_task(), on_event=seen.append, phase="zero-shot: test")
    assert {event.phase for event in seen} == {"probe", "zero-shot: test"}


def test_a_score_is_told_at_its_evaluation_and_the_best_ever_after(model: FrozenModel) -> None:
    seen: list[Progress] = []
    tune(model, toy_task(), RECIPE, on_event=seen.append)
    assert [event.validation is None for event in seen] == [True, False, True, False]
    assert [event.best is None for event in seen] == [True, False, False, False]
    assert {event.metric for event in seen} == {"accuracy"}


def test_watching_changes_nothing(model: FrozenModel) -> None:
    watched, alone = (
        tune(model, toy_task(), RECIPE, on_event=lambda event: None),
        tune(model, toy_task(), RECIPE),
    )
    assert torch.equal(watched.prompt.value, alone.prompt.value)


def test_an_event_is_a_value_that_stays_as_it_is() -> None:
    event = Progress("tuning", 1, 2, "step")
    assert event == Progress("tuning", 1, 2, "step")
    with pytest.raises(FrozenInstanceError):
        event.done = 2  # type: ignore[misc]
    silent(event)
