"""Model tuning costs a step of the optimizer and a checkpoint for every weight, next to its passes."""

from __future__ import annotations

import pytest
import torch

from spoton.errors import SpotonError
from spoton.study.plan.cell_base import Held
from spoton.study.plan.cells import ModelTuning, MultiTaskModelTuning, Scratch
from spoton.study.plan.cost import Predictor, Rates
from spoton.study.plan.weight_rates import WeightRates, measure_weight_rates
from spoton.tuning.full_model.checkpoint import ModelCheckpoint
from spoton.tuning.full_model.recipe import ModelRecipe
from spoton.tuning.recipe import Recipe
from tests.tiny import tiny, toy_task

RECIPE = Recipe(steps=6, evaluate_every=3, batch_size=4, length=4)
COMMON = {
    "task": "toy",
    "seed": 0,
    "recipe": RECIPE,
    "mode": "rank",
    "data_hash": "d",
    "held": Held("f", "float32"),
}
TUNED = ModelTuning(**COMMON, model_recipe=ModelRecipe(steps=6, evaluate_every=3, batch_size=4))
PASSES = Rates(train=1e-4, score=1e-5, kept=10.0, train_pass=1e-2, score_pass=1e-3)


def test_every_weight_costs_its_steps_and_checkpoints() -> None:
    model = tiny("llama")
    passes, all_of_it = (
        Predictor(model, lambda role, name: toy_task(), rates=rates)
        for rates in (PASSES, Rates(**vars(PASSES) | {"weights": WeightRates(step=1e-6, checkpoint=1e-5)}))
    )
    more = all_of_it.seconds(TUNED) - passes.seconds(TUNED)
    assert more == pytest.approx(model.network.num_parameters() * (6 * 1e-6 + 2 * 1e-5))
    prompt = Scratch(**COMMON)  # tunes few numbers
    assert all_of_it.seconds(prompt) == passes.seconds(prompt)


def test_weights_from_a_mixture_are_one_more_copy_in_memory_and_one_more_score() -> None:
    model = tiny("llama")
    predictor = Predictor(model, lambda role, name: toy_task(), rates=PASSES)
    again = MultiTaskModelTuning(**COMMON, model_recipe=TUNED.model_recipe, from_cell="mixture")
    assert predictor.memory(again) - predictor.memory(TUNED) == 4 * model.network.num_parameters()
    assert again.work().validations == TUNED.work().validations + 1


def test_rates_of_weights_are_measured_where_a_cell_tunes_the_model() -> None:
    model = tiny("llama")
    before = {name: weight.clone() for name, weight in model.network.named_parameters()}
    prompt = Scratch(**COMMON)
    without, with_it = (
        Predictor(model, lambda role, name: toy_task(), cells).rates for cells in ([prompt], [prompt, TUNED])
    )
    assert without.weights == (0.0, 0.0)
    assert with_it.weights.step > 0 and with_it.weights.checkpoint > 0
    assert all(torch.equal(weight, before[name]) for name, weight in model.network.named_parameters())


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_either_optimizer_is_measured(optimizer: str) -> None:
    rates = measure_weight_rates(tiny("llama"), ModelRecipe(optimizer=optimizer))
    assert rates.step > 0 and rates.checkpoint > 0


def test_without_a_place_for_temporary_files_a_study_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise SpotonError("The disk is full.")

    monkeypatch.setattr(ModelCheckpoint, "write", full)
    rates = measure_weight_rates(tiny("llama"), ModelRecipe())
    assert rates.step > 0 and rates.checkpoint == 0
