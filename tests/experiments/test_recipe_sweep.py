"""Cells of the sweep: alone or several in every pass, each with the record of its own run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments import recipe_sweep
from experiments.recipe_sweep import BASE, CELLS, Cell, cell_path, groups, main, run_cells, table
from spoton.models import FrozenModel
from tests.tiny import tiny, toy_task


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes runs short."""
    monkeypatch.setattr(
        recipe_sweep, "BASE", BASE.changed(length=4, batch_size=4, key_step=2, warmup=1, init="vocabulary")
    )


def run_in(folder: Path, model: FrozenModel, cells: list[Cell]) -> list[Path]:
    """Runs cells in one group and returns the paths of their results."""
    folder.mkdir(exist_ok=True)
    paths = {cell_path(folder, *cell): (cell, toy_task()) for cell in cells}
    run_cells(model, paths)
    return list(paths)


def test_cells_in_shared_passes_have_the_results_of_cells_alone(tmp_path: Path) -> None:
    model = tiny("llama")
    cells = [
        Cell("toy", variant, 4, seed)
        for seed in (0, 1)
        for variant in ("base", "P=16", "loss over labels", "batch 16")
    ]
    together = run_in(tmp_path / "together", model, cells)
    for cell, path in zip(cells, together, strict=True):
        (own,) = run_in(tmp_path / "alone", model, [cell])
        found, alone = (json.loads(file.read_text()) for file in (path, own))
        assert (found["together"], alone["together"]) == (len(cells), 1)
        assert found["losses"] == pytest.approx(alone["losses"], rel=1e-3)
        for key in ("variant", "steps", "seed", "validation", "uncalibrated", "best_step", "recipe", "data"):
            assert found[key] == alone[key]
        assert found["seed"] == cell.seed


def test_a_cell_that_diverges_leaves_no_record_and_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(recipe_sweep.VARIANTS, "no clip", {"clip": 0.0, "learning_rate": 1e30})
    cells = [Cell("toy", "no clip", 4, 0), Cell("toy", "base", 4, 0)]
    broken, fine = run_in(tmp_path, tiny("gpt2"), cells)
    assert fine.exists() and not broken.exists()
    assert "stopped being a number" in capsys.readouterr().err


def test_an_open_rate_is_chosen_alone_and_steps_are_never_mixed(tmp_path: Path) -> None:
    cells = [
        Cell("toy", variant, steps, seed)
        for steps in (4, 8)
        for seed in (0, 1)
        for variant in ("base", "rate auto", "P=16")
    ]
    assert list(groups(cells, 1)) == [(cells[:6], 1), (cells[6:], 1)]
    found = [([(cell.variant, cell.steps) for cell in some], most) for some, most in groups(cells, 5)]
    assert found == [
        group
        for steps in (4, 8)
        for group in (
            ([(variant, steps) for variant in ("base", "P=16")] * 2, 5),
            ([("rate auto", steps)] * 2, 1),
        )
    ]
    (path,) = run_in(tmp_path, tiny("llama"), [Cell("toy", "rate auto", 4, 0)])
    assert "Chose the learning rate" in json.loads(path.read_text())["message"]


def test_the_table_has_means_over_tasks_of_whole_rows_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_sweep, "TASKS", ("a", "b"))

    def cell(task: str, variant: str, seed: int, *scores: float) -> None:
        evaluations = [{"step": 2.0 * i, "validation": score} for i, score in enumerate(scores)]
        record = {"validation": {"accuracy": max(scores)}, "evaluations": evaluations}
        cell_path(tmp_path, task, variant, 4, seed).write_text(json.dumps(record))

    cell("a", "base", 0, 50.0, 79.0, 80.0)
    cell("a", "base", 1, 50.0, 75.0, 90.0)
    cell("b", "base", 0, 60.0, 40.0, 50.0)
    cell("a", "P=16", 0, 50.0, 60.0, 70.0)
    heading, _, base, short = table(tmp_path, 4).splitlines()
    assert heading == "| 4 steps | a | b | mean | spread | steps to 95 % |"
    assert base == "| base | 85.0 ± 7.1 (2) | 60.0 (1) | 72.5 | 7.1 | 2 |"  # after 2, 4 and 0 steps
    assert short == "| P=16 | 70.0 (1) | … | … | … | … |"


def test_finished_cells_of_another_recipe_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, cell = tiny("llama"), Cell("toy", "base", 4, 0)
    run_in(tmp_path, model, [cell])
    monkeypatch.setattr(recipe_sweep, "model_of", lambda arguments: model)
    words = ["--cells", str(tmp_path), "--tasks", "toy", "--variants", "base", "--steps", "4", "--seeds", "0"]
    monkeypatch.setattr("sys.argv", ["recipe_sweep", *words])
    main()  # it is finished
    monkeypatch.setattr(recipe_sweep, "BASE", recipe_sweep.BASE.changed(length=5))
    for seed in "01":  # the cell itself, and one that would join it
        monkeypatch.setattr("sys.argv", ["recipe_sweep", *words[:-1], seed])
        with pytest.raises(SystemExit, match="another recipe"):
            main()


def test_the_published_cells_are_those_of_their_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_sweep, "BASE", BASE)
    found = [json.loads(path.read_text()) for path in CELLS.glob("*.json")]
    cells = [Cell(one["task"], one["variant"], one["steps"], one["seed"]) for one in found]
    assert found and all(
        one["recipe"] == cell.recipe.model_dump() for one, cell in zip(found, cells, strict=True)
    )
