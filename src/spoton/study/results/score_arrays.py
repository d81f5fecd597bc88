"""Scores of a study as arrays of sources x targets x seeds, with NaN where a cell is missing.

A score that is already a mean over seeds (a published table) takes a separate "seed", None, with its standard deviation
and number of seeds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
        mean: The mean; NaN if there are no values.
        std: Sample standard deviation; NaN if unknown or for fewer than two seeds.
        n: Number of seeds; 0 if there are no values or the number is unknown.
    """

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Array) -> Mean:
        """Returns the mean of the finite values."""
        finite = values[np.isfinite(values)]
        std = float(finite.std(ddof=1)) if finite.size > 1 else np.nan
        return cls(float(finite.mean()) if finite.size else np.nan, std, finite.size)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values; unknown ones are None."""
        return {"mean": known(self.mean), "std": known(self.std), "n": self.n or None}


NOTHING = Mean(np.nan, np.nan, 0)


def is_pair(source: str | None, target: str) -> bool:
    """Returns whether source and target are a pair: a prompt tuned further on its own task is not a transfer.

    The only definition of a pair. Counts, means, advice, oracle, correlations and rankings all follow it.
    """
    return source is not None and source != target


@dataclass(frozen=True, eq=False)
class ScoreArrays:
    """Scores of one split.

    Attributes:
        sources: S names.
        targets: T names.
        seeds: N seeds; None stands for means over seeds.
        transfer: `[S, T, N]` scores after transfer; NaN where source and target are not a pair.
        scratch: `[T, N]` scores from scratch.
        given: Mean, standard deviation and number of seeds of cells that are means, by (source, target).
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    seeds: tuple[int | None, ...]
    transfer: Array
    scratch: Array
    given: dict[tuple[str | None, str], Mean]

    @classmethod
    def of(cls, scores: Sequence[Score], sources: Sequence[str], targets: Sequence[str]) -> ScoreArrays:
        """Arranges scores. Leaves out other targets, and scores neither from scratch nor of a pair (`is_pair`)."""
        row, column = _places(sources), _places(targets)
        scores = [
            one
            for one in scores
            if one.target in column
            and (one.source is None or (one.source in row and is_pair(one.source, one.target)))
        ]
        seeds = tuple(sorted({one.seed for one in scores}, key=lambda seed: (seed is None, seed or 0)))
        transfer = np.full((len(sources), len(targets), len(seeds)), np.nan)
        scratch = np.full((len(targets), len(seeds)), np.nan)
        layer = _places(seeds)
        given = {}
        for one in scores:
            place = column[one.target], layer[one.seed]
            if one.source is None:
                scratch[place] = one.score
            else:
                transfer[row[one.source], *place] = one.score
            if one.seed is None:
                given[one.source, one.target] = Mean(
                    one.score, np.nan if one.std is None else one.std, one.n or 0
                )
        return cls(tuple(sources), tuple(targets), seeds, transfer, scratch, given)

    @cached_property
    def row(self) -> dict[str, int]:
        """Index of each source."""
        return _places(self.sources)

    @cached_property
    def column(self) -> dict[str, int]:
        """Index of each target."""
        return _places(self.targets)

    @cached_property
    def is_seeded(self) -> NDArray[np.bool_]:
        """`[N]` whether a layer is a seed rather than a mean over seeds."""
        return np.array([seed is not None for seed in self.seeds], dtype=bool)

    def laid_out(self, values: Mapping[tuple[str, str, int], float]) -> Array:
        """Returns `[S, T, N]` of numbers by source, target and seed; NaN where there is none. Others are left out."""
        layer = _places(self.seeds)
        array = np.full(self.transfer.shape, np.nan)
        for (source, target, seed), value in values.items():
            if source in self.row and target in self.column and seed in layer:
                array[self.row[source], self.column[target], layer[seed]] = value
        return array

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yields the indices of every pair of source and target, source by source."""
        for s, source in enumerate(self.sources):
            for t, target in enumerate(self.targets):
                if is_pair(source, target):
                    yield s, t

    def by_seed(self, source: str | None, target: str) -> Array:
        """Returns `[N]` scores of a cell."""
        t = self.column[target]
        scores: Array = self.scratch[t] if source is None else self.transfer[self.row[source], t]
        return scores

    def cell(self, source: str | None, target: str) -> Mean:
        """Returns a cell's mean over seeds. Single seeds take precedence over a given mean."""
        if source is not None and not is_pair(source, target):
            return NOTHING
        seeded = self.by_seed(source, target)[self.is_seeded]
        if np.isfinite(seeded).any():
            return Mean.of(seeded)
        return self.given.get((source, target), NOTHING)

    @cached_property
    def scratch_or_mean(self) -> Array:
        """`[T, N]` scores from scratch; the mean where only that is known, or for comparison with a mean.

        Also the mean where no seed of a transfer has a run from scratch of its own. A single seed that is missing among
        others stays missing.
        """
        filled = self.scratch.copy()
        for t, target in enumerate(self.targets):
            tried = np.isfinite(self.transfer[:, t]).any(axis=0)
            paired = (tried & np.isfinite(self.scratch[t]))[self.is_seeded].any()
            fillable = np.isnan(filled[t]) & (~self.is_seeded | (not paired))
            filled[t, fillable] = self.cell(None, target).mean
        return filled

    @cached_property
    def unpaired(self) -> tuple[str, ...]:
        """Targets where a transfer's seed has no run from scratch, so that changes are unpaired."""
        lonely = np.isfinite(self.transfer).any(axis=0) & np.isnan(self.scratch)
        return tuple(
            target
            for t, target in enumerate(self.targets)
            if np.isfinite(self.scratch_or_mean[t][lonely[t]]).any()
        )

    @cached_property
    def unmatched(self) -> tuple[str, ...]:
        """Targets where some seeds of a transfer have a run from scratch and others have none to be compared with."""
        alone = np.isfinite(self.transfer).any(axis=0) & np.isnan(self.scratch_or_mean)
        return tuple(
            target
            for t, target in enumerate(self.targets)
            if np.isfinite(self.scratch_or_mean[t]).any() and alone[t].any()
        )

    def missing(self, left_out: Collection[tuple[str, str]] = ()) -> list[tuple[str | None, str, int | None]]:
        """Returns the cells (source, target, seed) without a score, among the seeds that occur.

        A cell given as a mean over seeds lacks none of them.
        """
        layers = [n for n in range(len(self.seeds)) if self.is_seeded[n]] or list(range(len(self.seeds)))
        absent: list[tuple[str | None, str, int | None]] = []
        for n in layers:
            for t, target in enumerate(self.targets):
                for source in (None, *self.sources):
                    if (
                        (source is None or is_pair(source, target))
                        and (source, target) not in left_out
                        and (source, target) not in self.given
                        and np.isnan(
                            self.scratch[t, n] if source is None else self.transfer[self.row[source], t, n]
                        )
                    ):
                        absent.append((source, target, self.seeds[n]))
        return absent

    def missing_pairs(self, left_out: Collection[tuple[str, str]] = ()) -> list[tuple[str, str]]:
        """Returns the pairs without any score."""
        return [
            (self.sources[s], self.targets[t])
            for s, t in self.pairs()
            if (self.sources[s], self.targets[t]) not in left_out and np.isnan(self.transfer[s, t]).all()
        ]


def known(value: float | None, digits: int = 6) -> float | None:
    """Returns a number for a JSON document, rounded far below any noise; None if it is not finite."""
    return None if value is None or not np.isfinite(value) else round(float(value), digits)


def _places(names: Sequence[Any]) -> dict[Any, int]:
    return {name: place for place, name in enumerate(names)}
