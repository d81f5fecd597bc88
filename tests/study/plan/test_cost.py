"""Cost: prompts count as often as the engine runs them, and passes and tokens add up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoton.models.choose_engine import engine_for
from spoton.study.plan.cell_base import Stage, Work, prompt_work
from spoton.study.plan.cost import TaskSize, count, mean_size, measure_rates
from spoton.tuning import Recipe
from tests.tiny import tiny

SIZE = TaskSize(validation=64, test=100, input_tokens=20.0, target_tokens=2.0)
WORK = Work((Stage(10, 8, 100, 64),), 3, 1, 100, 64)


def test_a_prompt_counts_once_a_pass_or_once_a_row() -> None:
    packed = count(WORK, SIZE, "rank", repeats_prompts=False)
    repeated = count(WORK, SIZE, "rank", repeats_prompts=True)
    assert packed.input_tokens == 10 * (100 + 8 * 20) and packed.target_tokens == 10 * 8 * 2
    assert repeated.input_tokens == 10 * 8 * (100 + 20)
    rows = 3 * 64 + 100
    assert packed.score_input_tokens == rows * 20 + 4 * 100
    assert repeated.score_input_tokens == rows * (20 + 100)
    assert packed.score_passes == repeated.score_passes == 3 * 2 + 4


def test_generation_takes_a_pass_a_token() -> None:
    ranked, generated = (count(WORK, SIZE, mode, repeats_prompts=False) for mode in ("rank", "generate"))
    assert generated.score_passes == ranked.score_passes * (1 + SIZE.target_tokens)


def test_rows_of_a_mixture_are_as_long_as_those_of_its_members() -> None:
    work = WORK._replace(stages=(Stage(5, 8, 100, 64), *WORK.stages))
    mixed = mean_size([SIZE, SIZE._replace(input_tokens=60.0)])
    assert mixed.input_tokens == 40
    longer = count(work, SIZE, "rank", repeats_prompts=False, mixed=mixed)
    assert longer.input_tokens == 5 * (100 + 8 * 40) + 10 * (100 + 8 * 20)


def test_every_score_of_a_run_counts() -> None:
    """Two candidates an evaluation, the start in words, and the best prompt again next to its calibration."""
    recipe = Recipe.preset("decoder", steps=24, evaluate_every=8)
    work = prompt_work(recipe, "rank")
    assert (work.validations, work.calibrations, work.tests) == (1 + 3 * 2 + 1, 1, 1)
    assert prompt_work(recipe, "generate").calibrations == 0
    every = prompt_work(recipe.changed(calibrate="every"), "rank")
    assert (every.validations, every.calibrations) == (8, 7)
    plain = recipe.changed(average=0.0, calibrate="none", init="vocabulary")
    assert prompt_work(plain, "rank")[1:3] == (3, 1)
    assert prompt_work(plain, "rank", 0.5, starts_first=True).validations == 2
    size = SIZE._replace(train=100)
    more = count(work, size, "rank", repeats_prompts=False)
    assert more.score_input_tokens == (8 * 64 + 100 + 100) * 20 + 10 * recipe.length
    assert more.score_passes == 8 * 2 + 4 + 4


@given(st.integers(1, 64), st.integers(1, 200))
def test_repeating_never_costs_less(rows: int, length: int) -> None:
    work = Work((Stage(1, rows, length, 64),), 1, 1, length, 64)
    packed, repeated = (count(work, SIZE, "rank", repeats_prompts=repeats) for repeats in (False, True))
    assert repeated.tokens >= packed.tokens and repeated.score_tokens >= packed.score_tokens


@pytest.mark.parametrize(("family", "repeats"), [("llama", False), ("t5", True)])
def test_rates_are_measured_for_either_engine(family: str, repeats: bool) -> None:
    model = tiny(family)
    assert engine_for(model).repeats_prompts is repeats
    rates = measure_rates(model, rows=4, tokens=8, length=4)
    assert rates.train > 0 and rates.score > 0 and rates.kept > 0
    assert rates.train_pass >= 0 and rates.score_pass >= 0
