"""The comparison of methods and the evaluation of rankings, with a tiny model: cells, resume, tables, arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from experiments.ranking import judged, one_target
from experiments.ranking import table as ranking_table
from experiments.transfer_methods import ARMS, Bench, interval, table
from spoton.errors import RecipeError
from spoton.models import FrozenModel
from spoton.prompts import Card, PromptLibrary, SoftPrompt
from spoton.transfer.ranking.trial import TEXT
from spoton.tuning import Recipe
from tests.tiny import WIDTH, draw, tiny, toy_task

RECIPE = Recipe(length=4, steps=24, key_step=2, evaluate_every=2, batch_size=8, calibrate="end", init="task")


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return tiny("llama")


@pytest.fixture
def library(model: FrozenModel, tmp_path: Path) -> PromptLibrary:
    filled = PromptLibrary(tmp_path / "library")
    for seed, name in enumerate("abc"):
        card = Card(name=name, task=f"task-{name}", model=model.name, model_fingerprint=model.fingerprint)
        start = draw(4, WIDTH, seed=9)
        filled.add(SoftPrompt(draw(4, WIDTH, seed=seed), card, start + draw(4, WIDTH, seed=seed + 5), start))
    return filled


def test_cells_of_methods_are_run_once_and_make_a_table(
    model: FrozenModel, library: PromptLibrary, tmp_path: Path
) -> None:
    arms = ["scratch", "displacement, best", "trial, ensemble", "trial, untuned", "trial, mixture"]
    bench = Bench(model, tmp_path / "cells", RECIPE, [library])
    bench.run(toy_task(), 24, 0, arms)
    files = sorted((tmp_path / "cells").glob("*.json"))
    assert len(files) == 5
    cells = {cell["arm"]: cell for cell in (json.loads(path.read_text()) for path in files)}
    assert all(cell["steps"] <= 24 for cell in cells.values() if "steps" in cell)
    assert cells["trial, untuned"]["steps"] == cells["trial, untuned"]["cost"]["steps"] > 0
    assert "not at hand" in cells["trial, mixture"]["failed"]  # the sources are tasks of no catalog
    stamps = [path.stat().st_mtime_ns for path in files]
    bench.run(toy_task(), 24, 0, arms)
    assert [path.stat().st_mtime_ns for path in files] == stamps
    told = table(tmp_path / "cells").splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in told[2:]] == [
        arm for arm in ARMS if arm in arms
    ]
    assert f"| scratch | {cells['scratch']['test']:.1f} |" in told[2]
    other = Bench(model, tmp_path / "cells", RECIPE.changed(steps=25), [library])
    with pytest.raises(SystemExit, match="another recipe"):
        other.run(toy_task(), 24, 1, ["scratch"])  # a seed that has no cells yet


def test_arms_of_another_process_are_left_to_it(
    model: FrozenModel, library: PromptLibrary, tmp_path: Path
) -> None:
    cells = tmp_path / "cells"
    bench = Bench(model, cells, RECIPE.changed(steps=4), [library])
    (cells / "work" / "toy.24").mkdir(parents=True)
    with FileLock(cells / "work" / "toy.24" / "0.lock"):
        bench.run(toy_task(), 24, 0, ["scratch"])
        assert not list(cells.glob("*.json"))
        bench.run(toy_task(), 24, 1, ["scratch"])
    bench.run(toy_task(), 24, 0, ["scratch"])
    assert sorted(path.name for path in cells.glob("*.json")) == [
        "toy.24.scratch.0.json",
        "toy.24.scratch.1.json",
    ]
    assert not list(cells.glob("**/*.lock"))


@pytest.mark.parametrize("steps", [24, 60, 100])
def test_halving_fits_the_budget(steps: int) -> None:
    how, recipe = ARMS["trial, halving"], RECIPE.changed(steps=steps, evaluate_every=interval(steps))
    assert how is not None
    most = steps // 2  # that a trial may cost
    how.require_left(recipe, most, how.k)
    with pytest.raises(RecipeError, match="Raise --steps"):
        how.require_left(recipe.changed(evaluate_every=interval(steps) + 1), most, how.k)


def test_rankings_are_judged_by_hand_made_numbers() -> None:
    scores = {TEXT: 50.0, "a": 80.0, "b": 60.0, "c": 40.0, "d": 70.0}
    found = judged(scores, ["b", TEXT, "c", "d", "a"])
    assert found["regret@1"] == pytest.approx(100 * 20 / 80) and found["regret@3"] == pytest.approx(12.5)
    assert found["share"] == pytest.approx((60 - 50) / (80 - 50))
    assert judged(scores, ["a", "d", "b", "c"])["ndcg"] == pytest.approx(1.0)
    assert found["ndcg"] < 1
    assert judged(scores, ["c", "d", "b", "a"])["share"] == pytest.approx(-1 / 3)


def test_sources_of_the_same_sentences_are_not_judged(tmp_path: Path) -> None:
    """They would know the target's own texts."""
    (tmp_path / "cr").mkdir()
    scores = {TEXT: 50.0, "product_sentiment": 90.0, "sst2": 80.0, "mnli": 60.0}
    (tmp_path / "cr" / "truth-0.json").write_text(json.dumps({"scores": scores}))
    order = {"order": ["product_sentiment", "mnli", "sst2"], "cost": {"steps": 20}}
    (tmp_path / "cr" / "ranking-key.json").write_text(json.dumps(order))
    assert "| 25.0 | 0.0 | 33 % | 20 |" in ranking_table(tmp_path)  # mnli first, of mnli and sst2


def test_every_ranking_of_a_target_is_judged(
    model: FrozenModel, library: PromptLibrary, tmp_path: Path
) -> None:
    card = Card(name="toy", task="toy", model=model.name, model_fingerprint=model.fingerprint)
    prompt = SoftPrompt(draw(4, WIDTH), card, draw(4, WIDTH, seed=7), draw(4, WIDTH, seed=9))
    for _ in range(2):  # the second time nothing is run
        one_target(model, library, prompt, toy_task(), RECIPE, tmp_path / "results" / "toy", 0)
    truth = json.loads((tmp_path / "results" / "toy" / "truth-0.json").read_text())["scores"]
    assert truth.keys() == {TEXT, "a", "b", "c"}
    rankings = sorted(path.stem for path in (tmp_path / "results" / "toy").glob("ranking-*.json"))
    assert (
        len(rankings) == 7
        and "ranking-trial" in rankings
        and "ranking-displacement-average_tokens" in rankings
    )
    told = ranking_table(tmp_path / "results")
    assert told.count("| 1 |") == 7
    with pytest.raises(SystemExit, match="other rows"):
        few = toy_task().limited(train=8)
        one_target(model, library, prompt, few, RECIPE, tmp_path / "results" / "toy", 0)


def test_gains_are_means_over_tasks_of_the_same_cells(tmp_path: Path) -> None:
    scores = {
        ("scratch", "a", 100, 0): 60.0, ("scratch", "a", 250, 0): 70.0, ("scratch", "b", 100, 0): 50.0,
        ("similarity, best", "a", 100, 0): 64.0, ("similarity, best", "a", 250, 0): 76.0,
        ("similarity, best", "b", 100, 0): 53.0, ("trial, best", "a", 100, 0): 63.0,
        ("trial, best", "a", 100, 1): 99.0,
    }  # fmt: skip
    for (arm, task, size, seed), test in scores.items():
        cell = {"arm": arm, "task": task, "size": size, "seed": seed, "test": test, "history": [], "probe": 0}
        (tmp_path / f"{task}.{size}.{arm}.{seed}.json").write_text(json.dumps(cell))
    _, _, scratch, nearest, trial = table(tmp_path).splitlines()
    assert scratch == "| scratch | 60.0 | 70.0 | 50.0 |  |  | never |"
    # 4 and 6 points on one task are one mean of 5; 3 on the other.
    assert nearest == "| similarity, best | 64.0 | 76.0 | 53.0 | +4.0 [-8.7, 16.7], 2 tasks |  | never |"
    assert trial == "| trial, best | 81.0 (2 seeds) | none | none | +3.0, 1 tasks | -1.0, 1 tasks | never |"
