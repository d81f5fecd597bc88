"""Recipes: presets, and values that do not fit."""

from __future__ import annotations

from typing import Any

import pytest

from spoton.errors import RecipeError
from spoton.tuning import PRESETS, Recipe


def test_the_paper_preset_is_the_paper() -> None:
    """Vu et al. 2022, sections 2.1.4 and 3.1."""
    paper = Recipe.preset("paper-t5")
    assert (paper.length, paper.steps, paper.batch_size, paper.key_step) == (100, 262_144, 32, 10_000)
    assert (paper.optimizer, paper.learning_rate, paper.weight_decay) == ("adafactor", 0.3, 1e-5)
    assert paper.init == "labels" and Recipe.preset("paper-t5-source").init == "vocabulary"


def test_a_preset_can_be_changed_and_stays_as_it_was() -> None:
    before = PRESETS["decoder"].model_copy()
    assert Recipe.preset("decoder", steps=7, seed=None).steps == 7
    assert PRESETS["decoder"] == before and before.steps != 7


def test_an_unknown_preset_says_which_there_are() -> None:
    with pytest.raises(RecipeError, match=r"'paper'.*decoder, paper-t5"):
        Recipe.preset("paper")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("length", 0), ("learning_rate", 0.0), ("learning_rate", float("inf")), ("learning_rate", float("nan")),
        ("weight_decay", -1.0), ("weight_decay", 1.5), ("steps", 0), ("batch_size", 0), ("optimizer", "sgd"),
        ("learning_rate", "fast"), ("average", 1.0), ("warmup", -1), ("clip", -0.5), ("schedule", "stairs"),
        ("init", "text:"), ("steps", "many"), ("speed", 3), ("seed", 2**63), ("max_input_tokens", 1),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_named(field: str, value: Any) -> None:
    for recipe in (Recipe, Recipe().changed):
        with pytest.raises(RecipeError, match=field):
            recipe(**{field: value})


def test_a_field_that_there_is_not_gets_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"batchsize: there is no such field; did you mean batch_size\?$"):
        Recipe(**{"batchsize": 4})
    with pytest.raises(RecipeError, match=r"zzz: there is no such field; there is: optimizer, "):
        Recipe().changed(zzz=4)


def test_a_rate_left_open_has_no_number() -> None:
    with pytest.raises(RecipeError, match=r"auto.*Give a number"):
        Recipe(learning_rate="auto").chosen_rate()


def test_a_problem_of_several_fields_does_not_print_the_recipe() -> None:
    with pytest.raises(RecipeError, match=r"hold together: learning_rate has to be above zero.*found nan\.$"):
        Recipe().changed(learning_rate=float("nan"))
