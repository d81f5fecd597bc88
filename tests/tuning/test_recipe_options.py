"""What the recipe's options do to a run: losses, averages, calibration, rates, starts; and that all of it resumes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from spoton.errors import DataError
from spoton.evaluation import evaluate
from spoton.models import Batch, engine_for
from spoton.tuning import Recipe, tune
from spoton.tuning.initial_prompt import embedding_rms, task_text
from spoton.tuning.microbatches import Microbatches, StepRows
from spoton.tuning.prompt_learner import PromptLearner
from spoton.tuning.tune import AUTO_RATES, checkpoints_of
from tests.models.naive import assert_equal_gradients
from tests.tiny import draw, tiny, toy_task

RECIPE = Recipe(length=4, steps=12, key_step=5, evaluate_every=4, batch_size=4, learning_rate=0.1)
EVERYTHING = RECIPE.changed(
    average=0.8, calibrate="every", select="loss", schedule="linear", warmup=2, clip=0.5, loss="labels",
    reparameterization="residual", rate_unit="embedding_rms", init="task",
)  # fmt: skip
BATCH = Batch([[5, 9, 7], [3], [8, 2]], [[4], [6, 7, 9], [6, 7, 9]])
LABELS = [[4], [6, 7, 9]]


def gradient_of(family: str, rows: StepRows, **options: float) -> tuple[float, torch.Tensor]:
    model, prompt = tiny(family), draw(3, 48).requires_grad_()
    (loss,) = Microbatches(model, **options).gradients([prompt], [rows])
    assert prompt.grad is not None
    return loss, prompt.grad


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5", "bloom"])
def test_the_loss_over_labels_is_the_cross_entropy_of_their_likelihoods(family: str) -> None:
    """The naive formula: every label behind every input, a pass of its own."""
    model, prompt = tiny(family), draw(3, 48).requires_grad_()
    engine = engine_for(model)
    likelihoods = [-engine.losses([prompt], Batch(BATCH.inputs, [label] * 3)) for label in LABELS]
    expected = functional.cross_entropy(torch.stack(likelihoods, dim=1), torch.tensor([0, 1, 1]))
    (wanted,) = torch.autograd.grad(expected, prompt)
    loss, gradient = gradient_of(family, StepRows.of(BATCH, "labels", LABELS))
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    assert_equal_gradients(gradient, wanted)


def test_a_step_of_several_passes_has_the_same_loss_over_labels() -> None:
    rows = StepRows.of(BATCH, "labels", LABELS)
    loss, gradient = gradient_of("llama", rows)
    split_loss, split_gradient = gradient_of("llama", rows, limit=1.0)
    assert split_loss == pytest.approx(loss, rel=1e-5)
    assert_equal_gradients(split_gradient, gradient)


def test_long_targets_weigh_no_more_than_short_ones_unless_tokens_are_counted() -> None:
    model, prompt = tiny("llama"), draw(3, 48)
    summed = engine_for(model).losses([prompt], BATCH)
    lengths = torch.tensor([1.0, 3.0, 3.0])
    by_example, _ = gradient_of("llama", StepRows.of(BATCH, "examples"))
    by_token, _ = gradient_of("llama", StepRows.of(BATCH, "tokens"))
    assert by_example == pytest.approx(float((summed / lengths).mean()), rel=1e-5)
    assert by_token == pytest.approx(float(summed.sum() / lengths.sum()), rel=1e-5)


def test_open_targets_have_no_loss_over_labels() -> None:
    with pytest.raises(DataError, match="open targets"):
        tune(tiny("llama"), toy_task(labels=None), RECIPE.changed(loss="labels"))


def test_the_average_is_the_exponential_moving_average_of_the_prompts() -> None:
    model, start = tiny("llama"), draw(4, 48)
    learner = PromptLearner(model, RECIPE.changed(average=0.5), start)
    expected = start
    for step in range(1, 9):
        with torch.no_grad():
            learner.parameters[0].copy_(draw(4, 48, seed=step))
        learner.stepped(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * draw(4, 48, seed=step)
    torch.testing.assert_close(learner.candidates()["average"], expected)
    learner.keep("average")
    learner.stepped(9)
    assert learner.best is not None
    torch.testing.assert_close(learner.best, expected)  # later steps do not change what was kept


def test_the_kept_candidate_is_the_one_with_the_lowest_validation_loss() -> None:
    model, task = tiny("llama"), toy_task()
    tuned = tune(model, task, RECIPE.changed(average=0.8, select="loss"))
    entries = [entry for entry in tuned.history if "validation" in entry and entry["step"]]
    assert all({"last_validation_loss", "average_validation_loss"} <= entry.keys() for entry in entries)
    lowest = min(min(e["last_validation_loss"], e["average_validation_loss"]) for e in entries)
    found = evaluate(model, tuned.prompt, task.validation, task)
    assert found.loss == pytest.approx(lowest, rel=1e-5)


@pytest.mark.parametrize("when", ["end", "every"])
def test_a_calibration_is_kept_where_it_lowers_the_validation_loss(when: str) -> None:
    model, task = tiny("llama"), toy_task()
    plain = tune(model, task, RECIPE)
    tuned = tune(model, task, RECIPE.changed(calibrate=when))
    found = evaluate(model, tuned.prompt, task.validation, task)
    calibration = tuned.prompt.card.calibration
    assert calibration is not None and calibration.rows == len(task.train)
    assert found.uncalibrated is not None and found.loss is not None
    assert found.loss < (found.uncalibrated.loss or 0)
    assert tuned.prompt.card.scores["validation"]["accuracy"] == found.score
    assert tuned.prompt.card.scores["validation_uncalibrated"]["accuracy"] == found.uncalibrated.score
    raw = evaluate(model, tuned.prompt, task.validation, task, calibrate=False)
    assert raw.uncalibrated is None and raw.loss == pytest.approx(found.uncalibrated.loss)
    assert plain.prompt.card.calibration is None


def test_the_candidate_that_was_selected_is_the_one_that_is_kept() -> None:
    """With and without its calibration: one that lowers the loss may lower the score by which it was chosen."""
    recipe = RECIPE.changed(evaluate_every=2, calibrate="every", select="score")
    chosen = set()
    for seed in (7, 9, 10):
        tuned = tune(tiny("llama", seed % 3), toy_task(), recipe.changed(seed=seed))
        best = next(
            e for e in tuned.history if e["step"] == tuned.prompt.card.best_step and "validation" in e
        )
        assert tuned.validation == best["validation"]
        chosen.add(tuned.prompt.card.calibration is not None)
    assert chosen == {True, False}


def test_an_interrupted_run_reports_the_score_that_its_prompt_has_without_a_calibration() -> None:
    """The card has no calibration then, so a score with one would be that of another prompt."""
    model, task = tiny("llama"), toy_task()

    def stop(event: object) -> None:
        if getattr(event, "done", 0) == 9:
            raise KeyboardInterrupt

    recipe = RECIPE.changed(evaluate_every=2, calibrate="every", select="loss")
    tuned = tune(model, task, recipe, on_event=stop)
    best = next(e for e in tuned.history if e["step"] == tuned.prompt.card.best_step and "validation" in e)
    found = evaluate(model, tuned.prompt, task.validation, task)
    assert tuned.stopped == "interrupted" and tuned.prompt.card.calibration is None
    assert tuned.prompt.card.scores == {"validation": {"accuracy": found.score}}
    assert best["validation_loss"] < (found.loss or 0)  # the calibrated one had been the best


def test_rates_left_open_are_tried_together_and_one_goes_on(tmp_path: Path) -> None:
    model, task = tiny("llama"), toy_task()
    recipe = RECIPE.changed(learning_rate="auto")
    checkpoint = tmp_path / "c.checkpoint"
    tuned = tune(model, task, recipe, checkpoint=checkpoint)
    chosen = tuned.prompt.card.recipe["learning_rate"]
    rates = [rate * embedding_rms(model) for rate in AUTO_RATES]
    assert chosen in rates and tuned.steps == 12
    assert f"of {len(rates)}; the others took 8 steps" in tuned.message
    assert set(tmp_path.iterdir()) == set(checkpoints_of(checkpoint))
    alone = [tune(model, task, RECIPE.changed(learning_rate=rate, steps=4)) for rate in rates]
    first = [min(e["validation_loss"] for e in run.history if "validation" in e) for run in alone]
    assert rates[first.index(min(first))] == chosen


def test_a_relative_rate_counts_in_the_size_of_the_embeddings() -> None:
    model, task = tiny("llama"), toy_task()
    relative = tune(model, task, RECIPE.changed(learning_rate=0.5, rate_unit="embedding_rms"))
    absolute = tune(model, task, RECIPE.changed(learning_rate=0.5 * embedding_rms(model)))
    assert torch.equal(relative.prompt.value, absolute.prompt.value)


def test_a_start_from_the_task_is_its_instruction_and_worked_examples() -> None:
    model, task = tiny("llama"), toy_task(instruction="Praise or not?")
    ids = task_text(model, task, 40, seed=0)
    text = model.decode(ids)
    assert len(ids) == 40 and text.startswith("Praise or not?")
    assert sum(example.input in text for example in task.train) >= 1
    assert task_text(model, task, 40, seed=1) != ids
    assert "yes, no" in model.decode(task_text(model, toy_task(), 40, seed=0))


def test_a_prompt_keeps_its_start() -> None:
    model = tiny("llama")
    tuned = tune(model, toy_task(), RECIPE, initial=draw(4, 48))
    assert tuned.prompt.start is not None and torch.equal(tuned.prompt.start, draw(4, 48))


def test_with_every_option_on_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    model, task = tiny("llama"), toy_task()
    whole = tune(model, task, EVERYTHING)
    path = tmp_path / "c"

    def stop(event: object) -> None:
        if getattr(event, "done", 0) == 9:
            raise KeyboardInterrupt

    assert tune(model, task, EVERYTHING, checkpoint=path, on_event=stop).stopped == "interrupted"
    resumed = tune(model, task, EVERYTHING, checkpoint=path, resume=True)
    assert torch.equal(resumed.prompt.value, whole.prompt.value)
    assert resumed.prompt.key is not None and whole.prompt.key is not None
    assert torch.equal(resumed.prompt.key, whole.prompt.key)
    assert resumed.history == whole.history
    assert resumed.prompt.card.calibration == whole.prompt.card.calibration


def test_an_untuned_start_that_was_given_can_win() -> None:
    """The best prompt may be the one that tuning began with, whether or not it has parents."""
    model, task = tiny("llama"), toy_task()
    good = tune(model, task, RECIPE.changed(steps=60, evaluate_every=20)).prompt.value
    tuned = tune(model, task, RECIPE.changed(learning_rate=5.0, steps=4), initial=good)
    assert tuned.prompt.card.best_step == 0 and torch.equal(tuned.prompt.value, good)
