"""How much of the oracle's gain does retrieval keep? Computes Table 3 of SPoT for any study.

Everything is chosen by validation and reported on the reported split (test, where there is one). Only the oracle
chooses by the reported scores, so nothing can beat it. The highest of many noisy scores is too high, so the same choice
is also made on the other seeds: the difference is what the oracle owes to the noise of single runs.

Each seed is a separate study: its sources are ranked by the similarity of their keys to the target's key of that seed,
and changes are against its own run from scratch, or against the mean from scratch where a seed has none. Means and
deviations are over seeds, of averages over targets.

Validation loss, where known, breaks ties in the validation score. Remaining ties are averaged, so that neither the
order of names nor similarity decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import comb
from sklearn.metrics import ndcg_score

from spoton.study.analysis.gain import error_reduction
from spoton.study.analysis.similarities import Measure
from spoton.study.results.score_arrays import Array, Mean, Places, ScoreArrays, known


@dataclass(frozen=True)
class MethodResult:
    """The result of one way of using sources: a row of Table 3.

    Attributes:
        method: `baseline`, `best-of-top-k`, `random`, `oracle`, `best-by-validation`, or another name.
        metric: The similarity for ranking, if any.
        k: Number of sources tried or combined, if that matters.
        absolute: Change of the score in points, averaged over targets.
        relative: Relative error reduction in percent, averaged over targets.
        average: The score itself, averaged over targets.
        kept: Share of the oracle's absolute change on the same targets; NaN where that is not positive.
        targets: Number of targets in the averages.
    """

    method: str
    metric: Measure | None
    k: int | None
    absolute: Mean
    relative: Mean
    average: Mean
    kept: float
    targets: int

    @property
    def within_noise(self) -> bool | None:
        """Whether the change is at most its deviation over seeds; None: unknown (fewer than two seeds)."""
        return None if math.isnan(self.absolute.std) else abs(self.absolute.mean) <= self.absolute.std

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "method": self.method, "metric": self.metric, "k": self.k, "absolute": self.absolute.to_json(),
            "relative": self.relative.to_json(), "average": self.average.to_json(), "kept": known(self.kept),
            "targets": self.targets, "within_noise": self.within_noise,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class SourceChoices:
    """The sources to choose from, and the results of choosing.

    Attributes:
        chosen_by: `[S, T, N]` validation scores.
        reported: `[S, T, N]` scores of the reported split.
        scratch: `[T, N]` reported scores from scratch, or their mean where a seed has none.
        similarity: `[S, T, N]` by metric; NaN where a key is missing.
        seeds: N seeds; (None,) if there are only means over seeds.
        targets: Indices of targets to average over: those with a score from scratch and a source in every seed; without
            such a target, those with both in some seed.
        loss: `[S, T, N]` validation losses, which break ties; NaN where unknown, and for all sources of a tie if
            one's is unknown.
    """

    chosen_by: Array
    reported: Array
    scratch: Array
    similarity: Mapping[Measure, Array]
    seeds: tuple[int | None, ...]
    targets: tuple[int, ...]
    loss: Array
    _curves: dict[Measure, tuple[Array, Array]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        validation: ScoreArrays,
        reported: ScoreArrays,
        similarity: Mapping[Measure, Array],
        losses: Mapping[tuple[str, str, int], float] | None = None,
    ) -> SourceChoices:
        """Aligns the validation scores with the reported ones; a cell needs both.

        Args:
            validation: Scores by which everything is chosen.
            reported: Reported scores.
            similarity: `[S, T, N]` by metric, aligned with the reported scores.
            losses: Validation loss by source, target and seed.
        """
        chosen_by = aligned(validation, reported, validation.transfer)
        both = np.isfinite(chosen_by) & np.isfinite(reported.transfer)
        chosen_by = np.where(both, chosen_by, np.nan)
        usable = np.isfinite(reported.scratch_or_mean) & both.any(axis=0)
        tried: NDArray[np.bool_] = np.asarray(
            both.any(axis=(0, 1))
        )  # a seed with only runs from scratch is not a study of transfer
        whole = np.flatnonzero(usable[:, tried].all(axis=1)) if tried.any() else np.array([], dtype=np.intp)
        return cls(
            chosen_by, np.where(both, reported.transfer, np.nan),
            np.where(tried[None, :], reported.scratch_or_mean, np.nan), similarity, reported.seeds,
            tuple(int(t) for t in (whole if whole.size else np.flatnonzero(usable.any(axis=1)))),
            _known_in_ties(chosen_by, reported.laid_out(losses or {})),
        )  # fmt: skip

    @property
    def sizes(self) -> range:
        """Every k from 1 to the largest number of sources of a target."""
        present = np.isfinite(self.reported).sum(axis=0)
        return range(1, int(present.max(initial=0)) + 1)

    def ranked_sizes(self, metric: Measure) -> range:
        """Returns every k from 1 to the largest number of a target's sources that can be ranked."""
        there = np.isfinite(self.reported) & np.isfinite(self.similarity[metric])
        return range(1, int(there.sum(axis=0).max(initial=0)) + 1)

    @cached_property
    def retrievable(self) -> tuple[int, ...]:
        """Indices of the targets in every retrieval figure: those whose sources can be ranked."""
        ranked = [np.asarray(np.isfinite(values).any(axis=(0, 2))) for values in self.similarity.values()]
        if not ranked:
            return self.targets
        return tuple(t for t in self.targets if all(one[t] for one in ranked))

    def each(self, choose: Callable[[Places, int, int], float]) -> Array:
        """Returns `[T, N]` results of a choice for each target and seed; NaN where there is no source.

        Args:
            choose: Takes the indices of the available sources, of the target and of the seed.
        """
        result = np.full(self.scratch.shape, np.nan)
        for t, n in np.ndindex(*result.shape):
            there = np.flatnonzero(np.isfinite(self.reported[:, t, n]))
            if there.size:
                result[t, n] = choose(there, t, n)
        return result

    def ranked(self, metric: Measure, there: Places, t: int, n: int) -> Places:
        """Returns the indices of sources with a key, most similar first; none if the target has no key."""
        similarity = self.similarity[metric][there, t, n]
        return there[np.argsort(-similarity, kind="stable")][: int(np.isfinite(similarity).sum())]

    def has_keys(self, metric: Measure) -> bool:
        """Returns whether sources can be ranked for any target."""
        return bool(np.isfinite(self.similarity[metric]).any())

    def best_of_top(self, metric: Measure, k: int, *, on_validation: bool = False) -> Array:
        """Returns `[T, N]` scores of the best of the k most similar sources by validation; NaN where none has a key."""
        curves = self._best_of_every_top(metric)[0 if on_validation else 1]
        return curves[min(k, len(curves)) - 1] if len(curves) else np.full(self.scratch.shape, np.nan)

    def _best_of_every_top(self, metric: Measure) -> tuple[Array, Array]:
        """Returns `[K, T, N]` validation and reported scores for every k, in one pass over each target's sources."""
        if metric not in self._curves:
            shape = (len(self.sizes), *self.scratch.shape)
            validation, reported = np.full(shape, np.nan), np.full(shape, np.nan)
            for t, n in np.ndindex(*self.scratch.shape):
                order = self.ranked(metric, np.flatnonzero(np.isfinite(self.reported[:, t, n])), t, n)
                best: list[int] = []
                for k, place in enumerate(order.tolist()):
                    if not best or self._order(place, t, n) > self._order(best[0], t, n):
                        best = [place]
                    elif self._order(place, t, n) == self._order(best[0], t, n):
                        best.append(place)
                    validation[k, t, n] = self.chosen_by[best[0], t, n]
                    reported[k, t, n] = self.reported[best, t, n].mean()
                if order.size:  # a larger k takes all sources
                    validation[order.size :, t, n] = validation[order.size - 1, t, n]
                    reported[order.size :, t, n] = reported[order.size - 1, t, n]
            self._curves[metric] = validation, reported
        return self._curves[metric]

    def best_by_validation(self) -> Array:
        """Returns `[T, N]` scores of the best source by validation."""
        return self.each(lambda there, t, n: float(self.reported[self.best(there, t, n), t, n].mean()))

    def oracle(self) -> Array:
        """Returns `[T, N]` the highest reported score of all sources."""
        return self.each(lambda there, t, n: float(self.reported[there, t, n].max()))

    def oracle_of_other_seeds(self) -> Array:
        """Returns `[T, N]` the score of the source whose mean reported score over the other seeds is highest.

        NaN with fewer than two seeds. The rows are those of the oracle, so the noise of their choice is still in it.
        """

        def choose(there: Places, t: int, n: int) -> float:
            others = np.delete(self.reported[there, t], n, axis=1)
            tried = np.isfinite(others).any(axis=1)
            if not tried.any():
                return math.nan
            means = np.nanmean(others[tried], axis=1)
            return float(self.reported[there[tried][means == means.max()], t, n].mean())

        return self.each(choose)

    def random(self, k: int) -> Array:
        """Returns `[T, N]` expected scores of the best of k random sources; exact, by order statistics."""
        curve: Array = self._random_curves[min(k, len(self.sizes)) - 1]
        return curve

    @cached_property
    def _random_curves(self) -> Array:
        """`[K, T, N]` results of `random` for every k."""
        result = np.full((len(self.sizes), *self.scratch.shape), np.nan)
        for t, n in np.ndindex(*self.scratch.shape):
            groups: dict[tuple[float, float], list[float]] = {}  # sources tied by validation
            for place in np.flatnonzero(np.isfinite(self.reported[:, t, n])).tolist():
                groups.setdefault(self._order(place, t, n), []).append(float(self.reported[place, t, n]))
            if groups:
                best_first = [np.array(groups[order]) for order in sorted(groups, reverse=True)]
                there = sum(group.size for group in best_first)
                left = there - np.cumsum([0, *(group.size for group in best_first)])
                k = np.minimum(np.arange(1, len(self.sizes) + 1), there)[:, None]
                # P(all drawn sources are among the worst ones); a difference is P(a group has the best one drawn).
                among_worst = comb(left[None], k) / comb(there, k)
                result[:, t, n] = -np.diff(among_worst, axis=1) @ [group.mean() for group in best_first]
        return result

    def row(
        self,
        method: str,
        metric: Measure | None,
        k: int | None,
        scores: Array,
        among: tuple[int, ...] | None = None,
    ) -> MethodResult:
        """Returns the row of Table 3 for `[T, N]` scores.

        Args:
            method: Name of the method.
            metric: The similarity, if any.
            k: Number of sources used, if that matters.
            scores: The method's scores.
            among: Indices of targets to average over; None: all usable ones. Targets that lack a score in a seed where
                others have one are left out.
        """
        usable = self.targets if among is None else among
        seeds = np.isfinite(self.scratch[list(usable)]).any(axis=0)
        targets = [t for t in usable if np.isfinite(scores[t][seeds]).all()] or list(usable)
        scratch, after = self.scratch[targets], scores[targets]
        both = np.isfinite(scratch) & np.isfinite(after)
        oracle = self.average(np.where(both, self._oracle[targets] - scratch, np.nan))
        absolute = self.average(np.where(both, after - scratch, np.nan))
        kept = absolute.mean / oracle.mean if oracle.mean > 0 else math.nan
        relative = self.average(np.where(both, error_reduction(after, scratch), np.nan))
        return MethodResult(
            method, metric, k, absolute, relative, self.average(np.where(both, after, np.nan)),
            kept, int(both.any(axis=1).sum()),
        )  # fmt: skip

    @cached_property
    def _oracle(self) -> Array:
        return self.oracle()

    def best(self, among: Places, t: int, n: int) -> Places:
        """Returns the best by validation, then by validation loss; several on a tie."""
        orders = [self._order(place, t, n) for place in among.tolist()]
        return among[[order == max(orders) for order in orders]]

    def _order(self, place: int, t: int, n: int) -> tuple[float, float]:
        return validation_order(float(self.chosen_by[place, t, n]), float(self.loss[place, t, n]))

    def average(self, values: Array) -> Mean:
        """Averages over targets, then over seeds."""
        seeds = [column[np.isfinite(column)].mean() for column in values.T if np.isfinite(column).any()]
        found = Mean.of(np.array(seeds))
        return found if self.seeds != (None,) else Mean(found.mean, found.std, 0)


def validation_order(score: float, loss: float) -> tuple[float, float]:
    """Returns what validation chooses by, larger is better: score, then loss. An unknown loss (NaN) is the worst."""
    return score, -math.inf if math.isnan(loss) else -loss


def aligned(grid: ScoreArrays, like: ScoreArrays, values: Array) -> Array:
    """Returns `[..., N]` of one grid in the order of another's seeds; NaN for seeds that it lacks."""
    result = np.full((*values.shape[:-1], len(like.seeds)), np.nan)
    for n, seed in enumerate(like.seeds):
        if seed in grid.seeds:
            result[..., n] = values[..., grid.seeds.index(seed)]
    return result


def _known_in_ties(scores: Array, loss: Array) -> Array:
    """Returns losses without those of ties in which a source's loss is unknown, so that this does not decide them."""
    result = loss.copy()
    for t, n in np.ndindex(*scores.shape[1:]):
        column = scores[:, t, n]
        for score in set(column[np.isfinite(column) & np.isnan(loss[:, t, n])].tolist()):
            result[column == score, t, n] = np.nan
    return result


def ndcg(choices: SourceChoices, metric: Measure | None) -> Mean:
    """Returns the normalised discounted cumulative gain of a similarity's whole ranking of sources.

    A source's relevance for a target is its reported score above the worst source's, discounted by `log2(rank + 1)`;
    1 is the best order. Only sources with a key are ranked. Without a metric, returns the expected value of a random
    order, which sources of equal similarity also get.
    """

    def choose(there: Places, t: int, n: int) -> float:
        order = there if metric is None else choices.ranked(metric, there, t, n)
        if order.size < 2:  # nothing to rank
            return math.nan
        relevance = choices.reported[order, t, n] - choices.reported[order, t, n].min()
        if not relevance.any():
            return math.nan
        nearness = np.zeros(order.size) if metric is None else choices.similarity[metric][order, t, n]
        return float(ndcg_score(relevance[None], nearness[None]))

    return choices.average(choices.each(choose)[list(choices.retrievable)])


def regret(choices: SourceChoices, metric: Measure | None, k: int) -> Mean:
    """Returns the percent of the best source's score lost by trying only the k most similar ones.

    `100 * (best of all - best by validation of the k) / best of all`. Without a metric: k random sources.
    """
    scores = choices.random(k) if metric is None else choices.best_of_top(metric, k)
    oracle = choices.oracle()
    with np.errstate(divide="ignore", invalid="ignore"):
        lost = np.where(oracle > 0, 100 * (oracle - scores) / oracle, np.nan)
    return choices.average(lost[list(choices.retrievable)])
