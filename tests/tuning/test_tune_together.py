"""Several prompts in every pass: each as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from spoton.errors import DivergenceError
from spoton.events import Progress
from spoton.tuning import Job, Recipe, Tuned, tune, tune_together
from tests.tiny import WIDTH, draw, tiny, toy_task

tune_module = import_module("spoton.tuning.tune")  # the package has a function of this name
RECIPE = Recipe(length=4, steps=12, key_step=5, evaluate_every=4, batch_size=4, learning_rate=0.1)


def unlike_jobs() -> list[Job]:
    """Eight jobs that differ in seed, learning rate, decay, length, batch size, start and number of steps.

    Without Adafactor: its first update is the sign of the gradient, so that rounding decides where one is almost 0.
    """
    recipes = [
        RECIPE, RECIPE.changed(seed=1), RECIPE.changed(seed=2, learning_rate=0.02),
        RECIPE.changed(weight_decay=0.01), RECIPE.changed(length=7), RECIPE.changed(batch_size=2),
        RECIPE.changed(steps=8),
    ]  # fmt: skip
    return [*(Job(toy_task(), recipe) for recipe in recipes), Job(toy_task(), RECIPE, initial=draw(3, WIDTH))]


def assert_equal_runs(one: Tuned | DivergenceError, other: Tuned | DivergenceError) -> None:
    """Equal up to the order of floating-point sums."""
    assert isinstance(one, Tuned) and isinstance(other, Tuned)
    torch.testing.assert_close(one.prompt.value, other.prompt.value, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(one.prompt.key, other.prompt.key, rtol=1e-3, atol=1e-4)
    assert (one.steps, one.stopped, one.prompt.card.best_step) == (
        other.steps, other.stopped, other.prompt.card.best_step,
    )  # fmt: skip
    for ours, theirs in zip(one.history, other.history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("family", ["llama", "t5", "bloom"])
def test_eight_prompts_together_equal_eight_alone(family: str) -> None:
    model, jobs = tiny(family), unlike_jobs()
    together = tune_together(model, jobs)
    for job, tuned in zip(jobs, together, strict=True):
        assert_equal_runs(tuned, tune(model, job.task, job.recipe, initial=job.initial))


def test_the_first_loss_and_step_are_equal_to_1e_5() -> None:
    """Before rounding has had steps to grow in."""
    model = tiny("llama")
    recipe = RECIPE.changed(steps=1, evaluate_every=1)
    jobs = [Job(toy_task(), recipe.changed(seed=seed)) for seed in range(7)]
    jobs.append(Job(toy_task(), recipe.changed(optimizer="adafactor")))
    for job, tuned in zip(jobs, tune_together(model, jobs), strict=True):
        assert isinstance(tuned, Tuned)
        alone = tune(model, job.task, job.recipe)
        assert tuned.history[0]["loss"] == pytest.approx(alone.history[0]["loss"], rel=1e-5)
        torch.testing.assert_close(tuned.prompt.value, alone.prompt.value, rtol=1e-5, atol=1e-5)


def test_a_step_that_does_not_fit_is_split_with_the_same_result() -> None:
    model = tiny("llama")
    jobs = [Job(toy_task(), RECIPE), Job(toy_task(), RECIPE.changed(seed=1))]
    whole = tune_together(model, jobs)
    split = tune_together(model, jobs, activation_limit=1.0)  # every row is a pass of its own
    for one, other in zip(whole, split, strict=True):
        assert_equal_runs(one, other)
        assert isinstance(one, Tuned) and isinstance(other, Tuned)
        assert (one.passes, other.passes) == (1, 8)
        assert 0 < other.activation_bytes < 0.6 * one.activation_bytes


def test_one_that_diverges_leaves_the_others_alone() -> None:
    model = tiny("gpt2")
    jobs = [Job(toy_task(), RECIPE), Job(toy_task(), RECIPE.changed(learning_rate=1e30))]
    fine, broken = tune_together(model, jobs)
    assert isinstance(broken, DivergenceError) or broken.stopped == "diverged"
    assert_equal_runs(fine, tune(model, toy_task(), RECIPE))


def test_each_keeps_its_own_checkpoint_and_resumes_alone(tmp_path: Path) -> None:
    model = tiny("llama")
    paths = [tmp_path / "0.checkpoint", tmp_path / "1.checkpoint"]

    def stop(event: Progress) -> None:
        if event.done == 10:
            raise KeyboardInterrupt

    jobs = [
        Job(toy_task(), RECIPE.changed(seed=seed), checkpoint=path, on_event=stop)
        for seed, path in enumerate(paths)
    ]
    for tuned in tune_together(model, jobs):
        assert isinstance(tuned, Tuned) and tuned.stopped == "interrupted"
    for seed, path in enumerate(paths):
        recipe = RECIPE.changed(seed=seed)
        resumed = tune(model, toy_task(), recipe, checkpoint=path, resume=True)
        assert_equal_runs(resumed, tune(model, toy_task(), recipe))


def test_patience_ends_a_run_that_gets_no_better() -> None:
    model = tiny("llama")
    recipe = RECIPE.changed(steps=400, evaluate_every=1, learning_rate=5.0, patience=3)
    tuned = tune(model, toy_task(), recipe)
    assert tuned.stopped == "finished" and tuned.steps < 400
    looks = [entry["step"] for entry in tuned.history if "validation" in entry]
    assert len([step for step in looks if step > tuned.prompt.card.best_step]) >= 3
    assert tuned.prompt.key is not None and "Stopped after" in tuned.message


@pytest.mark.parametrize("runs", [1, 2, 8])
def test_a_step_waits_for_the_device_twice_however_many_runs(
    runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU every read of a tensor is a wait. (AdamW reads its counter with `item`; it is on the CPU.)"""
    reads: list[str] = []
    step = tune_module._step

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(torch.Tensor, name)

        def read(tensor: torch.Tensor, *arguments: Any) -> Any:
            reads.append(name)
            return original(tensor, *arguments)

        return read

    def counting(active: Sequence[Any], losses: torch.Tensor) -> None:
        before = active[0].course.step
        reads.clear()
        with monkeypatch.context() as patched:
            for name in ("tolist", "__float__", "__bool__", "__int__"):
                patched.setattr(torch.Tensor, name, counted(name))
            step(active, losses)
        if before < 2:  # without an evaluation
            assert reads == ["tolist", "tolist"]

    monkeypatch.setattr(tune_module, "_step", counting)
    recipe = RECIPE.changed(steps=3, evaluate_every=3, clip=1.0, average=0.9)
    tuned = tune_together(tiny("llama"), [Job(toy_task(), recipe.changed(seed=seed)) for seed in range(runs)])
    assert [one.steps for one in tuned if isinstance(one, Tuned)] == [3] * runs


def test_a_step_that_was_taken_is_counted_when_another_run_interrupts() -> None:
    model = tiny("llama")

    def stop(event: Progress) -> None:
        if event.done == 2:
            raise KeyboardInterrupt

    recipe = RECIPE.changed(init="vocabulary", average=0.0)
    jobs = [Job(toy_task(), recipe, on_event=stop), Job(toy_task(), recipe.changed(seed=1))]
    _, other = tune_together(model, jobs)
    assert isinstance(other, Tuned) and other.stopped == "interrupted" and other.steps == 2
    alone = tune(model, toy_task(), recipe.changed(seed=1), on_event=stop)
    assert_equal_runs(other, alone)
