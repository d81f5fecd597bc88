"""Successive halving: who is behind at a rung goes no further, who goes on goes as alone, a kill changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from spoton.errors import RecipeError
from spoton.evaluation import evaluate
from spoton.events import Progress
from spoton.tuning import Halving, Job, Recipe, Tuned, tune, tune_together
from tests.tiny import tiny, toy_task
from tests.tuning.test_tune_together import assert_equal_runs

RECIPE = Recipe(length=4, steps=12, key_step=2, evaluate_every=2, batch_size=4, learning_rate=0.1)
HALVING = Halving(rungs=[4, 8])


def looks(*validation: float) -> list[dict[str, float]]:
    return [
        {"step": 2.0 * (i + 1), "validation": score, "validation_loss": 0.5}
        for i, score in enumerate(validation)
    ]


def test_half_go_on_behind_each_rung() -> None:
    assert [HALVING.left(8, rung) for rung in (0, 1, 2, 3)] == [4, 2, 1, 1]
    assert [HALVING.left(n, 0) for n in (1, 3, 5)] == [1, 2, 3]
    assert Halving(rungs=[4], keep=0.25).left(8, 0) == 2


def test_the_best_so_far_counts_not_the_last_look() -> None:
    ended, rung = HALVING.decide([looks(90, 10), looks(50, 60), looks(40, 70), looks(30, 20)])
    assert ended == [None, 4, None, 4] and rung == 8


def test_looks_behind_a_rung_do_not_change_what_it_decided() -> None:
    found, rung = HALVING.decide([looks(50, 50, 50, 50), looks(60, 60, 99, 10), looks(70, 70), looks(10, 10)])
    assert found == [4, None, None, 4] and rung == 8  # the third is not at the next rung yet
    found, rung = HALVING.decide([looks(50, 50), looks(60, 60, 99, 10), looks(70, 70, 70, 70), looks(10, 10)])
    assert found == [4, None, 8, 4] and rung is None


def test_nobody_is_dropped_before_all_are_there() -> None:
    assert HALVING.decide([looks(50, 50), looks(60)]) == ([None, None], 4)


def test_who_ended_by_itself_is_compared_by_what_it_has() -> None:
    assert HALVING.decide([looks(50, 50), looks(60)], [False, True]) == ([4, None], None)
    assert HALVING.decide([looks(50, 50), []], [False, True]) == ([None, 4], 8)


def test_the_share_of_steps_that_are_taken() -> None:
    assert HALVING.share(8, 16) == (8 * 4 + 4 * 4 + 2 * 8) / (8 * 16)
    assert HALVING.share(1, 16) == 1.0
    assert [HALVING.taken(8, steps) for steps in (0, 3, 6, 16)] == [0, 24, 8 * 4 + 4 * 2, 64]


def test_equal_scores_are_decided_by_the_loss_and_then_by_the_order() -> None:
    better = [look | {"validation_loss": 0.4} for look in looks(50, 50)]
    assert HALVING.decide([looks(50, 50), looks(50, 50), better])[0] == [None, 4, None]


@pytest.mark.parametrize("rungs", [[], [0], [4, 4], [8, 4]])
def test_rungs_rise(rungs: list[int]) -> None:
    with pytest.raises(ValidationError):
        Halving(rungs=rungs)


@pytest.mark.parametrize("rungs", [[3], [12], [4, 14]])
def test_rungs_are_looks_before_the_end(rungs: list[int]) -> None:
    with pytest.raises(RecipeError, match="evaluate_every"):
        tune_together(tiny("llama"), [Job(toy_task(), RECIPE)], halving=Halving(rungs=rungs))


def jobs(folder: Path | None = None, on_event: object = None) -> list[Job]:
    return [
        Job(
            toy_task(), RECIPE.changed(seed=seed), checkpoint=folder and folder / f"{seed}", resume=True,
            **({"on_event": on_event} if on_event and seed == 0 else {}),  # type: ignore[arg-type]
        )
        for seed in range(4)
    ]  # fmt: skip


def test_dropped_prompts_keep_their_best_and_the_others_go_as_alone() -> None:
    model = tiny("llama")
    found = [tuned for tuned in tune_together(model, jobs(), halving=HALVING) if isinstance(tuned, Tuned)]
    assert sorted(tuned.steps for tuned in found) == [4, 4, 8, 12]
    for job, tuned in zip(jobs(), found, strict=True):
        alone = tune(model, job.task, job.recipe.changed(steps=tuned.steps))
        assert_equal_runs(tuned, alone)
        assert ("Dropped" in tuned.message) == (tuned.steps < 12)
        assert tuned.dropped == (tuned.steps if tuned.steps < 12 else None)
        assert tuned.prompt.card.best_step is not None and tuned.prompt.card.best_step <= tuned.steps


def test_a_dropped_prompt_has_the_score_on_its_card() -> None:
    model, task = tiny("llama"), toy_task()
    recipe = RECIPE.changed(calibrate="every", select="loss")
    found = tune_together(
        model,
        [Job(task, recipe.changed(seed=seed)) for seed in range(4)],
        halving=Halving(rungs=[4], keep=0.25),
    )
    for tuned in found:
        assert isinstance(tuned, Tuned)
        assert tuned.validation == evaluate(model, tuned.prompt, task.validation, task).score
    assert sum(tuned.dropped is not None for tuned in found if isinstance(tuned, Tuned)) == 3


def test_an_interrupted_run_drops_the_same(tmp_path: Path) -> None:
    model = tiny("llama")
    whole = tune_together(model, jobs(), halving=HALVING)
    for at in (3, 6):

        def stop(event: Progress, at: int = at) -> None:
            if event.done == at:
                raise KeyboardInterrupt

        tune_together(model, jobs(tmp_path, stop), halving=HALVING)
    resumed = tune_together(model, jobs(tmp_path), halving=HALVING)
    for one, other in zip(whole, resumed, strict=True):
        assert isinstance(one, Tuned) and isinstance(other, Tuned)
        assert (one.steps, one.prompt.content_hash()) == (other.steps, other.prompt.content_hash())


def test_who_is_ahead_after_a_resume_waits_for_the_others(tmp_path: Path) -> None:
    """Two of four were killed before their look at step 4, the others behind it."""
    model = tiny("llama")
    whole = tune_together(model, jobs(), halving=HALVING)

    def stop(event: Progress) -> None:
        if event.done == 5:
            raise KeyboardInterrupt

    tune_together(model, jobs(tmp_path, stop))  # without halving: all of them are looked at after 4 steps
    for seed in (2, 3):
        (tmp_path / f"{seed}").unlink()
    resumed = tune_together(model, jobs(tmp_path), halving=HALVING)
    for one, other in zip(whole, resumed, strict=True):
        assert isinstance(one, Tuned) and isinstance(other, Tuned)
        assert (one.steps, one.prompt.content_hash()) == (other.steps, other.prompt.content_hash())


def test_prompts_that_are_tuned_already_are_compared_as_well() -> None:
    model = tiny("llama")
    whole = tune_together(model, jobs(), halving=HALVING)
    done = {
        place: found.history
        for place, found in enumerate(whole)
        if isinstance(found, Tuned) and place in (0, 3)
    }
    rest = tune_together(model, jobs()[1:3], halving=HALVING, rivals=done)
    for one, other in zip(whole[1:3], rest, strict=True):
        assert isinstance(one, Tuned) and isinstance(other, Tuned)
        assert (one.steps, one.prompt.content_hash()) == (other.steps, other.prompt.content_hash())
