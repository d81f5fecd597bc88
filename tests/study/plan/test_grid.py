"""The grid of a study is complete, names hold what decides a result alone, and what others need comes first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from spoton.errors import StudyError
from spoton.evaluation.score import default_mode
from spoton.study.plan.cell_base import Held, TaskRole
from spoton.study.plan.cells import Cell, ModelTuning, Transfer
from spoton.study.plan.grid import PromptFacts, TaskFacts, cells_of
from spoton.study.plan.study_file import StudyFile, parse_study_file
from spoton.study.plan.task_groups import TaskEntry
from spoton.tasks import Task
from tests.tiny import toy_task

HELD = Held("f00d", "float32")


def load(role: TaskRole, name: str) -> Task:
    return replace(toy_task(), name=name, template=name, test=toy_task().test[: 4 if role == "source" else 8])


def facts(role: TaskRole, name: str) -> TaskFacts:
    task = load(role, name)
    return TaskFacts(task.data_hash(), default_mode(task))


def study(**changes: Any) -> StudyFile:
    document = {
        "seeds": [0, 1], "sources": {"tasks": ["a", "b", "c"]}, "targets": {"tasks": ["c", "d"]}, "candidates": ["e"],
        "retrieval": {"methods": ["weighted-average", "multi-task-mixture"], "k": [1, 2]},
    }  # fmt: skip
    return parse_study_file(yaml.safe_dump(document | changes), "study.yaml")


def kinds(cells: list[Cell]) -> dict[str, int]:
    return {kind: sum(cell.kind == kind for cell in cells) for kind in dict.fromkeys(c.kind for c in cells)}


def test_the_grid_is_complete() -> None:
    cells = cells_of(study(), HELD, facts)
    # c is no source of itself, so it has two sources and d three; averages need at least two.
    assert kinds(cells) == {
        "zero-shot": 3, "source": 6, "scratch": 5, "transfer": 10, "weighted-average": 4, "multi-task-mixture": 8,
    }  # fmt: skip
    assert len({cell.name for cell in cells}) == len(cells)


def test_sources_that_know_texts_of_a_target_are_not_tried() -> None:
    """A third of CR's sentences are among the snippets of product_sentiment; a mixture is a source for its members."""
    sources = ["product_sentiment", "sst2", "mixture:cr,trec"]
    cells = cells_of(
        study(sources={"tasks": sources}, targets={"tasks": ["cr", "rotten_tomatoes"]}), HELD, facts
    )
    tried = {(cell.source, cell.task) for cell in cells if isinstance(cell, Transfer)}
    assert tried == {
        ("sst2", "cr"), ("mixture:cr,trec", "cr"), ("product_sentiment", "rotten_tomatoes"),
        ("mixture:cr,trec", "rotten_tomatoes"),
    }  # fmt: skip
    file = TaskFacts("0" * 16, default_mode(toy_task()), "cr", "file:cr.csv@1")
    own = cells_of(study(sources={"tasks": ["product_sentiment"]}, targets={"tasks": ["c"]}), HELD,
                   lambda role, name: file if role == "target" else facts(role, name))  # fmt: skip
    assert any(isinstance(cell, Transfer) for cell in own)


def test_a_k_that_no_target_has_the_sources_for_is_refused() -> None:
    methods = {"methods": ["weighted-average"]}
    # Six source prompts of three tasks and two seeds; c is its own, so it has four, and its k of 5 is left out.
    cells = cells_of(study(retrieval=methods | {"k": [5]}), HELD, facts)
    assert {cell.task for cell in cells if cell.kind == "weighted-average"} == {"d"}
    with pytest.raises(
        StudyError, match=r"retrieval\.k of the study has 7, 50, but .* more than 6 .* Lower k"
    ):
        cells_of(study(retrieval=methods | {"k": [2, 7, 50]}), HELD, facts)
    cells_of(study(seeds=[0], sources={"tasks": ["a"]}, retrieval=methods), HELD, facts)  # k as it comes


def given(*names: str) -> dict[str, PromptFacts]:
    recipe = study().sources.recipe_of(TaskEntry(task="x"))
    return {name: PromptFacts(name, name, name, recipe, 0, "rank") for name in names}


def test_sources_of_a_whole_library_are_checked_once_they_are_known() -> None:
    left_out = [{"source": "plas", "target": "d", "why": "a typo"}]
    wrong = study(sources={"library": "starter"}, retrieval={}, leave_out=left_out)
    cells_of(wrong, HELD, facts)  # without the library nobody knows
    with pytest.raises(StudyError, match=r"leave_out names the source plas, .* Did you mean plays"):
        cells_of(wrong, HELD, facts, given("plays", "poems"))
    twice = study(sources={"library": "starter", "tasks": ["a"]}, retrieval={})
    with pytest.raises(StudyError, match=r"sources\.tasks of the study names a, .* under sources\.prompts"):
        cells_of(twice, HELD, facts, given("a", "b"))


def test_without_the_librarys_prompts_there_is_nothing_to_make_noise_of() -> None:
    unread = study(sources={"library": "starter"}, controls=["noise"], candidates=[], retrieval={})
    assert kinds(cells_of(unread, HELD, facts)) == {"zero-shot": 2, "scratch": 4}


def test_what_others_need_comes_first() -> None:
    met: set[str] = set()
    for cell in cells_of(study(), HELD, facts):
        assert met.issuperset(cell.needs)
        met.add(cell.name)


def test_names_do_not_depend_on_other_cells() -> None:
    names = {cell.name for cell in cells_of(study(), HELD, facts) if cell.kind != "weighted-average"}
    fewer = cells_of(study(seeds=[1], targets={"tasks": ["d"]}, candidates=[], retrieval={}), HELD, facts)
    assert names.issuperset(cell.name for cell in fewer)


def changed(**changes: Any) -> set[str]:
    """Kinds of the cells that have another name in a changed study."""
    before = {cell.name for cell in cells_of(study(), HELD, facts)}
    return {cell.kind for cell in cells_of(study(**changes), HELD, facts) if cell.name not in before}


def test_a_source_recipe_decides_sources_and_all_that_starts_from_them() -> None:
    found = changed(sources={"tasks": ["a", "b", "c"], "recipe": {"steps": 61}})
    assert found == {"source", "transfer", "weighted-average", "multi-task-mixture"}


def test_a_target_recipe_decides_targets_alone() -> None:
    found = changed(targets={"tasks": ["c", "d"], "recipe": {"steps": 61}})
    assert found == {"scratch", "transfer", "weighted-average", "multi-task-mixture"}


def test_the_model_and_the_rows_decide_everything() -> None:
    before = {cell.name for cell in cells_of(study(), HELD, facts)}
    for held, rows in (
        (Held("beef", "float32"), facts), (Held("f00d", "bfloat16"), facts),
        (HELD, lambda role, name: facts(role, name)._replace(data_hash="another")),
    ):  # fmt: skip
        assert before.isdisjoint(cell.name for cell in cells_of(study(), held, rows))


def test_names_are_file_names() -> None:
    cells = cells_of(study(sources={"tasks": ["hub:owner/name", "../x y.csv"]}), HELD, facts)
    assert all(
        set(cell.name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        for cell in cells
    )


# The preset `decoder` of the first studies, written out: presets may change, what a recipe is called may not.
FIRST_DEFAULT: dict[str, Any] = {
    "length": 20, "init": "vocabulary", "learning_rate": 0.05, "schedule": "constant", "warmup": 0, "clip": 0,
    "average": 0, "calibrate": "none", "select": "score", "loss": "tokens",
}  # fmt: skip


def test_names_of_studies_that_ran_stay_as_they_are() -> None:
    """Studies under way are found again by these; a change here makes every finished cell run anew."""
    first = study(
        sources={"tasks": ["a", "b", "c"], "recipe": FIRST_DEFAULT},
        targets={"tasks": ["c", "d"], "recipe": FIRST_DEFAULT},
    )
    names = {cell.name for cell in cells_of(first, HELD, facts)}
    assert names >= {
        "zero-shot.c.0.33ccf5374924", "source.a.1.7b72a5a4cd87", "scratch.d.0.fa6ea135122e",
        "transfer.a.d.1.2096b2e855b5", "multi-task-mixture.d.0.k1.f95523c72f7c",
        "source.a.0.430726363325", "scratch.c.0.fa6ea135122e", "transfer.a.c.0.38ef934b8da2",
        "weighted-average.c.0.k2.6f2452868275", "multi-task-mixture.c.0.k1.744f74f68c9a",
    }  # fmt: skip


def test_model_tuning_is_one_cell_a_target_and_seed_at_the_targets_data() -> None:
    tuned = [cell for cell in cells_of(study(model_tuning={}), HELD, facts) if cell.kind == "model-tuning"]
    assert [(cell.task, cell.seed) for cell in tuned] == [("c", 0), ("d", 0), ("c", 1), ("d", 1)]
    once = study(
        targets={"tasks": ["c"], "recipe": {"steps": 7, "batch_size": 3, "max_input_tokens": 64}},
        model_tuning={"seeds": [1], "recipe": {"learning_rate": 1e-5, "evaluate_every": 5}},
    )  # fmt: skip
    (cell,) = [cell for cell in cells_of(once, HELD, facts) if cell.kind == "model-tuning"]
    assert isinstance(cell, ModelTuning) and cell.words == "c: model tuning at 1e-05, seed 1"
    found = cell.model_recipe.model_dump()
    assert (found["steps"], found["batch_size"], found["max_input_tokens"], found["seed"]) == (7, 3, 64, 1)
    assert (found["learning_rate"], found["evaluate_every"]) == (1e-5, 5)


def test_model_tuning_has_a_cell_for_every_rate_on_the_targets_asked_for() -> None:
    def tuned(**wanted: Any) -> dict[str, float]:
        cells = cells_of(study(model_tuning=wanted, seeds=[0]), HELD, facts)
        return {cell.name: cell.model_recipe.learning_rate for cell in cells if isinstance(cell, ModelTuning)}

    found = tuned(targets=["d"], learning_rates=[1e-5, 3e-5])
    assert list(found.values()) == [1e-5, 3e-5] and all(".d.0." in name for name in found)
    assert found.keys() & tuned() == {next(name for name, rate in found.items() if rate == 3e-5)}


def test_model_tuning_is_named_by_its_own_recipe_alone() -> None:
    def names(**changes: Any) -> set[str]:
        cells = cells_of(study(**changes), HELD, facts)
        return {cell.name for cell in cells if cell.kind == "model-tuning"}

    before = names(model_tuning={})
    assert (
        names(model_tuning={}, targets={"tasks": ["c", "d"], "recipe": {"length": 5, "learning_rate": 0.1}})
        == before
    )
    assert names(model_tuning={"recipe": {"learning_rate": 1e-5}}).isdisjoint(before)
    assert names(model_tuning={}, targets={"tasks": ["c", "d"], "recipe": {"steps": 61}}).isdisjoint(before)


def test_multi_task_model_tuning_repeats_model_tuning_from_one_mixture_a_seed() -> None:
    def tuned(**mixture: Any) -> list[Any]:
        wanted = {"learning_rates": [1e-5, 3e-5], "mixture": {"task": "mixture:a,b"} | mixture}
        cells = cells_of(study(model_tuning=wanted), HELD, facts)
        return [cell for cell in cells if cell.kind in ("model-mixture", "multi-task-model-tuning")]

    cells = tuned()
    first, *runs = cells[: len(cells) // 2]
    assert [cell.kind for cell in cells].count("model-mixture") == 2 and first.kind == "model-mixture"
    assert [(run.task, run.seed, run.model_recipe.learning_rate) for run in runs] == [
        ("c", 0, 1e-5), ("c", 0, 3e-5), ("d", 0, 1e-5), ("d", 0, 3e-5)
    ]  # fmt: skip
    assert {run.needs for run in runs} == {(first.name,)} and first.work().tests == 0
    plain = {
        cell.name for cell in cells_of(study(model_tuning={"learning_rates": [1e-5, 3e-5]}), HELD, facts)
    }
    assert plain <= {
        cell.name
        for cell in cells_of(
            study(model_tuning={"learning_rates": [1e-5, 3e-5], "mixture": {"task": "mixture:a,b"}}),
            HELD,
            facts,
        )
    }
    assert tuned(seeds=[0]) == [cell for cell in cells if cell.seed == 0]
    longer = {cell.name for cell in tuned(recipe={"steps": 7})}
    assert longer.isdisjoint(cell.name for cell in cells)


HALVED = {"halving": {"rungs": [10, 20]}, "targets": {"tasks": ["c", "d"], "recipe": {"evaluate_every": 10}}}


def test_halving_decides_transfers_and_nothing_else() -> None:
    before = cells_of(study(targets=HALVED["targets"]), HELD, facts)
    after = cells_of(study(**HALVED), HELD, facts)
    assert {a.kind for a, b in zip(before, after, strict=True) if a.name != b.name} == {"transfer"}
    transfer = next(cell for cell in after if isinstance(cell, Transfer) and cell.task == "d")
    assert [name.split(".")[1] for name in transfer.rivals] == ["a", "b", "c"]
    names = {cell.name for cell in after}
    fewer = cells_of(study(**HALVED, sources={"tasks": ["a", "b"]}), HELD, facts)
    assert all(cell.name not in names for cell in fewer if cell.task == "d" and cell.kind == "transfer")


def test_one_source_has_no_rivals() -> None:
    cells = cells_of(study(**HALVED, sources={"tasks": ["a"]}), HELD, facts)
    assert all(cell.halving is None for cell in cells if isinstance(cell, Transfer))


def test_a_task_is_never_its_own_source_and_pairs_can_be_left_out() -> None:
    left_out = [{"source": "b", "target": "d", "why": "shared sentences"}]
    cells = cells_of(study(leave_out=left_out, seeds=[0]), HELD, facts)
    tried = [(cell.source, cell.task) for cell in cells if isinstance(cell, Transfer)]
    assert tried == [("a", "c"), ("b", "c"), ("a", "d"), ("c", "d")]
