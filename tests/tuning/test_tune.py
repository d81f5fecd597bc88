"""The tuning loop on a tiny model: what it learns, keeps, leaves alone, and survives."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from spoton.errors import DataError, DivergenceError, PromptError, RecipeError
from spoton.evaluation import evaluate
from spoton.events import Progress
from spoton.prompts import Parent, SoftPrompt
from spoton.tuning import Recipe, tune
from spoton.tuning.training_run import TrainingRun
from tests.tiny import WIDTH, draw, tiny, toy_task

RECIPE = Recipe(length=4, steps=12, key_step=5, evaluate_every=4, batch_size=4, learning_rate=0.1)
CHECKOUT = Path(__file__).parents[2]


def test_it_learns_and_the_model_stays_as_it_was() -> None:
    model = tiny("llama")
    before = {name: weight.clone() for name, weight in model.network.state_dict().items()}
    tuned = tune(model, toy_task(), RECIPE.changed(steps=60, evaluate_every=20))
    losses = [entry["loss"] for entry in tuned.history if "loss" in entry]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert not any(weight.requires_grad for weight in model.network.parameters())
    for name, weight in model.network.state_dict().items():
        assert torch.equal(weight, before[name]), name


def test_the_key_is_the_prompt_at_its_step_and_the_value_the_best() -> None:
    model = tiny("llama")
    tuned = tune(model, toy_task(), RECIPE)
    short = tune(model, toy_task(), RECIPE.changed(steps=5, evaluate_every=5))
    assert torch.equal(tuned.prompt.key, short.prompt.value)
    looks = [entry for entry in tuned.history if "validation" in entry]
    best = max(looks, key=lambda entry: (entry["validation"], -entry["validation_loss"]))
    card = tuned.prompt.card
    assert card.best_step == best["step"] and card.key_step == 5
    assert card.scores["validation"]["accuracy"] == best["validation"]
    again = tune(model, toy_task(), RECIPE)
    assert torch.equal(again.prompt.value, tuned.prompt.value)


def test_divergence_keeps_the_best_and_explains() -> None:
    model = tiny("llama")
    tuned = tune(model, toy_task(), RECIPE, initial=torch.full((4, model.dim), 0.1))
    assert tuned.stopped == "finished"
    steps: list[int] = []

    def poison(event: Progress) -> None:
        steps.append(event.done)
        if event.done == 6:
            model.network.get_input_embeddings().weight.data.fill_(float("nan"))

    broken = tune(model, toy_task(), RECIPE, on_event=poison)
    assert broken.stopped == "diverged" and steps[-1] == 6
    assert "learning rate" in broken.message and "step 4" in broken.message
    assert torch.isfinite(broken.prompt.value).all()


@pytest.mark.parametrize(
    ("family", "optimizer", "rate"),
    [("gpt2", "adamw", 1e30), ("gpt2", "adafactor", 1e30), ("llama", "adafactor", 3e38)],
)
def test_a_learning_rate_out_of_all_bounds_keeps_the_best_and_explains(
    family: str, optimizer: str, rate: float
) -> None:
    """Nothing is tampered with: the steps are so large that numbers overflow, at a look or in the prompt itself."""
    model = tiny(family)
    parent = Parent(name="source", weight=1.0, hash="0123456789abcdef")  # so that the start is looked at, too
    recipe = RECIPE.changed(learning_rate=rate, optimizer=optimizer, evaluate_every=1)
    broken = tune(model, toy_task(), recipe, initial=draw(4, model.dim), parents=[parent])
    assert broken.stopped == "diverged" and broken.steps < RECIPE.steps
    assert "stopped being a number" in broken.message and str(rate) in broken.message
    assert "is kept" in broken.message and torch.isfinite(broken.prompt.value).all()
    assert math.isfinite(broken.prompt.card.scores["validation"]["accuracy"])


def test_divergence_before_there_is_anything_to_keep_is_an_error() -> None:
    model = tiny("llama")
    model.network.get_input_embeddings().weight.data[5:].fill_(float("inf"))
    with pytest.raises(DivergenceError, match=r"step 1\..*learning rate"):
        tune(model, toy_task(), RECIPE.changed(init="uniform"))


def test_more_than_nine_in_ten_are_right_on_the_toy_task() -> None:
    """Words are the same in all splits, so a prompt that works on training nouns works on the others."""
    model = tiny("llama")
    tuned = tune(model, toy_task(), RECIPE.changed(steps=120, evaluate_every=20, batch_size=24))
    assert tuned.prompt.card.scores["validation"]["accuracy"] > 90
    assert evaluate(model, tuned.prompt.value, toy_task().train, toy_task()).score > 90


@pytest.mark.parametrize(
    ("family", "optimizer"), [("gpt2", "adafactor"), ("t5", "adamw"), ("bloom", "adamw")]
)
def test_every_kind_of_engine_learns(family: str, optimizer: str) -> None:
    recipe = RECIPE.changed(optimizer=optimizer, steps=24, evaluate_every=24)
    tuned = tune(tiny(family), toy_task(), recipe)
    losses = [entry["loss"] for entry in tuned.history if "loss" in entry]
    assert sum(losses[-4:]) < sum(losses[:4])


def test_equal_scores_are_decided_by_loss() -> None:
    """One validation example is right or wrong, so most looks tie."""
    task = toy_task(validation=toy_task().validation[3:4])
    tuned = tune(tiny("llama"), task, RECIPE.changed(evaluate_every=1, learning_rate=0.01))
    looks = [entry for entry in tuned.history if "validation" in entry]
    top = [entry for entry in looks if entry["validation"] == max(one["validation"] for one in looks)]
    assert len(top) > 1
    assert (
        tuned.prompt.card.best_step
        == min(top, key=lambda entry: entry["validation_loss"])["step"]
        != top[0]["step"]
    )


def test_a_transferred_prompt_that_tuning_only_spoils_is_kept() -> None:
    model, good = tiny("llama"), tune(tiny("llama"), toy_task(), RECIPE.changed(steps=60)).prompt
    parent = Parent(name="good", weight=1.0, hash=good.content_hash())
    spoiling = RECIPE.changed(learning_rate=5.0)
    tuned = tune(model, toy_task(), spoiling, initial=good.value, parents=[parent])
    assert tuned.prompt.card.best_step == 0 and tuned.prompt.card.parents == [parent]
    assert torch.equal(tuned.prompt.value, good.value)


def test_ctrl_c_before_the_first_look_keeps_the_prompt_so_far() -> None:
    def stop(event: Progress) -> None:
        raise KeyboardInterrupt

    tuned = tune(tiny("llama"), toy_task(), RECIPE, on_event=stop)
    assert (tuned.stopped, tuned.steps, tuned.prompt.card.best_step) == ("interrupted", 1, 1)
    assert tuned.prompt.card.scores == {} and tuned.prompt.key is None


def test_progress_tells_of_every_step() -> None:
    seen: list[Progress] = []
    tune(tiny("llama"), toy_task(), RECIPE, on_event=seen.append)
    assert [event.done for event in seen] == list(range(1, 13))
    last = seen[-1]
    assert (last.total, last.unit, last.metric) == (12, "step", "accuracy")
    assert last.best is not None and last.validation is not None and last.best >= last.validation
    assert last.tokens_per_second is not None and last.tokens_per_second > 0 and last.seconds_left == 0


def test_a_run_until_a_step_is_the_beginning_of_the_whole_run() -> None:
    recipe = RECIPE.changed(schedule="linear", warmup=2, evaluate_every=5)
    whole, seen = tune(tiny("llama"), toy_task(), recipe), []
    begun = tune(tiny("llama"), toy_task(), recipe, until=5, on_event=lambda event: seen.append(event))
    assert (begun.steps, begun.stopped, seen[-1].total) == (5, "finished", 5)
    assert begun.prompt.key is not None and whole.prompt.key is not None
    assert torch.equal(begun.prompt.key, whole.prompt.key)
    shorter = tune(tiny("llama"), toy_task(), recipe.changed(steps=5)).prompt
    assert shorter.key is not None and not torch.equal(shorter.key, whole.prompt.key)  # its rate falls faster
    assert begun.history == [entry for entry in whole.history if entry["step"] <= 5]


def test_ctrl_c_during_the_last_calibration_keeps_what_was_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: TrainingRun, prompt: torch.Tensor) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingRun, "fit_calibration", stop)
    recipe = RECIPE.changed(calibrate="end")
    tuned = tune(tiny("llama"), toy_task(), recipe)
    assert tuned.stopped == "interrupted" and tuned.steps == 12
    assert tuned.prompt.card.calibration is None and tuned.prompt.card.best_step == 4
    assert set(tuned.prompt.card.scores) == {"validation"}


@pytest.mark.parametrize("every", [4, 12])
def test_ctrl_c_with_an_open_rate_is_an_interrupt(every: int) -> None:
    """Also where one of the rates has reached the last step by then."""

    def stop(event: Progress) -> None:
        if event.done == every and "rate" in event.phase:
            raise KeyboardInterrupt

    recipe = RECIPE.changed(learning_rate="auto", evaluate_every=every)
    tuned = tune(tiny("llama"), toy_task(), recipe, on_event=stop)
    assert tuned.stopped == "interrupted" and "Interrupted" in tuned.message


def test_ctrl_c_keeps_the_best_so_far() -> None:
    def stop(event: Progress) -> None:
        if event.done == 6:
            raise KeyboardInterrupt

    tuned = tune(tiny("llama"), toy_task(), RECIPE, on_event=stop)
    assert tuned.stopped == "interrupted" and tuned.steps == 6
    assert tuned.prompt.card.best_step == 4


def test_nothing_to_validate_on() -> None:
    with pytest.raises(DataError, match="validation"):
        tune(tiny("llama"), toy_task(validation=()), RECIPE)


SCRIPT = """
import sys
from pathlib import Path
from typing import Any
from tests.tuning.test_tune import RECIPE
from spoton.tuning import tune
from tests.tiny import tiny, toy_task
import time
def stop_at_nine(event):
    if event.done >= 9:
        print(event.done, flush=True)
        time.sleep(600)
tune(tiny("llama"), toy_task(), RECIPE, checkpoint=Path(sys.argv[1]), resume=True, on_event=stop_at_nine)
"""


def test_a_killed_run_resumes_to_the_same_prompt(tmp_path: Path) -> None:
    checkpoint = tmp_path / "p.checkpoint"
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(checkpoint)], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "9\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert checkpoint.is_file()
    model = tiny("llama")
    seen: list[int] = []
    resumed = tune(
        model,
        toy_task(),
        RECIPE,
        checkpoint=checkpoint,
        resume=True,
        on_event=lambda event: seen.append(event.done),
    )
    assert seen[0] == 9  # from the look at step 8, not from the start
    whole = tune(model, toy_task(), RECIPE)
    assert torch.equal(resumed.prompt.value, whole.prompt.value)
    assert torch.equal(resumed.prompt.key, whole.prompt.key)
    assert resumed.history == whole.history
    with pytest.raises(RecipeError, match="another recipe"):
        tune(model, toy_task(), RECIPE.changed(seed=1), checkpoint=checkpoint, resume=True)
    for other in (toy_task(metrics=("macro_f1",)), toy_task(labels=("yes", "no", "so"))):
        with pytest.raises(RecipeError, match="another recipe, task"):
            tune(model, other, RECIPE, checkpoint=checkpoint, resume=True)


@pytest.mark.parametrize("start", [draw(4, WIDTH + 1), SoftPrompt])
def test_a_start_that_is_not_a_matrix_of_the_models_width_is_refused(start: Any) -> None:
    with pytest.raises(PromptError, match=rf"expected a tensor \[P, {WIDTH}\]"):
        tune(tiny("llama"), toy_task(), Recipe(length=4, steps=1), initial=start)
