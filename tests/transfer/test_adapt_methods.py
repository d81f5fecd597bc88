"""Every method and ranking through `adapt` on a tiny model: budgets, parents, resume, ensembles, nothing tuned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from spoton.errors import DataError, Interrupted, LibraryError, RecipeError, SpotonError
from spoton.evaluation import evaluate, predict
from spoton.events import Progress
from spoton.models import FrozenModel
from spoton.prompts import Card, PromptLibrary, SoftPrompt, resize_prompt
from spoton.transfer import METHODS, adapt, comparison
from spoton.transfer.comparison import Scores
from spoton.transfer.ranking.trial import TEXT
from spoton.transfer.speed import speed
from spoton.transfer.untuned import adapt_untuned
from spoton.tuning import Recipe, tune
from tests.tiny import WIDTH, draw, tiny, toy_task

RECIPE = Recipe(length=4, steps=24, key_step=2, evaluate_every=2, batch_size=8, calibrate="end", init="task")
LENGTHS = {"a": 4, "b": 2, "c": 6}


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return tiny("llama")


@pytest.fixture(scope="module")
def moved(model: FrozenModel) -> torch.Tensor:
    """`[P, D]` what the first steps on the target do to its prompt."""
    probe = tune(model, toy_task(), RECIPE.changed(steps=2)).prompt
    assert probe.key is not None and probe.start is not None
    return probe.key - probe.start


@pytest.fixture
def library(model: FrozenModel, moved: torch.Tensor, tmp_path: Path) -> PromptLibrary:
    """Three sources that know their start and learned something like the target."""
    filled = PromptLibrary(tmp_path / "library")
    for seed, (name, length) in enumerate(LENGTHS.items()):
        card = Card(name=name, task=f"task-{name}", model=model.name, model_fingerprint=model.fingerprint)
        start, learned = draw(length, WIDTH, seed=9), resize_prompt(moved, length)
        key = start + learned + draw(length, WIDTH, seed=seed, scale=0.01)
        filled.add(SoftPrompt(start + 10 * learned, card, key, start))
    return filled


def other_rows(card: Card) -> Any:
    """Rows of a source: those of the toy task under another name."""
    return toy_task(name=card.task)


def plain(document: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on the clock or the place."""
    return {
        name: value
        for name, value in document.items()
        if name not in ("seconds", "classical", "worth", "prompt", "curves")
    }


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_its_budget_and_names_its_parents(
    model: FrozenModel, library: PromptLibrary, method: Any
) -> None:
    adapted = adapt(
        model, toy_task(), [library], RECIPE, method=method, rank="displacement", k=2, rows_of=other_rows
    )
    steps = adapted.document["steps"]
    assert steps["probe"] == 2 and steps["transfer"] <= steps["prompt_tuning"] == 24
    assert steps["transfer"] > 16
    run = adapted.runs[0].transfer
    assert adapted.runs[0].curve[-1]["step"] == steps["transfer"] - steps["probe"]
    assert run.prompt.length == 4 and run.prompt.value.shape == (4, WIDTH)
    parents = {parent.name for parent in run.prompt.card.parents}
    retrieved = [one["name"] for one in adapted.document["retrieved"]]
    assert parents and parents <= set(retrieved) and len(retrieved) == 2
    if method not in ("best-of-top-k", "halving"):
        assert parents == set(retrieved)
    # The collapsed prompt has the very score that was written on its card while it was tuned.
    found = evaluate(model, run.prompt, toy_task().validation, toy_task())
    assert found.score == pytest.approx(run.validation)


@pytest.mark.parametrize("method", ["halving", "learned-mix", "multiplicative", "mixture"])
def test_an_interrupted_method_goes_on_and_ends_the_same(
    model: FrozenModel, library: PromptLibrary, tmp_path: Path, method: Any
) -> None:
    how: dict[str, Any] = {"method": method, "rank": "trial", "k": 2, "rows_of": other_rows}
    whole = adapt(model, toy_task(), [library], RECIPE, **how)

    def stop(event: Progress) -> None:
        if event.phase.startswith("seed 0: from ") and "scratch" not in event.phase and event.done == 5:
            raise KeyboardInterrupt

    out = tmp_path / "stopped.safetensors"
    with pytest.raises(Interrupted, match="goes on from there"):
        adapt(model, toy_task(), [library], RECIPE, out=out, on_event=stop, **how)
    again = adapt(model, toy_task(), [library], RECIPE, out=out, **how)
    assert torch.equal(again.prompt.value, whole.prompt.value)
    assert plain(again.document) == plain(whole.document)
    assert not out.with_suffix(".work").exists()


@pytest.mark.parametrize(("method", "own", "whole"), [("best-of-top-k", 2, 4), ("mixture", 2, 13)])
def test_the_speed_counts_the_steps_of_all_that_is_tuned(
    model: FrozenModel, library: PromptLibrary, method: Any, own: int, whole: int
) -> None:
    adapted = adapt(
        model, toy_task(), [library], RECIPE, method=method, rank="displacement", k=2, rows_of=other_rows
    )
    run = adapted.runs[0]
    assert [
        after["step"]
        for before, after in zip(run.transfer.history, run.curve, strict=True)
        if before["step"] == own
    ] == [whole, whole]
    found = speed([run.scratch.history], [run.curve], [2])
    assert found is not None and adapted.document["speed"] == found.to_json() | {"sentence": found.sentence()}


@pytest.mark.parametrize("steps", [0, 24])
def test_an_interrupt_before_anything_is_kept_promises_nothing(
    model: FrozenModel, library: PromptLibrary, tmp_path: Path, steps: int
) -> None:
    def stop(event: Progress) -> None:
        raise KeyboardInterrupt

    out, run = tmp_path / "p.safetensors", adapt if steps else adapt_untuned
    with pytest.raises(Interrupted) as stopped:
        run(model, toy_task(), [library], RECIPE, out=out, on_event=stop)
    assert not out.with_suffix(".work").exists() and "kept" not in str(stopped.value)


def test_a_trial_is_paid_from_the_budget(model: FrozenModel, library: PromptLibrary) -> None:
    document = adapt(model, toy_task(), [library], RECIPE, rank="trial", k=1).document
    cost, steps = document["ranking_cost"], document["steps"]
    assert 0 < cost["steps"] <= 12 and cost["steps"] == steps["probe"]
    assert steps["each_candidate"] == steps["transfer"] - cost["steps"] == 24 - cost["steps"]
    assert document["retrieved"][0]["by"] == "trial" and document["rank"] == "trial"


@pytest.mark.parametrize("method", ["best-of-top-k", "weighted-average", "mixture"])
def test_sources_that_mislead_leave_the_tasks_own_text(
    model: FrozenModel, tmp_path: Path, method: Any
) -> None:
    library = PromptLibrary(tmp_path)
    card = Card(name="huge", task="x", model=model.name, model_fingerprint=model.fingerprint)
    library.add(SoftPrompt(draw(4, WIDTH, scale=1e4), card))
    adapted = adapt(model, toy_task(), [library], RECIPE, rank="trial", method=method, rows_of=other_rows)
    assert [one["name"] for one in adapted.document["retrieved"]] == [TEXT]
    assert adapted.runs[0].transfer.prompt.card.parents == []
    assert any("none is expected to help" in note for note in adapted.document["notes"])


@pytest.mark.parametrize(
    ("changes", "how", "error", "words"),
    [
        ({}, {"rank": "best"}, RecipeError, "Unknown ranking 'best'"),
        ({}, {"method": "halving", "k": 3, "rank": "similarity"}, RecipeError, "do not reach the last of 2 rungs"),
        ({"reparameterization": "residual"}, {"method": "learned-mix"}, RecipeError, "--reparameterization residual"),
        ({}, {"method": "mixture"}, DataError, "The rows of task-. are not at hand"),
        ({}, {"ensemble": True}, RecipeError, "at least two seeds"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_says_what_to_do(
    model: FrozenModel, library: PromptLibrary, changes: dict[str, Any], how: dict[str, Any],
    error: type[SpotonError], words: str,
) -> None:  # fmt: skip
    recipe = RECIPE.changed(**changes)
    if how.get("method") == "halving":
        recipe = recipe.changed(evaluate_every=6)
    with pytest.raises(error, match=words):
        adapt(model, toy_task(), [library], recipe, **how)


def test_task_vectors_need_sources_that_know_their_start(model: FrozenModel, tmp_path: Path) -> None:
    library = PromptLibrary(tmp_path)
    card = Card(name="imported", task="x", model=model.name, model_fingerprint=model.fingerprint)
    library.add(SoftPrompt(draw(4, WIDTH), card, draw(4, WIDTH)))
    with pytest.raises(LibraryError, match="no task vector"):
        adapt(model, toy_task(), [library], RECIPE, method="task-vectors")


def test_an_ensemble_keeps_the_prompts_of_all_seeds(
    model: FrozenModel, library: PromptLibrary, tmp_path: Path
) -> None:
    task, out = toy_task(), tmp_path / "joint.safetensors"
    adapted = adapt(model, task, [library], RECIPE, seeds=3, ensemble=True, out=out)
    kept = SoftPrompt.load(out)
    assert [member.name for member in kept.card.members] == ["toy-seed-0", "toy-seed-1", "toy-seed-2"]
    own = [run.arm(adapted.chosen).prompt for run in adapted.runs]
    for value, prompt in zip(kept.values, own, strict=True):
        assert torch.equal(value, prompt.value)
    assert adapted.document["ensemble"] == kept.card.scores
    assert kept.card.scores["test"]["accuracy"] == evaluate(model, kept, task.test, task).score
    assert kept.card.scores["validation"]["accuracy"] == evaluate(model, kept, task.validation, task).score


def test_an_ensemble_is_compared_with_the_neighbour_by_its_own_score(
    model: FrozenModel, library: PromptLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be better than the mean of its members, which nobody keeps."""
    judged: list[Scores] = []
    real = comparison.worth
    monkeypatch.setattr(
        "spoton.transfer.document.worth",
        lambda scores, *given: (judged.append(scores), real(scores, *given))[1],
    )
    adapted = adapt(model, toy_task(), [library], RECIPE, seeds=2, ensemble=True)
    own = adapted.prompt.card.scores
    assert judged == [Scores((own["validation"]["accuracy"],), (own["test"]["accuracy"],))]


def test_a_card_says_the_step_of_its_key_and_the_score_without_calibration(
    model: FrozenModel, library: PromptLibrary
) -> None:
    adapted = adapt(model, toy_task(), [library], RECIPE)
    assert adapted.prompt.key is not None and adapted.prompt.card.key_step == RECIPE.key_step
    card, task = adapted.prompt.card, toy_task()
    assert card.calibration is not None
    raw = evaluate(model, adapted.prompt, task.test, task, calibrate=False).score
    assert card.scores["test_uncalibrated"] == {"accuracy": raw}


@pytest.mark.parametrize(
    ("steps", "how", "words"),
    [
        (3, {"rank": "trial"}, "A trial of"),
        (3, {"method": "mixture", "rank": "similarity", "rows_of": other_rows}, "3 steps leave nothing"),
        (8, {"method": "halving", "rank": "trial", "k": 4}, "rungs"),
    ],
)
def test_a_budget_that_does_not_suffice_is_refused_before_anything_is_tuned(
    model: FrozenModel, library: PromptLibrary, steps: int, how: dict[str, Any], words: str
) -> None:
    phases: list[str] = []
    with pytest.raises(RecipeError, match=words):
        adapt(
            model, toy_task(), [library], RECIPE.changed(steps=steps), on_event=lambda e: phases.append(e.phase), **how
        )  # fmt: skip
    assert not [phase for phase in phases if "scratch" in phase]


def test_files_of_others_in_the_work_folder_stay(
    model: FrozenModel, library: PromptLibrary, tmp_path: Path
) -> None:
    work = tmp_path / "p.work"
    work.mkdir()
    (work / ".git").mkdir()
    names = ("notes.txt", "results.json", "package.json", ".env", ".gitignore", "news.safetensors", "my.checkpoint",
             "test-2.json", "old.scores", "deadbeef.json")  # fmt: skip
    for name in names:
        (work / name).write_text("mine")
    adapt_untuned(model, toy_task(), [library], RECIPE, out=tmp_path / "p.safetensors")
    assert {path.name for path in work.iterdir()} == {".git", *names}
    assert all((work / name).read_text() == "mine" for name in names)


def test_nothing_is_tuned_with_no_steps(model: FrozenModel, library: PromptLibrary, tmp_path: Path) -> None:
    task, out = toy_task(), tmp_path / "p.safetensors"
    adapted = adapt_untuned(model, task, [library], RECIPE, k=3, out=out)
    document, kept = adapted.document, SoftPrompt.load(out)
    assert document["steps"] == {"transfer": 0} and len(document["retrieved"]) == 3
    assert set(document["scores"]) == {"zero_shot", "transfer", "classical"}
    values = [one.value for one in map(library.get, LENGTHS)]
    is_source = any(torch.equal(kept.value, value) for value in values if value.shape == kept.value.shape)
    assert is_source == bool(kept.card.parents)
    assert (kept.card.task, kept.card.steps, kept.card.recipe["steps"]) == ("toy", 0, 0)
    assert kept.key is None and kept.start is None
    found = evaluate(model, kept, task.test, task)
    assert document["scores"]["transfer"]["test"] == found.score == kept.card.scores["test"]["accuracy"]
    assert predict(model, kept, ["The film was warm"])[0].answer in ("yes", "no")
    assert {path.suffix for path in tmp_path.iterdir() if path.is_file()} == {".safetensors", ".json"}
    with pytest.raises(SpotonError, match="--overwrite"):
        adapt_untuned(model, task, [library], RECIPE, out=out)
    with pytest.raises(RecipeError, match="k must be at least 1"):
        adapt_untuned(model, task, [library], RECIPE, k=0)


def test_no_steps_with_a_rate_that_is_still_to_be_chosen(model: FrozenModel, library: PromptLibrary) -> None:
    adapted = adapt_untuned(model, toy_task(), [library], RECIPE.changed(learning_rate="auto"))
    assert adapted.prompt.card.recipe["learning_rate"] == "auto"
