"""Model tuning: the formula step by step, the frozen model untouched, and resuming exactly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from spoton.errors import DataError, DivergenceError, RecipeError
from spoton.evaluation import evaluate
from spoton.events import OnEvent, Progress
from spoton.models import FrozenModel
from spoton.tuning.full_model.recipe import MODEL_PRESETS, ModelRecipe
from spoton.tuning.full_model.tune import TunedModel, tune_model
from spoton.tuning.row_order import rows_of_step
from tests.models.naive import naive_loss
from tests.tiny import WIDTH, tiny, toy_task

RECIPE = ModelRecipe(steps=8, evaluate_every=4, batch_size=4, learning_rate=3e-3)


def weights_of(model: FrozenModel) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.network.named_parameters()}


def assert_same(found: FrozenModel, expected: FrozenModel) -> None:
    ours, theirs = weights_of(found), weights_of(expected)
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        assert torch.equal(ours[name], weight), name


def stop_at(step: int) -> OnEvent:
    """Ctrl-C after a step."""

    def watch(event: Progress) -> None:
        if event.done >= step:
            raise KeyboardInterrupt

    return watch


@pytest.mark.parametrize("family", ["llama", "t5", "mpt"])
def test_a_step_follows_the_formula(family: str) -> None:
    """One step of AdamW by hand: rows by seed and step, the mean loss over all target tokens, all weights."""
    model, task = tiny(family), toy_task()
    recipe = ModelRecipe(steps=1, batch_size=4, learning_rate=1e-2, seed=3, evaluate_every=1)
    tuned = tune_model(model, task, recipe)
    by_hand = tiny(family)
    by_hand.network.requires_grad_(True)
    weights = list(by_hand.network.parameters())
    rows = [task.train[row] for row in rows_of_step(len(task.train), 4, 0, 3)]
    targets = [by_hand.encode_target(row.target, end=False) for row in rows]
    losses = [
        naive_loss(by_hand, torch.zeros(0, WIDTH), by_hand.encode_input(row.input), target)
        for row, target in zip(rows, targets, strict=True)
    ]
    loss = torch.stack(losses).sum() / sum(map(len, targets))
    loss.backward()  # type: ignore[no-untyped-call]
    for weight in weights:  # the first step of Adam is the sign of the gradient, up to its epsilon
        with torch.no_grad():
            weight -= 1e-2 * weight.grad / (weight.grad.abs() + 1e-8) if weight.grad is not None else 0
    assert tuned.history[0]["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert (tuned.steps, tuned.best_step) == (1, 1)
    for name, expected in weights_of(by_hand).items():
        moved = (weights_of(tuned.model)[name] - expected).abs()
        # Where a gradient is all but zero its sign is that of rounding.
        assert float((moved > 1e-4).float().mean()) < 0.01, name


@pytest.mark.parametrize(
    ("family", "labels"), [("llama", ("yes", "no")), ("t5", ("yes", "no")), ("llama", None)]
)
def test_it_learns_and_leaves_the_frozen_model_alone(family: str, labels: Any) -> None:
    model, task = tiny(family), toy_task(labels)
    before, fingerprint = weights_of(model), model.fingerprint
    tuned = tune_model(model, task, ModelRecipe(steps=60, evaluate_every=20, learning_rate=3e-3))
    losses = [entry["loss"] for entry in tuned.history if "loss" in entry]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert all(torch.equal(weight, before[name]) for name, weight in model.network.named_parameters())
    assert not any(
        weight.requires_grad for weight in (*model.network.parameters(), *tuned.model.network.parameters())
    )
    assert tuned.model.fingerprint != fingerprint == model.fingerprint
    assert tuned.parameters == sum(weight.numel() for weight in model.network.parameters())
    assert tuned.activation_bytes > 0 and tuned.passes == 1


def test_the_best_weights_by_validation_are_kept_with_their_score() -> None:
    tuned = tune_model(tiny(), toy_task(), RECIPE.changed(steps=24, learning_rate=2e-2))
    looks = {int(entry["step"]): entry for entry in tuned.history if "validation" in entry}
    assert list(looks) == [4, 8, 12, 16, 20, 24]
    best = max(looks.values(), key=lambda look: (look["validation"], -look["validation_loss"]))
    assert tuned.best_step == best["step"]
    found = evaluate(tuned.model, None, toy_task().validation, toy_task())
    assert tuned.scores == {"validation": {"accuracy": found.score}}
    assert found.loss == pytest.approx(best["validation_loss"], rel=1e-5)


def test_weights_are_tuned_in_float32_whatever_the_frozen_model_is_held_in() -> None:
    model = tiny()
    model.network.to(torch.bfloat16)  # type: ignore[arg-type]
    tuned = tune_model(model, toy_task(), RECIPE)
    assert tuned.model.dtype == torch.float32 and model.dtype == torch.bfloat16


def test_two_runs_are_one() -> None:
    assert_same(tune_model(tiny(), toy_task(), RECIPE).model, tune_model(tiny(), toy_task(), RECIPE).model)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_resumed_equals_uninterrupted(optimizer: str, tmp_path: Path) -> None:
    recipe = RECIPE.changed(optimizer=optimizer, steps=12, learning_rate=1e-2)
    whole = tune_model(tiny(), toy_task(), recipe)
    cut = tune_model(tiny(), toy_task(), recipe, checkpoint=tmp_path / "c", on_event=stop_at(7))
    assert (cut.stopped, cut.steps, cut.best_step) == ("interrupted", 7, 4)
    resumed = tune_model(tiny(), toy_task(), recipe, checkpoint=tmp_path / "c", resume=True)
    assert_same(resumed.model, whole.model)
    assert resumed.history == whole.history and resumed.best_step == whole.best_step
    names = {file.name for file in (tmp_path / "c").iterdir()}
    assert names == {"state.safetensors", "weights-12.safetensors", f"weights-{whole.best_step}.safetensors"}


def test_a_kill_while_the_checkpoint_is_written_loses_nothing(tmp_path: Path) -> None:
    """New weights are there, the state still names the old ones: the run goes on from these."""
    recipe = RECIPE.changed(steps=12)
    whole = tune_model(tiny(), toy_task(), recipe)
    tune_model(tiny(), toy_task(), recipe, checkpoint=tmp_path, on_event=stop_at(4))
    (tmp_path / "weights-8.safetensors").write_bytes((tmp_path / "weights-4.safetensors").read_bytes())
    resumed = tune_model(tiny(), toy_task(), recipe, checkpoint=tmp_path, resume=True)
    assert_same(resumed.model, whole.model)


def test_another_run_is_not_resumed(tmp_path: Path) -> None:
    tune_model(tiny(), toy_task(), RECIPE, checkpoint=tmp_path, on_event=stop_at(5))
    with pytest.raises(RecipeError, match="another recipe, task or model"):
        tune_model(tiny(), toy_task(), RECIPE.changed(seed=1), checkpoint=tmp_path, resume=True)
    (tmp_path / "weights-4.safetensors").write_bytes(b"half")
    with pytest.raises(RecipeError, match="not a usable checkpoint"):
        tune_model(tiny(), toy_task(), RECIPE, checkpoint=tmp_path, resume=True)


def test_interrupted_before_the_first_look_keeps_the_weights_of_that_step() -> None:
    cut = tune_model(tiny(), toy_task(), RECIPE, on_event=stop_at(2))
    assert (cut.steps, cut.best_step, cut.scores) == (2, 2, {})


def test_a_model_that_was_tuned_before_may_already_be_the_best() -> None:
    first = tune_model(tiny(), toy_task(), RECIPE.changed(steps=60, evaluate_every=20)).model
    again = tune_model(first, toy_task(), RECIPE.changed(learning_rate=1e-12))
    assert again.history[0]["step"] == 0 and "validation" in again.history[0]
    assert "validation" not in tune_model(tiny(), toy_task(), RECIPE).history[0]


def test_patience_ends_a_run_that_gets_no_better() -> None:
    recipe = ModelRecipe(steps=30, evaluate_every=1, batch_size=4, learning_rate=1e-12, patience=2)
    tuned = tune_model(tiny(), toy_task(), recipe, mode="generate")
    assert tuned.steps == 3 and "Stopped after 3 of 30 steps: 2 evaluations" in tuned.message


def test_a_step_that_does_not_fit_is_split_and_sums_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tune_model(tiny(), toy_task(), RECIPE)
    monkeypatch.setattr("spoton.tuning.microbatches.free_bytes", lambda device: 1.0)
    parts = tune_model(tiny(), toy_task(), RECIPE)
    assert (whole.passes, parts.passes) == (1, 4)
    assert [e["loss"] for e in parts.history if "loss" in e] == pytest.approx(
        [e["loss"] for e in whole.history if "loss" in e], rel=1e-3
    )


def test_divergence_keeps_what_there_is_or_says_so() -> None:
    with pytest.raises(DivergenceError, match="Lower the learning rate"):
        tune_model(tiny(), toy_task(), RECIPE.changed(learning_rate=1e30))
    recipe = RECIPE.changed(learning_rate=1e30, evaluate_every=1)
    kept: TunedModel | None = None
    try:
        kept = tune_model(tiny(), toy_task(), recipe)
    except DivergenceError:
        return  # the very first look may find no numbers either
    assert kept.stopped == "diverged" and math.isfinite(kept.scores["validation"]["accuracy"])


def test_training_and_validation_examples_are_needed() -> None:
    with pytest.raises(DataError, match="training and validation"):
        tune_model(tiny(), toy_task(validation=()), RECIPE)


def test_adafactor_scales_its_rate_by_the_size_of_a_weight() -> None:
    """T5's own recipe: an update is a share of the weight matrix, not a distance."""
    from spoton.tuning.optimizer import Adafactor

    large, small = (torch.full((3, 4), size, requires_grad=True) for size in (10.0, 1e-6))
    for weight in (large, small):
        weight.grad = torch.ones(3, 4)
    Adafactor([large, small], lr=0.1, weight_decay=0.0, scaling=True).step()
    torch.testing.assert_close(large.detach(), torch.full((3, 4), 9.0))
    torch.testing.assert_close(small.detach(), torch.full((3, 4), 1e-6 - 1e-4))


def test_recipes() -> None:
    assert MODEL_PRESETS["decoder"] == ModelRecipe()
    t5 = ModelRecipe.preset("paper-t5")
    assert t5.batch_size * t5.max_input_tokens == 2**16
    with pytest.raises(RecipeError, match="choose from: decoder, paper-t5"):
        ModelRecipe.preset("best")
    with pytest.raises(RecipeError, match="learning_rate"):
        ModelRecipe().changed(learning_rate=-1.0)
