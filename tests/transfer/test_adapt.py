"""Adapting a tiny model: equal budget, the test split once, what is kept, mistakes found early."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spoton.errors import Interrupted, LibraryError, RecipeError
from spoton.evaluation import evaluate
from spoton.events import Progress, silent
from spoton.models import FrozenModel
from spoton.prompts import Card, PromptLibrary, SoftPrompt
from spoton.transfer import adapt, retrieve, sources_for
from spoton.transfer.adapt import zero_shot
from spoton.transfer.combining.methods import starts
from spoton.transfer.comparison import Scores, verdict
from spoton.transfer.kept_runs import KeptRuns
from spoton.tuning import Recipe
from tests.tiny import WIDTH, draw, tiny, toy_task

RECIPE = Recipe(length=4, steps=8, key_step=2, evaluate_every=2, batch_size=4)


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return tiny("llama")


@pytest.fixture
def library(model: FrozenModel, tmp_path: Path) -> PromptLibrary:
    filled = PromptLibrary(tmp_path / "library")
    for seed, (name, length, key) in enumerate(
        [("a", 4, True), ("b", 2, True), ("c", 4, True), ("d", 4, False)]
    ):
        card = Card(name=name, task=f"task-{name}", model=model.name, model_fingerprint=model.fingerprint)
        value = draw(length, WIDTH, seed=seed)
        filled.add(SoftPrompt(value, card, draw(length, WIDTH, seed=9 + seed) if key else None))
    foreign = Card(name="foreign", task="x", model="other", model_fingerprint="other")
    filled.add(SoftPrompt(draw(4, WIDTH), foreign, draw(4, WIDTH)))
    (filled.folder / "broken.safetensors").write_bytes(b"no prompt")
    return filled


def test_sources_are_prompts_of_this_model_with_a_key_and_another_task(
    model: FrozenModel, library: PromptLibrary
) -> None:
    names = [entry.name for _, entry in sources_for([library, library], model.fingerprint, task="task-b")]
    assert names == ["a", "c"]
    found = retrieve(library.get("c").key, sources_for([library], model.fingerprint), k=9)
    assert found[0].name == "c" and len(found) == 3
    assert found[0].similarity == pytest.approx(1)
    with pytest.raises(LibraryError, match="No library holds"):
        retrieve(draw(4, WIDTH), [], k=1)


def test_a_weighted_average_ignores_what_is_not_similar(model: FrozenModel, library: PromptLibrary) -> None:
    found = retrieve(library.get("a").key, sources_for([library], model.fingerprint), k=3)
    (start,) = starts(found, "weighted-average", length=4)
    positive = [one for one in found if one.similarity > 0]
    assert sum(parent.weight for parent in start.parents) == pytest.approx(1)
    assert len(start.parents) == len(positive)
    opposite = retrieve(-library.get("a").key, sources_for([library], model.fingerprint, task="task-b"), k=3)
    negative = [one for one in opposite if one.similarity < 0]
    with pytest.raises(LibraryError, match="positive similarity"):
        starts(negative, "weighted-average", length=4)


@pytest.mark.parametrize(
    ("method", "k"), [("best-of-top-k", 1), ("best-of-top-k", 3), ("weighted-average", 3)]
)
def test_both_arms_have_one_budget_and_the_test_split_is_seen_once(
    model: FrozenModel, library: PromptLibrary, tmp_path: Path, method: str, k: int
) -> None:
    phases: list[str] = []

    def watch(event: Progress) -> None:
        if event.done == event.total:
            phases.append(event.phase)

    out = tmp_path / "out" / "p.safetensors"
    adapted = adapt(
        model,
        toy_task(),
        [library],
        RECIPE,
        method=method,
        k=k,
        metric="maximum_token",
        seeds=2,
        out=out,
        on_event=watch,
    )
    document = adapted.to_json()
    steps = document["steps"]
    assert steps["transfer"] <= steps["prompt_tuning"] == 8
    assert steps["probe"] + steps["candidates"] * steps["each_candidate"] == steps["transfer"]
    tested = [phase for phase in phases if phase.endswith("test")]
    assert len(tested) == len(set(tested)) == 1 + 2 * 2
    for arm in ("prompt_tuning", "transfer"):
        found = document["seeds"][arm]["test"]
        assert len(found["scores"]) == 2
        assert document["scores"][arm]["test"] == pytest.approx(sum(found["scores"]) / 2)
    kept = SoftPrompt.load(out)
    assert torch.equal(kept.value, adapted.prompt.value)
    assert {path.suffix for path in out.parent.iterdir()} == {".safetensors", ".json", ".png"}
    scratch_keys = [run.scratch.prompt.key for run in adapted.runs]
    assert any(torch.equal(kept.key, key) for key in scratch_keys)


def test_an_interrupted_comparison_goes_on_and_ends_the_same(
    model: FrozenModel, library: PromptLibrary, tmp_path: Path
) -> None:
    whole = adapt(model, toy_task(), [library], RECIPE, seeds=2, out=tmp_path / "whole.safetensors")

    def stop(event: Progress) -> None:
        if event.phase.startswith("seed 1: from scratch") and event.done == 5:
            raise KeyboardInterrupt

    out = tmp_path / "stopped.safetensors"
    with pytest.raises(Interrupted, match="best prompt so far"):
        adapt(model, toy_task(), [library], RECIPE, seeds=2, out=out, on_event=stop)
    assert SoftPrompt.load(out).length == 4
    again = adapt(model, toy_task(), [library], RECIPE, seeds=2, out=out)
    assert torch.equal(again.prompt.value, whole.prompt.value)
    assert again.to_json()["seeds"] == whole.to_json()["seeds"]
    assert not out.with_suffix(".work").exists()


def test_the_bare_model_scores_labels_as_the_prompts_do() -> None:
    # The sum favours the short label, so that it and the mean differ.
    other, task = tiny(seed=1), toy_task(("yes", "no maybe"))
    found = zero_shot(KeptRuns(other, task, "rank", None, silent), RECIPE.changed(label_score="mean"))
    by = {
        how: {
            split: evaluate(other, None, getattr(task, split), task, label_score=how).score
            for split in ("validation", "test")
        }
        for how in ("sum", "mean")
    }
    assert found == by["mean"] != by["sum"]


def test_a_budget_that_is_too_small(model: FrozenModel, library: PromptLibrary) -> None:
    with pytest.raises(RecipeError, match="--steps"):
        adapt(model, toy_task(), [library], RECIPE.changed(steps=2))
    with pytest.raises(RecipeError, match="k and seeds"):
        adapt(model, toy_task(), [library], RECIPE, k=0)


@pytest.mark.parametrize(
    ("scratch", "transfer", "words"),
    [
        ((50.0, 52.0, 51.0), (60.0, 61.0, 59.0), "transfer helped"),
        ((60.0, 61.0, 59.0), (50.0, 52.0, 51.0), "transfer hurt"),
        ((50.0, 60.0, 55.0), (56.0, 57.0, 58.0), "within noise"),
        ((50.0,), (70.0,), "one seed"),
    ],
)
def test_the_verdict(scratch: tuple[float, ...], transfer: tuple[float, ...], words: str) -> None:
    assert words in verdict(Scores(scratch, scratch), Scores(transfer, transfer), "accuracy")
    assert "validation accuracy" in verdict(Scores(scratch, ()), Scores(transfer, ()), "accuracy")


def test_the_place_of_the_prompt_may_be_text(
    model: FrozenModel, library: PromptLibrary, tmp_path: Path
) -> None:
    out = tmp_path / "prompt.safetensors"
    adapt(model, toy_task(), [library], RECIPE, out=str(out))
    assert out.is_file() and out.with_suffix(".json").is_file()
