"""Uncertainty of scores: Wilson intervals of accuracy, bootstrap intervals of other metrics, paired gains.

Intervals cover only the rows (or seeds) that were scored. scipy computes them; this file chooses the fitting one, and
says so if there is none.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from spoton.tasks.example import Example
from spoton.tasks.metrics import compute, resampled_scores
from spoton.tasks.text_metrics import Examples, Labels, Predictions

LEVEL = 0.95
"""Confidence of every interval, which `Interval.text` names."""
ROUNDING = 1e-9
"""In points: a difference or deviation up to this is rounding, since decimal scores vary in the fifteenth digit."""
_RESAMPLES = 1000
_MIN_TARGETS = 3  # with fewer, no bootstrap shows how much another target may differ


@dataclass(frozen=True)
class Interval:
    """An interval of a score or of a gain, in points.

    Attributes:
        low: Lower end; NaN if there is no interval.
        high: Upper end; NaN if there is no interval.
        method: The method: `Wilson`, `bootstrap`, `Newcombe`, `paired bootstrap`,
            `hierarchical bootstrap`, `t over targets`, `paired t`, `Welch`.
        problem: Why there is no interval; empty if there is one.
    """

    low: float
    high: float
    method: str
    problem: str = ""

    @property
    def is_known(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def text(self) -> str:
        """Returns the interval as text, such as `95 % Wilson: 88.3 to 100.0`."""
        if not self.is_known:
            return f"no interval: {self.problem}"
        return f"95 % {self.method}: {self.low:.1f} to {self.high:.1f}"

    def to_json(self) -> list[float] | None:
        """Returns both ends; None if there is no interval."""
        return [self.low, self.high] if self.is_known else None


def score_intervals(
    names: Sequence[str],
    predictions: Predictions,
    examples: Examples,
    labels: Labels = None,
) -> dict[str, Interval]:
    """Returns 95 % intervals of metrics on one set of rows.

    Accuracy has Wilson's interval, which does not collapse to a point when all answers are correct. Other metrics have
    a percentile bootstrap (Efron 1979) over rows. So has accuracy on rows that share a question and are therefore not
    independent; rows of one question are drawn together.

    Args:
        names: As for `spoton.tasks.metrics.compute`.
        predictions: One per example.
        examples: The examples.
        labels: The closed set of targets, if there is one.

    Raises:
        DataError: As `spoton.tasks.metrics.compute`.
    """

    def exact() -> Interval:
        right = sum(said == example.target for said, example in zip(predictions, examples, strict=True))
        return wilson(right, len(examples))

    return _intervals(names, [predictions], examples, labels, exact)


def difference_intervals(
    names: Sequence[str],
    before: Predictions,
    after: Predictions,
    examples: Examples,
    labels: Labels = None,
) -> dict[str, Interval]:
    """Returns 95 % intervals of the gain in metrics from one set of answers to another on the same rows.

    Rows are kept in pairs, so that difficulty common to both has no effect. Accuracy has Newcombe's interval. Other
    metrics, and accuracy on rows that share a question, have a percentile bootstrap that draws the same rows for both.

    Args:
        names: As for `spoton.tasks.metrics.compute`.
        before: Answers, one per example.
        after: Answers to compare with those, one per example.
        examples: The examples.
        labels: The closed set of targets, if there is one.

    Raises:
        DataError: As `spoton.tasks.metrics.compute`.
    """

    def exact() -> Interval:
        return newcombe(*agreement(before, after, examples))

    return _intervals(names, [before, after], examples, labels, exact)


def agreement(before: Predictions, after: Predictions, examples: Examples) -> tuple[int, int, int, int]:
    """Returns the number of rows where both answers equal the target, only the second, only the first, and neither."""
    counts = Counter(
        (first == example.target, second == example.target)
        for first, second, example in zip(before, after, examples, strict=True)
    )
    return counts[True, True], counts[False, True], counts[True, False], counts[False, False]


def wilson(right: float, n: int) -> Interval:
    """Returns Wilson's score interval (1927) of a share of n independent rows, in percent.

    Examples:
        >>> wilson(29, 29).text()
        '95 % Wilson: 88.3 to 100.0'
    """
    bounds = stats.binomtest(round(right), n).proportion_ci(LEVEL, method="wilson")
    return Interval(100 * float(bounds.low), 100 * float(bounds.high), "Wilson")


def newcombe(both: int, gained: int, lost: int, neither: int) -> Interval:
    """Returns Newcombe's interval of the difference of two shares of the same rows, in percent (1998, method 10).

    It combines Wilson's intervals of both shares by the correlation of the answers. It does not collapse to a point
    when all answers agree.

    Args:
        both: Rows that both answers get right.
        gained: Rows that only the second gets right.
        lost: Rows that only the first gets right.
        neither: Rows that neither gets right.

    Example:
        >>> newcombe(36, 12, 2, 0).text()
        '95 % Newcombe: 5.7 to 34.0'
    """
    n = both + gained + lost + neither
    after, before = wilson(both + gained, n), wilson(both + lost, n)
    share_after, share_before = 100 * (both + gained) / n, 100 * (both + lost) / n
    product = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    covariance = float(both * neither - gained * lost)
    if covariance > 0:
        covariance = max(covariance - n / 2, 0.0)
    phi = covariance / math.sqrt(product) if product else 0.0
    down = share_after - after.low, before.high - share_before
    up = after.high - share_after, share_before - before.low
    below, above = (math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b)) for a, b in (down, up))
    difference = share_after - share_before
    return Interval(difference - below, difference + above, "Newcombe")


def mcnemar(gained: int, lost: int) -> float:
    """Returns the two-sided p-value that two sets of answers to the same rows are equally often right.

    McNemar's exact test with the mid-p correction that Fagerland, Lydersen and Laake (2013) recommend: without it the
    test is too conservative if few rows differ.

    Args:
        gained: Rows that only the second gets right.
        lost: Rows that only the first gets right.
    """
    chances = stats.binom(gained + lost, 0.5)
    fewer = min(gained, lost)
    return min(1.0, float(2 * chances.cdf(fewer) - chances.pmf(fewer)))


def paired_gain(differences: NDArray[np.float64]) -> Interval:
    """Returns Student's interval of a mean difference, each of one seed's score after and before (paired t).

    Args:
        differences: `[N]` one per seed; NaN if either score is missing.
    """
    known, method = differences[np.isfinite(differences)], "paired t"
    if known.size < 2:
        return Interval(math.nan, math.nan, method, "it takes two seeds that have both sides")
    if np.ptp(known) <= ROUNDING:
        return Interval(math.nan, math.nan, method, "all seeds differ by the same amount")
    return _student(known, method)


def hierarchical(values: NDArray[np.float64]) -> Interval:
    """Returns a bootstrap interval of a mean over targets and seeds, which draws targets, and seeds within each.

    Scores of one target are not independent draws of the results on a new target, so targets are drawn first (Davison
    and Hinkley 1997, section 3.8). The mean is that of the targets' means.

    With few targets the interval is too narrow: where targets differ by more than seeds, it covers the true mean in
    83 % of cases with three targets and in 94 % with eleven (simulated in its tests). `over_targets` is not.

    Args:
        values: `[T, N]`, one number per target and seed; NaN if there is none.
    """
    rows = [row[np.isfinite(row)] for row in values if np.isfinite(row).any()]
    if len(rows) < _MIN_TARGETS:
        return Interval(math.nan, math.nan, "hierarchical bootstrap", f"it takes {_MIN_TARGETS} targets")
    draw = np.random.default_rng(0)
    # Means of every target's seeds, drawn anew for each resample. A target that is drawn twice has one of them, which
    # makes the interval a little wider than with two draws.
    means = np.stack([row[draw.integers(row.size, size=(_RESAMPLES, row.size))].mean(axis=1) for row in rows])
    chosen = draw.integers(len(rows), size=(len(rows), _RESAMPLES))
    resampled = np.take_along_axis(means, chosen, axis=0).mean(axis=0)
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), "hierarchical bootstrap")


def over_targets(values: NDArray[np.float64]) -> Interval:
    """Returns Student's interval of the mean of the targets' means, which covers 95 % with few targets, too.

    Args:
        values: `[T, N]`, one number per target and seed; NaN if there is none.
    """
    means = np.array([row[np.isfinite(row)].mean() for row in values if np.isfinite(row).any()])
    method = "t over targets"
    if means.size < 2 or np.ptp(means) <= ROUNDING:
        return Interval(math.nan, math.nan, method, "it takes two targets with different means")
    return _student(means, method)


def _student(values: NDArray[np.float64], method: str) -> Interval:
    """Returns Student's interval of the mean of at least two numbers that are not all the same."""
    bounds = stats.ttest_1samp(values, 0).confidence_interval(LEVEL)
    return Interval(float(bounds.low), float(bounds.high), method)


def unpaired_gain(mean: float, std: float, n: int, base: float, base_std: float, base_n: int) -> Interval:
    """Returns Welch's interval of the difference of two means, given only their standard deviations."""
    if min(n, base_n) < 2 or not std + base_std > ROUNDING:
        return Interval(
            math.nan, math.nan, "Welch", "it takes a deviation over two seeds or more on either side"
        )
    errors = std**2 / n, base_std**2 / base_n
    freedom = sum(errors) ** 2 / (errors[0] ** 2 / (n - 1) + errors[1] ** 2 / (base_n - 1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(sum(errors))
    return Interval(mean - base - half, mean - base + half, "Welch")


def _intervals(
    names: Sequence[str],
    answers: Sequence[Predictions],
    examples: Examples,
    labels: Labels,
    accuracy: Callable[[], Interval],
) -> dict[str, Interval]:
    """Returns intervals of one set of answers, or of the difference of two: the given one for accuracy on independent
    rows, and a bootstrap for everything else."""
    blocks = _blocks(examples)
    intervals = {"accuracy": accuracy()} if "accuracy" in names and len(blocks) == len(examples) else {}
    if any(name not in intervals for name in names):
        # All metrics are resampled, since `mean` is computed from the others.
        intervals = _bootstrap(names, answers, examples, labels, blocks) | intervals
    return {name: intervals[name] for name in names}


def _blocks(examples: Examples) -> list[list[int]]:
    """Returns the places of rows that are drawn together, since they belong to one question."""
    blocks: dict[object, list[int]] = {}
    for index, example in enumerate(examples):
        blocks.setdefault(example.question or index, []).append(index)
    return list(blocks.values())


def _bootstrap(
    names: Sequence[str], answers: Sequence[Predictions], examples: Examples, labels: Labels,
    blocks: Sequence[Sequence[int]],
) -> dict[str, Interval]:  # fmt: skip
    """Returns intervals of the scores of one set of answers, or of the gain of the second over the first."""
    method = "bootstrap" if len(answers) == 1 else "paired bootstrap"
    if len(blocks) < 2:
        return {name: Interval(math.nan, math.nan, method, "there is one row only") for name in names}
    if len(blocks) == len(examples):
        # The same result in a hundredth of the time. Generators of one seed draw the same rows for all answers.
        counted = [
            resampled_scores(names, said, examples, labels, _RESAMPLES, np.random.default_rng(0))
            for said in answers
        ]
        known = [scores for scores in counted if scores is not None]
        if len(known) == len(answers):
            values = {name: _gain([scores[name] for scores in known]) for name in names}
            ends = {
                name: np.quantile(one, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) for name, one in values.items()
            }
            return {
                name: _interval(float(low), float(high), method, len(examples))
                for name, (low, high) in ends.items()
            }

    def scores_of(drawn: NDArray[np.intp]) -> list[float]:
        # A question drawn twice counts twice: its copies get their own keys.
        rows = [(index, copy) for copy, block in enumerate(drawn.tolist()) for index in blocks[block]]
        again = [_copy(examples[index], copy) for index, copy in rows]
        targets = [example.target for example in again]
        scores = [
            compute(names, [said[index] for index, _ in rows], targets, labels, examples=again)
            for said in answers
        ]
        return [_gain([values[name] for values in scores]) for name in names]

    drawn: Any = stats.bootstrap(
        (np.arange(len(blocks)),), scores_of, vectorized=False, n_resamples=_RESAMPLES, confidence_level=LEVEL,
        method="percentile", rng=np.random.default_rng(0),
    )  # fmt: skip
    bounds = zip(names, *(np.atleast_1d(end).tolist() for end in drawn.confidence_interval), strict=True)
    return {name: _interval(low, high, method, len(examples)) for name, low, high in bounds}


def _gain(scores: Sequence[Any]) -> Any:
    """Returns the second score minus the first; the score itself if there is only one."""
    return scores[-1] - scores[0] if len(scores) > 1 else scores[0]


def _interval(low: float, high: float, method: str, rows: int) -> Interval:
    if high - low > ROUNDING:
        return Interval(low, high, method)
    same = "score the same" if method == "bootstrap" else "differ by the same amount"
    return Interval(
        math.nan, math.nan, method, f"resamples of these {rows} rows all {same} (the bootstrap collapses)"
    )


def _copy(example: Example, copy: int) -> Example:
    if not example.question:
        return example
    return Example(example.input, example.target, example.references, f"{copy}: {example.question}")
