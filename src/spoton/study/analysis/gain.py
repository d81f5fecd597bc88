"""Gains of each source for each target: absolute gain, relative error reduction, and comparison with noise.

Scores are percentages, so the error of a score is 100 minus it.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from spoton.evaluation.intervals import ROUNDING, Interval, paired_gain, unpaired_gain
from spoton.study.results.score_arrays import Array, Mean, ScoreArrays, known

_DRAWS = 100_000

MIN_TESTED_SEEDS = 3
"""Seeds that a test of a pair needs. Scores have few distinct values (1/28 of 28 rows), so the gains of two seeds are
often equal by chance; their deviation, and with it the interval, is then next to nothing."""


def error_reduction(score: Array | float, base: Array | float) -> Any:
    """Returns the relative error reduction in percent: the share of `base`'s error that `score` removes.

    `100 * ((100 - base) - (100 - score)) / (100 - base)`; it reproduces Table 7 of SPoT from Table 6. Where base is
    100 there is no error to reduce: the result is NaN, which means leave out.

    Examples:
        >>> round(float(error_reduction(97.0, 92.7)), 1)
        58.9
    """
    error = 100 - np.asarray(base, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error > 0, 100 * (np.asarray(score, dtype=float) - base) / error, np.nan)


@dataclass(frozen=True)
class Change:
    """One source and one target, compared with tuning the target from scratch.

    Attributes:
        source: The source task.
        target: The target task.
        score: Score after transfer.
        scratch: Score from scratch.
        gain: Difference of the means, in points.
        error_reduction: Relative error reduction of the means, in percent.
        error_reduction_std: Standard deviation over seeds, each against its own run from scratch; where only means are
            known, propagated from their deviations to first order.
        beyond_noise: Whether the gain exceeds the standard deviation over seeds of either side; None: unknown, also if
            all seeds of both sides score the same, which shows no noise instead of none.
        p_value: Two-sided p-value: of a paired t test over seeds where both sides have the same ones, else of Welch's
            t test; NaN with fewer than two seeds.
        interval: 95 % interval of the gain, by the same test.
    """

    source: str
    target: str
    score: Mean
    scratch: Mean
    gain: float
    error_reduction: float
    error_reduction_std: float
    beyond_noise: bool | None
    p_value: float
    interval: Interval

    @property
    def seeds(self) -> int:
        """Number of seeds that both sides have at least."""
        return min(self.score.n, self.scratch.n)

    @property
    def is_tested(self) -> bool:
        """Whether interval and p-value rest on enough seeds on both sides to judge the pair by them."""
        return self.interval.is_known and self.seeds >= MIN_TESTED_SEEDS

    @property
    def outcome(self) -> str:
        """`helps`, `hurts`, `within noise`, or `noise unknown` where the noise is unknown."""
        if self.beyond_noise is None:
            return "noise unknown"
        return ("helps" if self.gain > 0 else "hurts") if self.beyond_noise else "within noise"

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "source": self.source, "target": self.target,
            **self.score.to_json(), "from_scratch": self.scratch.to_json(), "gain": known(self.gain),
            "error_reduction": known(self.error_reduction), "error_reduction_std": known(self.error_reduction_std),
            "outcome": self.outcome, "p_value": known(self.p_value, 12),
            "gain_interval": self.interval.to_json(), "compared": self.interval.method, "tested": self.is_tested,
        }  # fmt: skip


def changes(grid: ScoreArrays) -> list[Change]:
    """Returns the change of every pair with a score on both sides, source by source."""
    scratch = [grid.cell(None, target) for target in grid.targets]
    found = []
    for s, t in grid.pairs():
        score = grid.cell(grid.sources[s], grid.targets[t])
        if math.isfinite(score.mean) and math.isfinite(scratch[t].mean):
            seeds = grid.is_seeded
            found.append(
                _change(
                    (grid.sources[s], grid.targets[t]), score, scratch[t],
                    grid.transfer[s, t][seeds], grid.scratch[t][seeds],
                )
            )  # fmt: skip
    return found


def matrix(grid: ScoreArrays, found: list[Change], field: str) -> Array:
    """Returns a field of every pair as `[S, T]`; NaN where there is none."""
    values = np.full((len(grid.sources), len(grid.targets)), np.nan)
    for one in found:
        values[grid.row[one.source], grid.column[one.target]] = getattr(one, field)
    return values


def adjusted(p_values: Array) -> Array:
    """Returns p-values adjusted for many tests (Benjamini and Hochberg 1995).

    At most 5 % of those below 0.05 are expected to be false positives. NaN stays NaN and does not count as a test.
    """
    tested = np.isfinite(p_values)
    result = np.full(p_values.shape, np.nan)
    if tested.any():
        result[tested] = stats.false_discovery_control(p_values[tested])
    return result


@functools.cache
def chance_beyond_noise(n: int) -> float:
    """Returns how often `Change.beyond_noise` is true where source and scratch do not differ.

    For n seeds on each side and normal scores, by a deterministic simulation.
    """
    if n < 2:
        return math.nan
    draws = np.random.default_rng(0).standard_normal((2, _DRAWS, n))
    noise = draws.std(axis=2, ddof=1).max(axis=0)
    return float((np.abs(draws[0].mean(axis=1) - draws[1].mean(axis=1)) > noise).mean())


def _change(pair: tuple[str, str], score: Mean, scratch: Mean, after: Array, before: Array) -> Change:
    """Returns the change of a pair from its means and its scores by seed `[N]`."""
    gain = score.mean - scratch.mean
    noise = math.nan if math.isnan(score.std) or math.isnan(scratch.std) else max(score.std, scratch.std)
    spread = Mean.of(error_reduction(after, before)).std
    if math.isnan(spread):
        spread = _propagated(score, scratch)
    interval, p_value = _compared(score, scratch, after, before)
    return Change(
        *pair, score, scratch, gain, float(error_reduction(score.mean, scratch.mean)), spread,
        beyond_noise=abs(gain) > noise if noise > ROUNDING else None,  # NaN is not larger
        p_value=p_value, interval=interval,
    )  # fmt: skip


def _compared(score: Mean, scratch: Mean, after: Array, before: Array) -> tuple[Interval, float]:
    """Returns the interval and p-value of a gain, paired where both sides have the same two or more seeds."""
    there = np.isfinite(after), np.isfinite(before)
    if there[0].sum() > 1 and (there[0] == there[1]).all():
        differences = (after - before)[there[0]]
        interval = paired_gain(differences)
        if not interval.is_known:
            return interval, math.nan
        return interval, float(stats.ttest_1samp(differences, 0).pvalue)
    interval = unpaired_gain(score.mean, score.std, score.n, scratch.mean, scratch.std, scratch.n)
    return interval, _welch(score, scratch)


def _propagated(score: Mean, scratch: Mean) -> float:
    """Returns the standard deviation of the error reduction from those of both scores, taken as independent."""
    error = 100 - scratch.mean
    if error <= 0:
        return math.nan
    return 100 * math.hypot(score.std / error, scratch.std * (100 - score.mean) / error**2)


def _welch(score: Mean, scratch: Mean) -> float:
    if min(score.n, scratch.n) < 2 or not score.std + scratch.std > ROUNDING:
        return math.nan
    test = stats.ttest_ind_from_stats(
        score.mean, score.std, score.n, scratch.mean, scratch.std, scratch.n, equal_var=False
    )
    return float(test.pvalue)
