"""Scores of a study laid out as arrays sources x targets x seeds, with NaN where a cell is missing.

A score that is a mean over seeds already (a published table) stands as one "seed" of its own, with the standard
deviation and the number of seeds that came with it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spoton.study.results.study_results import Score

Array: TypeAlias = NDArray[np.float64]
Places: TypeAlias = NDArray[np.intp]


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        mean: The mean; NaN if there is nothing.
        std: Sample standard deviation; NaN if unknown or of fewer than two seeds.
        n: How many seeds; 0 if there is nothing or the number is unknown.
    """

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Array) -> Mean:
        """Mean of the finite ones among some values."""
        found = values[np.isfinite(values)]
        std = float(found.std(ddof=1)) if found.size > 1 else np.nan
        return cls(float(found.mean()) if found.size else np.nan, std, found.size)

    def to_json(self) -> dict[str, Any]:
        """As plain values; unknown ones are None."""
        return {"mean": known(self.mean), "std": known(self.std), "n": self.n or None}


@dataclass(frozen=True, eq=False)
class ScoreArrays:
    """Scores of one split.

    Attributes:
        sources: S names.
        targets: T names.
        seeds: N seeds; None stands for means over seeds.
        transfer: ``[S, T, N]`` scores after transfer.
        scratch: ``[T, N]`` scores from scratch.
        given: Standard deviation and number of seeds of cells that are means, by (source, target).
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    seeds: tuple[int | None, ...]
    transfer: Array
    scratch: Array
    given: dict[tuple[str | None, str], Mean]

    @classmethod
    def of(cls, scores: Sequence[Score], sources: Sequence[str], targets: Sequence[str]) -> ScoreArrays:
        """Lays scores out; a task's transfer to itself, and scores of other targets, are left out."""
        scores = [one for one in scores if one.target in targets]
        seeds = tuple(sorted({one.seed for one in scores}, key=lambda seed: (seed is None, seed or 0)))
        transfer = np.full((len(sources), len(targets), len(seeds)), np.nan)
        scratch = np.full((len(targets), len(seeds)), np.nan)
        row, column, layer = _places(sources), _places(targets), _places(seeds)
        given = {}
        for one in scores:
            if one.source is not None and one.source not in row:
                continue
            place = column[one.target], layer[one.seed]
            if one.source is None:
                scratch[place] = one.score
            elif one.source != one.target:
                transfer[row[one.source], *place] = one.score
            if one.seed is None:
                given[one.source, one.target] = Mean(
                    one.score, np.nan if one.std is None else one.std, one.n or 0
                )
        return cls(tuple(sources), tuple(targets), seeds, transfer, scratch, given)

    def cell(self, source: str | None, target: str) -> Mean:
        """A cell's mean over seeds. Seeds count before a mean that came without them."""
        t = self.targets.index(target)
        values = self.scratch[t] if source is None else self.transfer[self.sources.index(source), t]
        seeded = values[[seed is not None for seed in self.seeds]]
        if np.isfinite(seeded).any():
            return Mean.of(seeded)
        return self.given.get((source, target), Mean(np.nan, np.nan, 0))

    def missing(self, left_out: Collection[tuple[str, str]] = ()) -> list[tuple[str | None, str, int | None]]:
        """Cells (source, target, seed) that have no score, among the seeds that occur."""
        found: list[tuple[str | None, str, int | None]] = []
        for n, seed in enumerate(self.seeds):
            for t, target in enumerate(self.targets):
                if np.isnan(self.scratch[t, n]):
                    found.append((None, target, seed))
                for s, source in enumerate(self.sources):
                    if (
                        source != target
                        and (source, target) not in left_out
                        and np.isnan(self.transfer[s, t, n])
                    ):
                        found.append((source, target, seed))
        return found


def known(value: float | None, digits: int = 6) -> float | None:
    """A number for a JSON document: None for what is not finite, rounded far below any noise."""
    return None if value is None or not np.isfinite(value) else round(float(value), digits)


def _places(names: Sequence[Any]) -> dict[Any, int]:
    return {name: place for place, name in enumerate(names)}
