"""Correlation of similarity and error reduction: against scipy, against the paper's figure 5, and over tasks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from spoton.study.analysis.correlation import correlate
from tests.study.made import points_of

Point = tuple[str, int | None, float, float]


def prompts(tasks: int, seeds: int, slope: float, noise: float, within: float, draw: int = 0) -> list[Point]:
    """Tasks spread on a line with noise; the prompts of one task lie within a little of each other."""
    rng = np.random.default_rng(draw)
    points: list[Point] = []
    for task in range(tasks):
        x = rng.uniform(0, 1)
        y = slope * x + rng.normal(0, noise)
        points += [
            (f"t{task}", s, x + rng.normal(0, within), y + rng.normal(0, within)) for s in range(seeds)
        ]
    return points


@pytest.mark.parametrize("draw", range(3))
def test_r_and_p_are_those_of_scipy(draw: int) -> None:
    points = prompts(6, 3, 1.0, 0.5, 0.1, draw)
    x, y = [p[2] for p in points], [p[3] for p in points]
    found = correlate("x", points)
    assert (found.n, found.tasks) == (18, 6)
    pearson, spearman = stats.pearsonr(x, y), stats.spearmanr(x, y)
    assert (found.pearson, found.pearson_p) == pytest.approx((pearson.statistic, pearson.pvalue))
    assert (found.spearman, found.spearman_p) == pytest.approx((spearman.statistic, spearman.pvalue))


@pytest.mark.parametrize(
    ("r", "n", "p"), [(0.708, 48, 1.853e-08), (0.290, 48, 0.046), (0.428, 48, 0.002), (-0.070, 48, 0.635)]
)
def test_p_values_of_the_papers_figure_5(r: float, n: int, p: float) -> None:
    # r is rounded, and so is p
    edges = sorted(correlate("x", points_of(r + step, n)).pearson_p for step in (-0.0005, 0.0005))
    assert edges[0] - 0.0005 * (p > 1e-3) <= p <= edges[1] + 0.0005 * (p > 1e-3)


def test_prompts_of_one_task_do_not_make_the_interval_narrower() -> None:
    once = prompts(8, 1, 0.5, 0.5, 0.0)
    often = [(task, seed, x, y) for task, _, x, y in once for seed in range(20)]
    one, many = correlate("x", once), correlate("x", often)
    assert many.pearson == pytest.approx(one.pearson)
    assert many.pearson_p < one.pearson_p / 2  # as if 160 prompts were 160 tasks
    assert many.interval == pytest.approx(one.interval)  # but they are 8


def test_the_interval_tells_a_strong_relation_from_none() -> None:
    strong = correlate("x", prompts(16, 3, 1.0, 0.05, 0.02))
    assert (
        strong.sure
        and strong.interval[0] > 0.9
        and strong.interval[0] <= strong.pearson <= strong.interval[1]
    )
    assert not correlate("x", prompts(16, 3, 0.0, 1.0, 0.02)).sure
    assert correlate("x", prompts(16, 3, 1.0, 0.05, 0.02)) == strong  # the draws are the same each time


def test_two_of_three_tasks_are_too_few_for_an_interval() -> None:
    found = correlate("x", prompts(3, 3, 1.0, 0.1, 0.05))
    assert math.isfinite(found.pearson) and math.isnan(found.interval[0]) and not found.sure
    assert found.to_json()["interval"] == [None, None]


@pytest.mark.parametrize(
    "points",
    [
        [], [("a", 0, 0.1, 1.0), ("b", 0, 0.2, 2.0)],
        [(name, 0, 0.5, y) for name, y in zip("abcd", (1.0, 2.0, 3.0, 4.0), strict=True)],
        [(name, 0, x, math.nan) for name, x in zip("abcd", (1.0, 2.0, 3.0, 4.0), strict=True)],
    ],
)  # fmt: skip
def test_too_few_or_constant_points_have_no_correlation(points: list[Point]) -> None:
    found = correlate("x", points)
    assert math.isnan(found.pearson) and math.isnan(found.pearson_p) and math.isnan(found.spearman)


def test_unknown_points_are_left_out_and_a_perfect_line_has_p_0() -> None:
    points: list[Point] = [
        ("a", 0, 1.0, 1.0),
        ("b", 0, 2.0, 2.0),
        ("c", None, 3.0, 3.0),
        ("d", 0, math.nan, 9.0),
    ]
    found = correlate("x", points)
    assert (
        found.n == 3 and found.pearson == pytest.approx(1.0) and found.pearson_p == pytest.approx(0, abs=1e-6)
    )
