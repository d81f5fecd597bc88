"""Do similar tasks transfer better? Correlates similarity with error reduction, with intervals.

Every transfer run, from one source with one seed, is a point: the similarity of the source's prompt to the target,
averaged over the target's seeds, and the gain from starting with it (SPoT, section 3.3 and figure 5). A prompt of a
library serves all seeds, so it has a point for each of them. Points of one source are not independent, so p-values over
points are too small. The interval therefore comes from a bootstrap over source *tasks*, which draws all points of a
task or none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from spoton.study.results.score_arrays import Array, known

RESAMPLES = 2000


@dataclass(frozen=True)
class Correlation:
    """The correlation of similarity and error reduction for one target.

    Attributes:
        target: The target task.
        n: Number of points: transfer runs, not source prompts.
        tasks: Number of source tasks among them.
        pearson: r; NaN for fewer than three points, or where either side is constant.
        pearson_p: Two-sided p-value, as if all points were independent.
        interval: 95 % interval of r from the bootstrap over source tasks; NaN for fewer than four tasks.
        spearman: Rank correlation.
        spearman_p: Two-sided p-value, as if all points were independent.
        points: Source, seed, similarity, error reduction.
    """

    target: str
    n: int
    tasks: int
    pearson: float
    pearson_p: float
    interval: tuple[float, float]
    spearman: float
    spearman_p: float
    points: tuple[tuple[str, int | None, float, float], ...]

    @property
    def sure(self) -> bool:
        """Whether the interval excludes zero."""
        low, high = self.interval
        return low > 0 or high < 0

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "target": self.target, "n": self.n, "tasks": self.tasks,
            "pearson": known(self.pearson), "pearson_p": known(self.pearson_p, 15),
            "interval": [known(edge) for edge in self.interval], "interval_leaves_out_zero": self.sure,
            "spearman": known(self.spearman), "spearman_p": known(self.spearman_p, 15),
            "points": [
                {"source": source, "seed": seed, "similarity": known(x), "error_reduction": known(y)}
                for source, seed, x, y in self.points
            ],
        }  # fmt: skip


def correlate(target: str, points: Sequence[tuple[str, int | None, float, float]]) -> Correlation:
    """Returns Pearson and Spearman correlations of points (source, seed, similarity, error reduction), by scipy."""
    whole = tuple(point for point in points if math.isfinite(point[2]) and math.isfinite(point[3]))
    places = {source: place for place, source in enumerate(sorted({source for source, *_ in whole}))}
    x, y = (np.array([point[i] for point in whole], dtype=float) for i in (2, 3))
    pearson = spearman = (math.nan, math.nan)
    interval = (math.nan, math.nan)
    if len(whole) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0:
        pearson, spearman = (
            (float(test.statistic), float(test.pvalue))
            for test in (stats.pearsonr(x, y), stats.spearmanr(x, y))
        )
        interval = _interval(x, y, np.array([places[source] for source, *_ in whole]))
    return Correlation(target, len(whole), len(places), *pearson, interval, *spearman, whole)


def _interval(x: Array, y: Array, task: Array) -> tuple[float, float]:
    """Returns the percentile interval of r when whole tasks are drawn with replacement."""
    tasks = int(task.max()) + 1
    if tasks < 4:
        return math.nan, math.nan
    drawn = np.random.default_rng(0).multinomial(tasks, np.full(tasks, 1 / tasks), size=RESAMPLES)
    r = _pearson(x, y, drawn[:, task].astype(float))
    r = r[np.isfinite(r)]  # a draw of only one task may have no spread
    if not r.size:
        return math.nan, math.nan
    low, high = np.quantile(r, [0.025, 0.975])
    return float(low), float(high)


def _pearson(x: Array, y: Array, weights: Array) -> Array:
    """Returns the weighted r for each row of weights `[R, n]`."""
    share = weights / weights.sum(axis=1, keepdims=True)
    dx, dy = x - (share @ x)[:, None], y - (share @ y)[:, None]
    xy, xx, yy = ((share * product).sum(axis=1) for product in (dx * dy, dx * dx, dy * dy))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = xy / np.sqrt(xx * yy)
    return np.clip(np.where((xx > 1e-24) & (yy > 1e-24), r, np.nan), -1, 1)
