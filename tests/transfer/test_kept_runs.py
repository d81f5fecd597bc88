"""KeptRuns of a comparison: none runs or is tested twice, and nothing is mistaken for another's result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spoton.evaluation import evaluate
from spoton.events import Progress
from spoton.models import FrozenModel
from spoton.prompts import Parent
from spoton.prompts.card import Calibration
from spoton.transfer.kept_runs import KeptRuns, Run
from spoton.tuning import Recipe
from tests.tiny import WIDTH, draw, tiny, toy_task

RECIPE = Recipe(length=4, steps=6, key_step=2, evaluate_every=2, batch_size=4, max_input_tokens=12)


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return tiny("llama")


@pytest.fixture
def seen() -> list[Progress]:
    return []


@pytest.fixture
def arms(model: FrozenModel, tmp_path: Path, seen: list[Progress]) -> KeptRuns:
    return KeptRuns(model, toy_task(), "rank", tmp_path / "p.work", seen.append)


def same(one: Run, other: Run) -> bool:
    plain = ("history", "steps", "message", "truncated")
    return one.prompt.content_hash() == other.prompt.content_hash() and all(
        getattr(one, name) == getattr(other, name) for name in plain
    )


def test_a_finished_arm_is_found_again(arms: KeptRuns, seen: list[Progress]) -> None:
    first = arms.tuned("first", RECIPE)
    steps = len(seen)
    assert same(arms.tuned("again", RECIPE), first)
    assert len(seen) == steps == 6


def test_a_kept_arm_has_all_of_a_fresh_one(arms: KeptRuns) -> None:
    fresh, kept = arms.tuned("fresh", RECIPE), arms.tuned("kept", RECIPE)
    assert fresh.truncated > 0  # twelve tokens are too few for some inputs
    assert (kept.validation, kept.rank) == (fresh.validation, fresh.rank)
    assert kept.prompt.card == fresh.prompt.card


def test_another_seed_or_start_is_another_arm(arms: KeptRuns, seen: list[Progress]) -> None:
    initial, parents = draw(4, WIDTH), [Parent(name="a", weight=1.0, hash="0")]
    runs = [
        arms.tuned("a", RECIPE),
        arms.tuned("b", RECIPE.changed(seed=1)),
        arms.tuned("c", RECIPE, initial, parents),
    ]
    assert len({run.prompt.content_hash() for run in runs}) == 3 and len(seen) == 18


def test_without_a_folder_nothing_is_kept(model: FrozenModel, tmp_path: Path, seen: list[Progress]) -> None:
    loose = KeptRuns(model, toy_task(), "rank", None, seen.append)
    assert same(loose.tuned("a", RECIPE), loose.tuned("b", RECIPE))
    assert len(seen) == 12 and list(tmp_path.iterdir()) == []


def test_a_better_score_ranks_first_and_a_lower_loss_breaks_ties(arms: KeptRuns) -> None:
    run = arms.tuned("a", RECIPE)
    score, negative_loss = run.rank
    looks = [look for look in run.history if look.get("step") == run.prompt.card.best_step]
    assert score == run.prompt.card.scores["validation"]["accuracy"]
    assert negative_loss == -min(look["validation_loss"] for look in looks if "validation_loss" in look)


def test_a_prompt_is_tested_once(arms: KeptRuns, seen: list[Progress]) -> None:
    prompt = arms.tuned("a", RECIPE).prompt
    assert set(arms.test("test", prompt, 256)) == {"test"}
    assert arms.test("test", prompt, 256) == arms.test("test again", prompt, 256)
    assert [event.phase for event in seen][6:] == ["test"]


def test_a_calibrated_prompt_is_tested_with_and_without(arms: KeptRuns) -> None:
    fitted = Calibration(bias=[9.0, -9.0], temperature=1.0, rows=8)
    prompt = arms.tuned("a", RECIPE).prompt
    prompt = replace(prompt, card=prompt.card.model_copy(update={"calibration": fitted}))
    found = arms.test("test", prompt, 256)
    scored = evaluate(arms.model, prompt, arms.task.test, arms.task, max_input_tokens=256)
    assert scored.uncalibrated is not None and scored.score != scored.uncalibrated.score
    assert found == {"test": scored.score, "test_uncalibrated": scored.uncalibrated.score}
    assert arms.test("test again", prompt, 256) == found


def test_the_bare_model_is_tested_once(arms: KeptRuns, seen: list[Progress]) -> None:
    assert arms.test("zero-shot", None, 256) == arms.test("again", None, 256)
    assert [event.phase for event in seen] == ["zero-shot"]


def test_what_another_run_in_the_same_place_was_scored_with_is_not_taken_over(
    arms: KeptRuns, model: FrozenModel, seen: list[Progress]
) -> None:
    """A killed command leaves its folder to the next one, which may ask for something else."""
    assert arms.folder is not None
    arms.test("here", None, 256)
    arms.test("shorter inputs", None, 8)
    KeptRuns(tiny("gpt2"), arms.task, "rank", arms.folder, seen.append).test("other model", None, 256)
    KeptRuns(model, arms.task, "generate", arms.folder, seen.append).test("other way", None, 256)
    fewer = arms.task.limited(test=4)
    KeptRuns(model, fewer, "rank", arms.folder, seen.append).test("other rows", None, 256)
    assert [event.phase for event in seen] == [
        "here", "shorter inputs", "other model", "other way", "other rows",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [{"metrics": ("macro_f1", "accuracy")}, {"labels": ("no", "yes")}, {"labels": ("yes", "no", "so")}],
)
def test_other_metrics_or_labels_on_the_same_rows_are_another_arm(
    arms: KeptRuns, model: FrozenModel, seen: list[Progress], changes: dict[str, tuple[str, ...]]
) -> None:
    """Else an accuracy would be reported under the name of another metric."""
    arms.tuned("first", RECIPE)
    arms.test("zero-shot", None, 256)
    began = len(seen)
    other = KeptRuns(model, toy_task(**changes), "rank", arms.folder, seen.append)
    run = other.tuned("other", RECIPE)
    other.test("other zero-shot", None, 256)
    assert [event.phase for event in seen[began:]] == ["other"] * 6 + ["other zero-shot"]
    assert run.prompt.card.metric == other.task.metric
    assert run.prompt.card.labels == list(other.task.labels or ())


def test_an_arm_goes_on_from_its_checkpoint(arms: KeptRuns, model: FrozenModel, seen: list[Progress]) -> None:
    def stop(event: Progress) -> None:
        if event.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="slow arm: Interrupted after 5 of 6 steps"):
        KeptRuns(model, arms.task, "rank", arms.folder, stop).tuned("slow arm", RECIPE)
    run = arms.tuned("slow arm", RECIPE)
    assert [event.done for event in seen] == [5, 6]
    whole = KeptRuns(model, arms.task, "rank", None, seen.append).tuned("whole", RECIPE)
    assert torch.equal(run.prompt.value, whole.prompt.value)
