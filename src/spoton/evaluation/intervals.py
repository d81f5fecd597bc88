"""How far chance may move a score: Wilson intervals of accuracy, bootstrap intervals of other metrics, paired gains.

Intervals are of the rows (or seeds) that were scored, and tell nothing of others. scipy computes them; what is here
is which one fits what, and saying so where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from spoton.tasks.example import Example
from spoton.tasks.metrics import Examples, Labels, Predictions, compute, resampled_scores

LEVEL = 0.95
_RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """An interval of a score or of a gain, in points.

    Attributes:
        low: Its lower end; NaN if there is none.
        high: Its upper end; NaN if there is none.
        method: How it was computed: ``Wilson``, ``bootstrap``, ``paired t``, ``Welch``.
        problem: Why there is none; empty if there is one.
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
        """The interval as a reader has it, such as ``95 % Wilson: 88.3 to 100.0``."""
        if not self.is_known:
            return f"no interval: {self.problem}"
        return f"95 % {self.method}: {self.low:.1f} to {self.high:.1f}"

    def to_json(self) -> list[float] | None:
        """Both ends; None if there is no interval."""
        return [self.low, self.high] if self.is_known else None


def score_intervals(
    names: Sequence[str],
    predictions: Predictions,
    examples: Examples,
    labels: Labels = None,
    *,
    seed: int = 0,
) -> dict[str, Interval]:
    """95 % intervals of metrics on one set of rows.

    Accuracy has Wilson's interval, which does not shrink to a point where all answers are right. Other metrics, and
    accuracy on rows that share a question and so are not independent, have a percentile bootstrap (Efron 1979) over
    rows, with those of one question drawn together.

    Args:
        names: As for `spoton.tasks.metrics.compute`.
        predictions: One an example.
        examples: What was asked.
        labels: The closed set of targets, if there is one.
        seed: Decides the resamples.

    Raises:
        DataError: As `spoton.tasks.metrics.compute`.
    """
    blocks = _blocks(examples)
    intervals = {}
    if "accuracy" in names and len(blocks) == len(examples):
        right = sum(said == example.target for said, example in zip(predictions, examples, strict=True))
        intervals["accuracy"] = wilson(right, len(examples))
    others = [name for name in names if name not in intervals]
    if others:
        # All metrics are resampled, since `mean` is that of the others.
        intervals = _bootstrap(names, predictions, examples, labels, blocks, seed) | intervals
    return {name: intervals[name] for name in names}


def wilson(right: float, n: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval (1927) of a share of n independent rows, in percent.

    Examples:
        >>> wilson(29, 29).text()
        '95 % Wilson: 88.3 to 100.0'
    """
    bounds = stats.binomtest(round(right), n).proportion_ci(level, method="wilson")
    return Interval(100 * float(bounds.low), 100 * float(bounds.high), "Wilson")


def paired_gain(differences: NDArray[np.float64], level: float = LEVEL) -> Interval:
    """Student's interval of a mean difference, each of one seed's score after and before (paired t).

    Args:
        differences: ``[N]`` one for each seed; NaN where either side is missing.
        level: Confidence.
    """
    known = differences[np.isfinite(differences)]
    if known.size < 2:
        return Interval(math.nan, math.nan, "paired t", "it takes two seeds that have both sides")
    if not np.ptp(known):
        return Interval(math.nan, math.nan, "paired t", "all seeds differ by the same amount")
    bounds = stats.ttest_1samp(known, 0).confidence_interval(level)
    return Interval(float(bounds.low), float(bounds.high), "paired t")


def unpaired_gain(
    mean: float, std: float, n: int, base: float, base_std: float, base_n: int, level: float = LEVEL
) -> Interval:
    """Welch's interval of the difference of two means that are known by their standard deviations alone."""
    if min(n, base_n) < 2 or not std + base_std > 0:
        return Interval(
            math.nan, math.nan, "Welch", "it takes a deviation over two seeds or more on either side"
        )
    errors = std**2 / n, base_std**2 / base_n
    freedom = sum(errors) ** 2 / (errors[0] ** 2 / (n - 1) + errors[1] ** 2 / (base_n - 1))
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(sum(errors))
    return Interval(mean - base - half, mean - base + half, "Welch")


def _blocks(examples: Examples) -> list[list[int]]:
    """Places of rows that are drawn together, since they belong to one question."""
    blocks: dict[object, list[int]] = {}
    for index, example in enumerate(examples):
        blocks.setdefault(example.question or index, []).append(index)
    return list(blocks.values())


def _bootstrap(
    names: Sequence[str], predictions: Predictions, examples: Examples, labels: Labels,
    blocks: Sequence[Sequence[int]], seed: int,
) -> dict[str, Interval]:  # fmt: skip
    if len(blocks) < 2:
        return {name: Interval(math.nan, math.nan, "bootstrap", "there is one row only") for name in names}

    generator = np.random.default_rng(seed)
    counted = None
    if len(blocks) == len(examples):
        counted = resampled_scores(names, predictions, examples, labels, _RESAMPLES, generator)
    if counted is not None:  # the same in a hundredth of the time
        ends = {
            name: np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) for name, values in counted.items()
        }
        return {name: _interval(float(low), float(high), len(examples)) for name, (low, high) in ends.items()}

    def scores_of(drawn: NDArray[np.intp]) -> list[float]:
        # A question drawn twice counts twice: its copies get keys of their own.
        rows = [(index, copy) for copy, block in enumerate(drawn.tolist()) for index in blocks[block]]
        again = [_copy(examples[index], copy) for index, copy in rows]
        said = [predictions[index] for index, _ in rows]
        values = compute(names, said, [example.target for example in again], labels, examples=again)
        return [values[name] for name in names]

    drawn: Any = stats.bootstrap(
        (np.arange(len(blocks)),), scores_of, vectorized=False, n_resamples=_RESAMPLES, confidence_level=LEVEL,
        method="percentile", rng=generator,
    )  # fmt: skip
    bounds = zip(names, *(np.atleast_1d(end).tolist() for end in drawn.confidence_interval), strict=True)
    return {name: _interval(low, high, len(examples)) for name, low, high in bounds}


def _interval(low: float, high: float, rows: int) -> Interval:
    if high - low > 1e-9:
        return Interval(low, high, "bootstrap")
    return Interval(
        math.nan,
        math.nan,
        "bootstrap",
        f"resamples of these {rows} rows all score the same (the bootstrap collapses)",
    )


def _copy(example: Example, copy: int) -> Example:
    if not example.question:
        return example
    return Example(example.input, example.target, example.references, f"{copy}: {example.question}")
