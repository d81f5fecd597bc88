"""The table of all tasks: its cells, going on after a kill, its Markdown; and real tasks of unlike form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments import task_table
from experiments.task_table import ARMS, cell_path, majority, run, sized, table, tasks_with_rows
from spoton import Recipe, load_model, load_task
from spoton.models import FrozenModel
from spoton.tasks import Example
from tests.tasks.test_local_data import DATA
from tests.tiny import tiny, toy_task

RECIPE = Recipe(length=4, steps=4, key_step=2, evaluate_every=2, batch_size=4, max_input_tokens=40)


def test_a_task_and_arm_is_a_cell_that_is_never_run_twice(tmp_path: Path) -> None:
    model, task = tiny("llama"), toy_task(name="sst2")
    run(model, [task], tmp_path, RECIPE)
    paths = [cell_path(tmp_path, "sst2", arm) for arm in ARMS]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)
    cells = [json.loads(path.read_text()) for path in paths]
    assert [list(cell["test"]) for cell in cells] == [["rank"], ["generate"], ["rank", "generate"]]
    low, high = cells[2]["test"]["rank"]["interval_95"]["accuracy"]
    assert low <= cells[2]["test"]["rank"]["scores"]["accuracy"] <= high
    assert cells[2]["recipe"] == RECIPE.model_dump() and len(cells[2]["history"]) == 6
    before = [path.stat().st_mtime_ns for path in paths]
    run(model, [task], tmp_path, RECIPE)
    assert [path.stat().st_mtime_ns for path in paths] == before
    with pytest.raises(SystemExit, match="Remove it, or name another --cells"):
        run(model, [task], tmp_path, RECIPE.changed(steps=5))


def test_a_killed_cell_goes_on_and_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, task = tiny("llama"), toy_task(name="sst2")
    run(model, [task], tmp_path / "whole", RECIPE)

    def stop(*arguments: object, **others: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(task_table, "write_record", stop)
        run(model, [task], tmp_path / "stopped", RECIPE)
    run(model, [task], tmp_path / "stopped", RECIPE)
    whole, again = (
        json.loads(cell_path(tmp_path / name, "sst2", "prompt-tuning").read_text())
        for name in ("whole", "stopped")
    )
    assert whole | {"seconds": 0} == again | {"seconds": 0}
    assert {path.suffix for path in (tmp_path / "stopped").iterdir()} == {".json"}


def test_open_targets_have_no_rank_and_no_majority_class(tmp_path: Path) -> None:
    run(tiny("llama"), [toy_task(labels=None, name="squad")], tmp_path, RECIPE)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "squad.prompt-tuning.json",
        "squad.zero-shot-generate.json",
    ]
    row = table(["squad", "sst2"], tmp_path).splitlines()[2]
    assert row.split(" | ")[3:5] == ["-", "-"] and row.endswith("| 8 |")


def test_what_was_not_run_is_shown_as_such(tmp_path: Path) -> None:
    lines = table(["cola"], tmp_path).splitlines()
    assert lines[2].count("not run") == 5 and len({line.count("|") for line in lines}) == 1


def test_the_majority_class_is_that_of_training() -> None:
    rows = tuple(Example(f"row {i}", "yes" if i < 7 else "no") for i in range(10))
    assert majority(toy_task(train=rows, test=rows[5:])) == 40.0


@pytest.fixture(scope="module")
def embedded() -> FrozenModel:
    return load_model()


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="no folder with real rows: set SPOTON_TEST_DATA to one")
@pytest.mark.parametrize("name", ["cb", "commonsense_qa", "stsb", "wsc", "squad"])
def test_real_tasks_of_unlike_form_run_by_rank_and_by_generate(
    name: str, tmp_path: Path, embedded: FrozenModel
) -> None:
    assert name in {info.name for info in tasks_with_rows(DATA)}
    task = sized(load_task(name, data_dir=DATA), 40)
    run(embedded, [task], tmp_path, Recipe(steps=2, batch_size=2, max_input_tokens=48))
    assert "not run" not in table([name], tmp_path)
