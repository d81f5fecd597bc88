"""Cells that tune all weights: the run on a mixture, and the runs that start from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from spoton.errors import StudyError
from spoton.events import silent
from spoton.models.loading import load_model
from spoton.study.analysis.analyse import analyse
from spoton.study.analysis.verdicts import verdicts
from spoton.study.plan.cells import ModelMixture, MultiTaskModelTuning
from spoton.study.report.model_tuning_tables import model_tuning_sections
from spoton.study.report.parts import Table
from spoton.study.results.collect import collect
from spoton.study.run.cell_runner import CellRunner
from spoton.study.run.executors import InProcess
from spoton.study.run.scheduler import Status, run_cells
from spoton.tuning.full_model.tune import tune_model
from tests.study.small import MakeStudy

MIXTURE = {
    "task": "mixture:films.csv,books.csv", "train_size": 20, "validation_size": 8,
    "recipe": {"steps": 6, "batch_size": 4, "evaluate_every": 3, "learning_rate": 1e-3},
}  # fmt: skip
BASELINE = {"learning_rates": [1e-3, 1e-4], "mixture": MIXTURE}


def run(folder: Path) -> Status:
    """Runs what is not finished of the cells of mixtures and of those that start from them."""
    runner = CellRunner(folder)
    cells = [cell for cell in runner.cells() if isinstance(cell, ModelMixture | MultiTaskModelTuning)]
    return run_cells(runner.store, cells, InProcess(runner, silent))


def found_in(folder: Path) -> dict[str, dict[str, Any]]:
    return {file.stem: json.loads(file.read_text()) for file in sorted((folder / "cells").iterdir())}


@pytest.fixture
def mixed(make_study: MakeStudy) -> Path:
    folder = make_study(seeds=[0], model_tuning=BASELINE)
    assert not run(folder).failed
    return folder


def test_the_second_run_starts_from_the_weights_of_the_first(mixed: Path) -> None:
    runner = CellRunner(mixed)
    cell = next(cell for cell in runner.cells() if isinstance(cell, MultiTaskModelTuning))
    entry = runner.study.mixture
    assert entry
    mixture, target = runner.task("mixture", entry.task), runner.task("target", cell.task)
    assert (len(mixture.train), len(mixture.validation)) == (20, 8)
    first = tune_model(runner.model, mixture, entry.recipe_of(0))
    second = tune_model(first.model, target, cell.model_recipe)
    found = found_in(mixed)[cell.name]
    assert found["looks"] == [entry for entry in second.history if "validation" in entry]
    assert found["looks"][0]["step"] == 0  # the weights from the mixture may be the best
    assert found["last_loss"] == [entry["loss"] for entry in second.history if "loss" in entry][-1]
    kept = load_model(mixed / "models" / cell.from_cell, dtype="float32")
    for mine, theirs in zip(kept.network.parameters(), first.model.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_mixture_is_tuned_once_for_all_rates_and_its_runs_end_alike_again(mixed: Path) -> None:
    before = found_in(mixed)
    assert sorted(cell["kind"] for cell in before.values()) == [
        "model-mixture", "multi-task-model-tuning", "multi-task-model-tuning"
    ]  # fmt: skip
    mixture = next(cell for cell in before.values() if cell["kind"] == "model-mixture")
    assert "test" not in mixture["scores"] and mixture["tuned_parameters"] > 0
    assert [path.name for path in (mixed / "work").iterdir()] == ["lock"]
    gone = [name for name, cell in before.items() if cell["kind"] != "model-mixture"]
    for name in gone:
        (mixed / "cells" / f"{name}.json").unlink()
    weights = mixed / "models" / mixture["name"] / "model.safetensors"
    written = weights.stat().st_mtime_ns
    run(mixed)
    unlike = ("seconds", "checksum")
    for name in gone:
        again = found_in(mixed)[name]
        assert {k: v for k, v in again.items() if k not in unlike} == {
            k: v for k, v in before[name].items() if k not in unlike
        }
    assert weights.stat().st_mtime_ns == written


@pytest.mark.parametrize("damage", ["gone", "others"])
def test_weights_that_are_gone_or_others_are_told(mixed: Path, tiny_model: Path, damage: str) -> None:
    runner = CellRunner(mixed)
    cell = next(cell for cell in runner.cells() if isinstance(cell, MultiTaskModelTuning))
    (mixed / "cells" / f"{cell.name}.json").unlink()
    weights = mixed / "models" / cell.from_cell
    shutil.rmtree(weights)
    if damage == "others":
        shutil.copytree(tiny_model, weights)
    with pytest.raises(StudyError, match=rf"Remove cells/{cell.from_cell}.json to have them tuned again"):
        runner.carry_out([cell])


def test_a_study_at_a_url_has_no_place_for_weights(make_study: MakeStudy) -> None:
    text = (make_study(model_tuning=BASELINE) / "study.yaml").read_bytes()
    fsspec.filesystem("memory").pipe_file("/weights/study.yaml", text)
    with pytest.raises(StudyError, match="Run the study in a folder, or leave out the mixture"):
        CellRunner("memory://weights")


def test_the_report_has_multi_task_model_tuning_next_to_model_tuning(make_study: MakeStudy) -> None:
    folder = make_study(seeds=[0, 1], model_tuning=BASELINE)
    runner = CellRunner(folder)
    assert not run_cells(runner.store, runner.cells(), InProcess(runner, silent)).failed
    results = collect(folder)
    assert [(score.target, score.seed) for score in results.extra_test["multi-task-model-tuning"]] == [
        ("songs.csv", 0), ("songs.csv", 1)
    ]  # fmt: skip
    assert "songs.csv" in results.metrics and MIXTURE["task"] not in results.metrics
    analysis = analyse(results)
    assert analysis.row("multi-task-model-tuning") is not None
    (section,) = model_tuning_sections(analysis)
    table = section.blocks[1]
    assert isinstance(table, Table)
    assert table.columns[-2:] == ("model tuning", "multi-task model tuning")
    assert any("Multi-task model tuning scores" in one.sentence for one in verdicts(analysis))
