"""How much sooner transfer arrives: steps to the highest score of tuning from scratch, and the area between the curves.

Curves are running maxima of the validation score. A prompt that is kept for its loss may score lower. Steps between two
evaluations are interpolated. This file computes numbers and words from numbers; it tunes nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spoton.plots import History


@dataclass(frozen=True)
class MeanInterval:
    """A mean over seeds and its 95 % confidence interval (Student's t); both ends None for one seed."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> MeanInterval:
        """Returns the interval of at least one number."""
        mean, n = statistics.mean(values), len(values)
        if n < 2:
            return cls(mean, None, None, n)
        from scipy.stats import t

        half = float(t.ppf(0.975, n - 1)) * statistics.stdev(values) / n**0.5
        return cls(mean, mean - half, mean + half, n)


@dataclass(frozen=True)
class Speed:
    """The savings of transfer, paired by seed.

    Attributes:
        scratch_steps: Steps of tuning from scratch at its first best evaluation, mean over seeds.
        transfer_steps: Steps of all candidates, including those of the probe, at which transfer reaches that score;
            mean over the seeds that reach it. None if no seed does.
        reached: Number of seeds that reach it.
        area: Mean height of the transfer curve above the scratch curve over their common steps, in points of the
            metric.
    """

    scratch_steps: float
    transfer_steps: MeanInterval | None
    reached: int
    area: MeanInterval

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as plain values."""
        return asdict(self)

    def sentence(self) -> str:
        """Returns the result as a sentence."""
        if self.scratch_steps == 0:
            return (
                "Tuning from scratch did not improve on its start, so transfer cannot reach its score sooner."
            )
        if self.transfer_steps is None:
            return "Transfer did not reach the highest validation score of tuning from scratch."
        steps, n = self.transfer_steps, self.area.n
        interval = (
            "" if steps.low is None else f" (95 % interval {max(0.0, steps.low):.0f} to {steps.high:.0f})"
        )
        seeds = "" if n == 1 else f" in {self.reached} of {n} seeds"
        return (
            f"Transfer reached the highest validation score of tuning from scratch after {steps.mean:.0f} steps"
            f"{interval}{seeds}; tuning from scratch took {self.scratch_steps:.0f}."
        )


def speed(scratch: Sequence[History], transfer: Sequence[History], probes: Sequence[int]) -> Speed | None:
    """Compares two arms by their evaluations on the validation split.

    Args:
        scratch: One history per seed, from prompt tuning from scratch.
        transfer: One history per seed, in the same order; with several candidates, by the steps of all of them.
        probes: Steps that transfer took in each seed before its history begins. The cost of a trial differs by seed.

    Returns:
        None if an arm of some seed was never evaluated.
    """
    pairs = [
        (_curve(one, 0), _curve(other, probe))
        for one, other, probe in zip(scratch, transfer, probes, strict=True)
    ]
    if not pairs or not all(len(one[0]) and len(other[0]) for one, other in pairs):
        return None
    firsts = [float(steps[scores.argmax()]) for (steps, scores), _ in pairs]
    arrivals = [
        steps
        for (_, scores), curve in pairs
        if (steps := steps_to_reach(curve[0], curve[1], float(scores.max()))) is not None
    ]
    return Speed(
        statistics.mean(firsts),
        MeanInterval.of(arrivals) if arrivals else None,
        len(arrivals),
        MeanInterval.of([area_between(one, other) for one, other in pairs]),
    )


def steps_to_reach(steps: np.ndarray, scores: np.ndarray, level: float) -> float | None:
    """Returns the step at which a rising curve reaches a level, interpolated; None if it never does.

    Args:
        steps: `[N]` rising.
        scores: `[N]` never falling.
        level: The score to reach.
    """
    above = np.flatnonzero(scores >= level)
    if not len(above):
        return None
    place = int(above[0])
    if place == 0:
        return float(steps[0])
    share = (level - scores[place - 1]) / (scores[place] - scores[place - 1])
    return float(steps[place - 1] + share * (steps[place] - steps[place - 1]))


def area_between(scratch: tuple[np.ndarray, np.ndarray], transfer: tuple[np.ndarray, np.ndarray]) -> float:
    """Returns the mean difference of two curves over the steps that both cover; 0 if they share none.

    Args:
        scratch: Steps `[N]` and scores `[N]` of tuning from scratch.
        transfer: Steps `[M]` and scores `[M]` with transfer.
    """
    low, high = max(scratch[0][0], transfer[0][0]), min(scratch[0][-1], transfer[0][-1])
    if low >= high:
        return 0.0
    inside = np.concatenate([scratch[0], transfer[0], [low, high]])
    grid = np.unique(inside[(inside >= low) & (inside <= high)])
    gap = np.interp(grid, *transfer) - np.interp(grid, *scratch)
    return float(np.trapezoid(gap, grid) / (high - low))


def _curve(history: History, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps and the best validation score so far."""
    pairs = [(entry["step"] + shift, entry["validation"]) for entry in history if "validation" in entry]
    steps, scores = (np.array([pair[i] for pair in pairs], dtype=float) for i in (0, 1))
    return steps, np.maximum.accumulate(scores) if len(scores) else scores
