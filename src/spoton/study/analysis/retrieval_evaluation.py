"""How much of the oracle's gain does retrieval keep? Table 3 of SPoT for any study.

Everything is chosen by validation and reported on the reported split (test, where there is one). Only the oracle
looks at what it reports, which is why nothing can beat it. Each seed is a study of its own: its sources are ranked by
the similarity of their keys to the target's key of that seed, and changes are against its own run from scratch. Means
and deviations are over seeds, of averages over targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from spoton.study.analysis.gain import error_reduction
from spoton.study.results.scores import Array, Mean, Places, ScoreArrays, known
from spoton.transfer.similarity import Metric


@dataclass(frozen=True)
class Row:
    """One way of using sources, as one row of Table 3.

    Attributes:
        method: ``baseline``, ``best-of-top-k``, ``random``, ``oracle``, ``best-by-validation``, or another name.
        metric: The similarity that ranks, if any.
        k: How many sources are tried or combined, if that matters.
        absolute: Change of the score in points, averaged over targets.
        relative: Relative error reduction in percent, averaged over targets.
        average: The score itself, averaged over targets.
        kept: Share of the oracle's absolute change; NaN where that is not positive.
        targets: How many targets the averages are over.
    """

    method: str
    metric: Metric | None
    k: int | None
    absolute: Mean
    relative: Mean
    average: Mean
    kept: float
    targets: int

    @property
    def within_noise(self) -> bool | None:
        """Whether the change is no larger than its deviation over seeds; None: unknown (fewer than two seeds)."""
        return None if math.isnan(self.absolute.std) else abs(self.absolute.mean) <= self.absolute.std

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "method": self.method, "metric": self.metric, "k": self.k, "absolute": self.absolute.to_json(),
            "relative": self.relative.to_json(), "average": self.average.to_json(), "kept": known(self.kept),
            "targets": self.targets, "within_noise": self.within_noise,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Candidates:
    """What can be chosen from, and what comes of it.

    Attributes:
        chosen_by: ``[S, T, N]`` validation scores.
        reported: ``[S, T, N]`` scores of the reported split.
        scratch: ``[T, N]`` reported scores from scratch.
        similarity: ``[S, T, N]`` by metric.
        seeds: N seeds; (None,) if there are means over seeds only.
        targets: Places of targets to average over: those with a run from scratch and a source in every seed; where
            there is no such target, those with both in some seed.
    """

    chosen_by: Array
    reported: Array
    scratch: Array
    similarity: dict[Metric, Array]
    seeds: tuple[int | None, ...]
    targets: tuple[int, ...]

    @classmethod
    def of(
        cls, validation: ScoreArrays, reported: ScoreArrays, similarity: dict[Metric, Array]
    ) -> Candidates:
        """Lays the validation scores out like the reported ones; a cell needs both."""
        chosen_by = np.full(reported.transfer.shape, np.nan)
        for n, seed in enumerate(reported.seeds):
            if seed in validation.seeds:
                chosen_by[:, :, n] = validation.transfer[:, :, validation.seeds.index(seed)]
        both = np.isfinite(chosen_by) & np.isfinite(reported.transfer)
        usable = np.isfinite(reported.scratch) & both.any(axis=0)
        whole = np.flatnonzero(usable.all(axis=1))
        return cls(
            np.where(both, chosen_by, np.nan), np.where(both, reported.transfer, np.nan), reported.scratch, similarity,
            reported.seeds,
            tuple(int(t) for t in (whole if whole.size else np.flatnonzero(usable.any(axis=1)))),
        )  # fmt: skip

    @property
    def sizes(self) -> range:
        """Every k from 1 to the largest number of sources of a target."""
        present = np.isfinite(self.reported).sum(axis=0)
        return range(1, int(present.max(initial=0)) + 1)

    def each(self, choose: Callable[[Places, int, int], float]) -> Array:
        """``[T, N]``: what a choice gives for each target and seed; NaN where there is no source.

        Args:
            choose: Takes the places of the sources that are there, the target's and the seed's.
        """
        result = np.full(self.scratch.shape, np.nan)
        for t, n in np.ndindex(*result.shape):
            there = np.flatnonzero(np.isfinite(self.reported[:, t, n]))
            if there.size:
                result[t, n] = choose(there, t, n)
        return result

    def ranked(self, metric: Metric, there: Places, t: int, n: int) -> Places:
        """Places of sources, most similar first; those without a key last. Ties by place."""
        similarity = self.similarity[metric][there, t, n]
        return there[np.argsort(np.where(np.isfinite(similarity), -similarity, np.inf), kind="stable")]

    def has_keys(self, metric: Metric) -> bool:
        """Whether sources can be ranked for any target."""
        return bool(np.isfinite(self.similarity[metric]).any())

    def best_of_top(self, metric: Metric, k: int, *, on_validation: bool = False) -> Array:
        """``[T, N]`` scores of the best by validation among the k most similar sources."""

        def choose(there: Places, t: int, n: int) -> float:
            best = self._best(self.ranked(metric, there, t, n)[:k], t, n)
            return float((self.chosen_by if on_validation else self.reported)[best, t, n])

        return self.each(choose)

    def best_by_validation(self, *, on_validation: bool = False) -> Array:
        """``[T, N]`` scores of the best by validation among all sources."""

        def choose(there: Places, t: int, n: int) -> float:
            return float((self.chosen_by if on_validation else self.reported)[self._best(there, t, n), t, n])

        return self.each(choose)

    def oracle(self) -> Array:
        """``[T, N]`` the highest reported score of all sources."""
        return self.each(lambda there, t, n: float(self.reported[there, t, n].max()))

    def random(self, k: int) -> Array:
        """``[T, N]`` expected score of the best by validation among k random sources; exact, by order statistics."""

        def choose(there: Places, t: int, n: int) -> float:
            order = there[np.argsort(-self.chosen_by[there, t, n], kind="stable")]
            size = min(k, len(order))
            # That the r-th best is the best drawn: it is drawn, and the other k - 1 are among the worse ones.
            chance = [
                math.comb(len(order) - 1 - r, size - 1) / math.comb(len(order), size)
                for r in range(len(order))
            ]
            return float(np.dot(chance, self.reported[order, t, n]))

        return self.each(choose)

    def row(self, method: str, metric: Metric | None, k: int | None, scores: Array) -> Row:
        """The row of Table 3 for ``[T, N]`` scores. Targets without one of them in every seed are left out."""
        targets = [t for t in self.targets if np.isfinite(scores[t]).all()] or list(self.targets)
        scratch, after = self.scratch[targets], scores[targets]
        both = np.isfinite(scratch) & np.isfinite(after)
        oracle = self.average(np.where(both, self.oracle()[targets] - scratch, np.nan))
        absolute = self.average(np.where(both, after - scratch, np.nan))
        kept = absolute.mean / oracle.mean if oracle.mean > 0 else math.nan
        relative = self.average(np.where(both, error_reduction(after, scratch), np.nan))
        return Row(
            method, metric, k, absolute, relative, self.average(np.where(both, after, np.nan)),
            kept, int(both.any(axis=1).sum()),
        )  # fmt: skip

    def _best(self, among: Places, t: int, n: int) -> int:
        return int(among[np.argmax(self.chosen_by[among, t, n])])

    def average(self, values: Array) -> Mean:
        """Over targets, then over seeds."""
        seeds = [column[np.isfinite(column)].mean() for column in values.T if np.isfinite(column).any()]
        found = Mean.of(np.array(seeds))
        return found if self.seeds != (None,) else Mean(found.mean, found.std, 0)


def ndcg(candidates: Candidates, metric: Metric | None) -> Mean:
    """How well a similarity orders the sources: normalised discounted cumulative gain over the whole ranking.

    A source's relevance for a target is its reported score above the worst source's, discounted by ``log2(rank + 1)``;
    1 is the best order. Without a metric: what a random order is expected to reach.
    """

    def choose(there: Places, t: int, n: int) -> float:
        relevance = candidates.reported[:, t, n] - candidates.reported[there, t, n].min()
        discount = 1 / np.log2(np.arange(2, len(there) + 2))
        ideal = np.sort(relevance[there])[::-1] @ discount
        if ideal == 0:
            return math.nan
        order = there if metric is None else candidates.ranked(metric, there, t, n)
        found = relevance[there].mean() * discount.sum() if metric is None else relevance[order] @ discount
        return float(found / ideal)

    return candidates.average(candidates.each(choose)[list(candidates.targets)])


def regret(candidates: Candidates, metric: Metric | None, k: int) -> Mean:
    """Percent of the best source's score that is lost by trying the k most similar ones only.

    ``100 * (best of all - best by validation of the k) / best of all``. Without a metric: k random sources.
    """
    scores = candidates.random(k) if metric is None else candidates.best_of_top(metric, k)
    oracle = candidates.oracle()
    with np.errstate(divide="ignore", invalid="ignore"):
        lost = np.where(oracle > 0, 100 * (oracle - scores) / oracle, np.nan)
    return candidates.average(lost[list(candidates.targets)])
