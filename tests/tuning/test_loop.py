"""The tuning loop on a tiny model: what it learns, keeps, leaves alone, and survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spoton.errors import DataError, RecipeError
from spoton.tuning import Progress, Recipe, tune
from tests.tiny import tiny, toy_task

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
from tests.tuning.test_loop import RECIPE
from spoton.tuning import tune
from tests.tiny import tiny, toy_task
import time
def slow(event):
    print(event.done, flush=True)
    time.sleep(float(sys.argv[2]))
tune(tiny("llama"), toy_task(), RECIPE, checkpoint=Path(sys.argv[1]), resume=True, on_event=slow)
"""


def test_a_killed_run_resumes_to_the_same_prompt(tmp_path: Path) -> None:
    checkpoint = tmp_path / "p.checkpoint"
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(checkpoint), "0.2"], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 9:
            break
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
