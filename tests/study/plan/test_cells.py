"""Cells: each kind has only its own fields, and the names of studies that ran stay what they were."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spoton.study.plan.cell_base import Held, TaskRole, recipe_text
from spoton.study.plan.cells import (
    Cell,
    ModelTuning,
    MultiTaskMixture,
    Source,
    Transfer,
    WeightedAverage,
    ZeroShot,
)
from spoton.study.plan.grid import TaskFacts, cells_of
from spoton.study.plan.study_file import read_study_file
from spoton.study.run.given import GivenSources
from spoton.tuning.full_model.recipe import ModelRecipe
from spoton.tuning.halving import Halving
from spoton.tuning.recipe import Recipe

FIRST = Path(__file__).parent / "first_study"
"""The study file, the facts of its tasks and the cell names of a study that ran: 8 sources, 6 targets, 2 seeds."""

EIGHTEEN = Path(__file__).parents[3] / "docs" / "studies" / "eighteen_sources"
COMMON: dict[str, Any] = {
    "task": "cb", "seed": 1, "recipe": Recipe(steps=100, evaluate_every=20), "mode": "rank", "data_hash": "0",
    "held": Held("f00d", "float32"),
}  # fmt: skip
RETRIEVING: dict[str, Any] = {
    "source_cells": ("source.a", "source.b"), "key_cell": "scratch.cb", "k": 2, "similarity": "average_tokens"
}  # fmt: skip


def test_a_bare_model_that_scores_labels_otherwise_has_another_name() -> None:
    usual, other = (
        ZeroShot(**COMMON | {"recipe": COMMON["recipe"].changed(label_score=how)}) for how in ("sum", "mean")
    )
    assert usual.name == ZeroShot(**COMMON).name != other.name


def test_another_file_of_the_same_name_to_start_from_is_another_cell(tmp_path: Path) -> None:
    file = tmp_path / "start.safetensors"
    recipe, names = COMMON["recipe"].changed(init=str(file)), []
    for content in (b"one", b"another", b"one"):
        file.write_bytes(content)
        names.append(Source(**COMMON | {"recipe": recipe}).name)
    assert names[0] == names[2] != names[1]


def test_a_study_that_ran_is_found_again() -> None:
    """Every cell has the name that it had when it ran, so the study resumes."""
    ran = json.loads((FIRST / "cells.json").read_text())

    def facts(role: TaskRole, name: str) -> TaskFacts:
        return TaskFacts(*ran["facts"][role][name])

    held = Held(ran["model_fingerprint"], ran["dtype"])
    planned = [cell.name for cell in cells_of(read_study_file(FIRST / "study.yaml"), held, facts)]
    assert planned == ran["names"] and len(planned) == 146
    kinds = {name.partition(".")[0] for name in planned}
    assert kinds == {"zero-shot", "source", "scratch", "transfer", "model-tuning"}


def test_the_study_of_the_docs_is_found_again(tmp_path: Path) -> None:
    """As above, with prompts of a library as sources, rates of model tuning, and multi-task model tuning."""
    recorded = [json.loads(file.read_text()) for file in sorted((EIGHTEEN / "cells").glob("*.json"))]
    by_task = {cell["task"]: cell for cell in recorded if cell["kind"] != "source"}
    for file in (EIGHTEEN / "prompts").glob("source.*.safetensors"):
        shutil.copy(file, tmp_path / f"{file.name.split('.')[1]}.safetensors")
    study = read_study_file(EIGHTEEN / "study.yaml")
    fingerprint = recorded[0]["model_fingerprint"]
    model: Any = SimpleNamespace(name="smollm2-135m", fingerprints=(fingerprint,))
    prompts = GivenSources(str(tmp_path), study.sources.prompts).facts(model)

    def facts(role: TaskRole, name: str) -> TaskFacts:
        return TaskFacts(by_task[name]["data_hash"], by_task[name]["evaluation"])

    cells = cells_of(study, Held(fingerprint, recorded[0]["dtype"]), facts, prompts)
    planned = [cell.name for cell in cells]
    assert planned == [cell["name"] for cell in json.loads((EIGHTEEN / "plan.json").read_text())]
    assert {cell["name"] for cell in recorded} <= set(planned)
    kinds = {
        "zero-shot", "source", "scratch", "transfer", "noise", "weighted-average", "model-tuning", "model-mixture",
        "multi-task-model-tuning",
    }  # fmt: skip
    assert {cell["kind"] for cell in recorded} == kinds


def test_results_hold_the_facts_that_they_always_held() -> None:
    columns = ("name", "kind", "task", "source", "seed", "k", "similarity", "evaluation", "needs")
    files = list((EIGHTEEN / "cells").glob("*.json"))
    assert files
    for file in files:
        assert tuple(json.loads(file.read_text()))[:9] == columns
    for cell in one_of_each():
        assert tuple(cell.facts()) == columns


def one_of_each() -> list[Cell]:
    return [
        ZeroShot(**COMMON), Source(**COMMON), Transfer(**COMMON, source="mnli", from_cell="source.mnli"),
        WeightedAverage(**COMMON, **RETRIEVING),
        MultiTaskMixture(**COMMON, **RETRIEVING, source_recipe=Recipe(steps=50, evaluate_every=50)),
        ModelTuning(**COMMON, model_recipe=ModelRecipe(steps=30)),
    ]  # fmt: skip


def test_a_kind_has_no_fields_of_another() -> None:
    with pytest.raises(TypeError, match="halving"):
        Source(**COMMON, halving=Halving(rungs=[20]))  # type: ignore[call-arg]
    assert not any(hasattr(Source(**COMMON), name) for name in ("source", "k", "rivals", "model_recipe"))


def test_a_recipe_that_gains_a_field_keeps_its_names() -> None:
    class Grown(Recipe):
        """A recipe of a later version."""

        dropout: float = 0.0

    before = Recipe(learning_rate=1e-5)
    assert recipe_text(Grown(learning_rate=1e-5)) == recipe_text(before)
    assert recipe_text(Grown(learning_rate=1e-5, dropout=0.1)) != recipe_text(before)


def test_work_is_what_each_kind_does() -> None:
    zero_shot, source, transfer, average, mixture, tuned = (cell.work() for cell in one_of_each())
    assert not zero_shot.stages and (zero_shot.validations, zero_shot.tests, zero_shot.prompt_length) == (
        1,
        1,
        0,
    )
    assert [stage.steps for stage in source.stages] == [100] and source.validations == 5
    assert transfer.validations == average.validations == 6  # the start is scored, too
    assert [stage.steps for stage in mixture.stages] == [50, 100]
    (stage,) = tuned.stages
    assert stage.weights and stage.steps == 30 and stage.prompt_length == 0


def test_halving_saves_work() -> None:
    plain = Transfer(**COMMON, source="a", from_cell="source.a")
    halved = replace(plain, halving=Halving(rungs=[20]), rivals=("source.a", "source.b"))
    assert halved.name != plain.name
    assert halved.work().stages[0].steps == 60  # (2 * 20 + 1 * 80) of 200, for each
