"""Ratios of times: only ratios within a round count, and the result is their median."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Round = dict[str, dict[str, float]]
"""Name of an arm -> `wall` and `cpu` seconds per batch, mean over the round's batches."""

# Relative difference of a loss from the first arm's, by the type an arm computes in.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.02, "float16": 0.02}


@dataclass(frozen=True)
class Spread:
    """A median, with the lowest and the highest value."""

    median: float
    low: float
    high: float


def pairwise_ratio(rounds: Sequence[Round], slow: str, fast: str, clock: str = "wall") -> Spread | None:
    """Returns the time of `slow` divided by that of `fast`, over rounds; None if one of the arms did not run."""
    found = [r[slow][clock] / r[fast][clock] for r in rounds if slow in r and fast in r]
    return Spread(statistics.median(found), min(found), max(found)) if found else None


def median_seconds(rounds: Sequence[Round], name: str, clock: str = "wall") -> float:
    """Returns an arm's seconds per batch, median over rounds."""
    return statistics.median(r[name][clock] for r in rounds if name in r)


def disagreeing(losses: Mapping[str, float], dtypes: Mapping[str, str]) -> list[str]:
    """Returns a sentence about each arm whose loss differs from the first arm's."""
    reference, expected = next(iter(losses.items()))
    return [
        f"{name}: loss {loss:.6f}, but {reference} finds {expected:.6f}"
        for name, loss in losses.items()
        # Negated, so that NaN is a disagreement too.
        if not abs(loss - expected) <= max(TOLERANCE[dtypes[name]], TOLERANCE[dtypes[reference]]) * expected
    ]
