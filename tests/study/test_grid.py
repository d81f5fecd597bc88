"""Cells: all that decides a result is in the name, nothing else, and what others need comes first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import yaml

from spoton.study.file import StudyFile, parse_study_file
from spoton.study.grid import Cell, Held, Role, cells_of
from spoton.tasks import Task
from tests.tiny import toy_task

HELD = Held("f00d", "float32")


def load(role: Role, name: str) -> Task:
    return replace(toy_task(), name=name, template=name, test=toy_task().test[: 4 if role == "source" else 8])


def study(**changes: Any) -> StudyFile:
    document = {
        "seeds": [0, 1], "sources": {"tasks": ["a", "b", "c"]}, "targets": {"tasks": ["c", "d"]}, "candidates": ["e"],
        "retrieval": {"methods": ["weighted-average", "multi-task-mixture"], "k": [1, 2, 50]},
    }  # fmt: skip
    return parse_study_file(yaml.safe_dump(document | changes), "study.yaml")


def kinds(cells: list[Cell]) -> dict[str, int]:
    return {kind: sum(cell.kind == kind for cell in cells) for kind in dict.fromkeys(c.kind for c in cells)}


def test_the_grid_is_complete() -> None:
    cells = cells_of(study(), HELD, load)
    # c is no source of itself, so it has two sources and d three; averages need at least two.
    assert kinds(cells) == {
        "zero-shot": 3, "source": 6, "scratch": 5, "transfer": 10, "weighted-average": 4, "multi-task-mixture": 8,
    }  # fmt: skip
    assert len({cell.name for cell in cells}) == len(cells)


def test_what_others_need_comes_first() -> None:
    met: set[str] = set()
    for cell in cells_of(study(), HELD, load):
        assert met.issuperset(cell.needs)
        met.add(cell.name)


def test_names_do_not_depend_on_other_cells() -> None:
    names = {cell.name for cell in cells_of(study(), HELD, load) if cell.kind != "weighted-average"}
    fewer = cells_of(study(seeds=[1], targets={"tasks": ["d"]}, candidates=[], retrieval={}), HELD, load)
    assert names.issuperset(cell.name for cell in fewer)


def changed(**changes: Any) -> set[str]:
    """Kinds of the cells that have another name in a changed study."""
    before = {cell.name for cell in cells_of(study(), HELD, load)}
    return {cell.kind for cell in cells_of(study(**changes), HELD, load) if cell.name not in before}


def test_a_source_recipe_decides_sources_and_all_that_starts_from_them() -> None:
    found = changed(sources={"tasks": ["a", "b", "c"], "recipe": {"steps": 61}})
    assert found == {"source", "transfer", "weighted-average", "multi-task-mixture"}


def test_a_target_recipe_decides_targets_alone() -> None:
    found = changed(targets={"tasks": ["c", "d"], "recipe": {"steps": 61}})
    assert found == {"scratch", "transfer", "weighted-average", "multi-task-mixture"}


def test_the_model_and_the_rows_decide_everything() -> None:
    before = {cell.name for cell in cells_of(study(), HELD, load)}
    for held, rows in (
        (Held("beef", "float32"), load), (Held("f00d", "bfloat16"), load),
        (HELD, lambda role, name: replace(load(role, name), train=load(role, name).train[1:])),
    ):  # fmt: skip
        assert before.isdisjoint(cell.name for cell in cells_of(study(), held, rows))


def test_names_are_file_names() -> None:
    cells = cells_of(study(sources={"tasks": ["hub:owner/name", "../x y.csv"]}), HELD, load)
    assert all(
        set(cell.name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        for cell in cells
    )
