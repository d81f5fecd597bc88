"""The benchmark of a study's own work runs, and its table holds what it measured."""

from __future__ import annotations

from experiments.scale.study import grid, measure, table


def test_a_small_study_of_nothing_ends() -> None:
    row = measure(400)
    assert 300 <= row["cells"] <= 700 and min(row["plan"], row["run"], row["status"]) > 0
    assert f"| {row['cells']:,} |" in table([row])


def test_the_grid_has_the_size_asked_for() -> None:
    study = grid(10_000)
    assert 9_000 < len(study.sources.tasks) * len(study.targets.tasks) * len(study.seeds) < 10_500
