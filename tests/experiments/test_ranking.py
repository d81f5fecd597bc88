"""The results of rankings: run once, and never mixed with those of other rows or of another recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.ranking import RESULTS, TEXT, judged, kept
from spoton import Recipe
from tests.tiny import toy_task

RECIPE = Recipe.preset("decoder", steps=1)


def test_a_finished_result_is_not_made_again_and_another_recipe_is_refused(tmp_path: Path) -> None:
    path, task = tmp_path / "toy" / "truth-0.json", toy_task()
    kept(path, task, RECIPE, lambda: {"scores": {"a": 1.0}})
    kept(path, task, RECIPE, lambda: pytest.fail("it is finished"))
    assert json.loads(path.read_text())["scores"] == {"a": 1.0}
    for other in (RECIPE.changed(seed=1), RECIPE.changed(length=8)):
        with pytest.raises(SystemExit, match=r"another recipe.*--results"):
            kept(path, task, other, lambda: pytest.fail("it is finished"))
    with pytest.raises(SystemExit, match="other rows"):
        kept(path, toy_task(validation=()), RECIPE, lambda: pytest.fail("it is finished"))


def test_the_published_results_have_one_recipe_and_are_not_mixed_with_those_of_another_length() -> None:
    paths = list(RESULTS.glob("*/*.json"))
    recipes = [json.loads(path.read_text())["recipe"] for path in paths]
    assert paths and all(recipe == RECIPE.changed(length=32).model_dump() for recipe in recipes)
    with pytest.raises(SystemExit, match="other rows and another recipe"):
        kept(paths[0], toy_task(), RECIPE, lambda: pytest.fail("it is finished"))


def test_an_order_is_judged_by_the_scores_of_its_sources() -> None:
    scores = {"a": 60.0, "b": 80.0, "c": 70.0, TEXT: 65.0}
    best = judged(scores, ["b", TEXT, "c", "a"])
    assert best == {"ndcg": 1.0, "regret@1": 0.0, "regret@3": 0.0, "share": 1.0}
    assert judged(scores, ["c", "a", "b"])["regret@1"] == 12.5
    assert judged(scores, ["a", "b", "c"])["share"] == pytest.approx(-1 / 3)
