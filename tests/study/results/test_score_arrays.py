"""Scores as arrays: where each stands, what is missing, and how numbers become JSON."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spoton.study.results.score_arrays import Mean, ScoreArrays, known
from spoton.study.results.study_results import Score
from tests.study.made import arrays

nan = math.nan


def test_each_score_has_its_place() -> None:
    scores = [
        Score("x", "b", 7, 1.0),
        Score("y", "a", 3, 2.0),
        Score("x", None, 3, 4.0),
        Score("z", "a", 3, 9.0),
    ]
    grid = ScoreArrays.of(scores, ["a", "b"], ["x", "y"])
    assert grid.seeds == (3, 7)
    assert grid.transfer[1, 0, 1] == 1.0 and grid.transfer[0, 1, 0] == 2.0 and grid.scratch[0, 0] == 4.0
    assert np.isfinite(grid.transfer).sum() == 2 and np.isfinite(grid.scratch).sum() == 1


def test_what_is_missing_is_named() -> None:
    grid = arrays({None: [50.0, nan], "a": [1.0, 2.0], "b": [nan, 3.0]})
    assert grid.missing() == [("b", "x", 0), (None, "x", 1)]
    assert grid.missing({("b", "x")}) == [(None, "x", 1)]


def test_seeds_count_before_a_mean_that_came_without_them() -> None:
    scores = [Score("x", "a", None, 90.0, 1.0, 3), Score("x", "a", 0, 60.0), Score("x", "a", 1, 70.0)]
    assert ScoreArrays.of(scores, ["a"], ["x"]).cell("a", "x").mean == 65.0


def test_means_of_nothing_and_of_one() -> None:
    nothing, one = Mean.of(np.array([nan, nan])), Mean.of(np.array([nan, 3.0]))
    assert math.isnan(nothing.mean) and nothing.n == 0
    assert (one.mean, one.n) == (3.0, 1) and math.isnan(one.std)
    assert nothing.to_json() == {"mean": None, "std": None, "n": None}


@pytest.mark.parametrize(
    ("value", "expected"), [(None, None), (nan, None), (math.inf, None), (1 / 3, 0.333333)]
)
def test_known(value: float | None, expected: float | None) -> None:
    assert known(value) == expected


def test_a_task_is_never_its_own_source_with_seeds_or_without() -> None:
    """The smallest table in which a task's score on itself could pass for a transfer."""
    for seed in (None, 0):
        scores = [
            Score(target, source, seed, score)
            for source, target, score in (
                (None, "A", 50.0), ("A", "A", 99.0), ("B", "A", 40.0),
                (None, "B", 50.0), ("A", "B", 40.0), ("B", "B", 99.0),
            )
        ]  # fmt: skip
        grid = ScoreArrays.of(scores, ["A", "B"], ["A", "B"])
        assert [(grid.sources[s], grid.targets[t]) for s, t in grid.pairs()] == [("A", "B"), ("B", "A")]
        assert math.isnan(grid.cell("A", "A").mean) and grid.cell("B", "A").mean == 40.0
        assert grid.missing() == [] and grid.missing_pairs() == []


def test_pairs_without_any_score_are_listed() -> None:
    grid = arrays({None: [50.0, 51.0], "a": [nan, 52.0], "b": [nan, nan]})
    assert grid.missing_pairs() == [("b", "x")] and grid.missing_pairs({("b", "x")}) == []
