"""The analysis of a study's results, computed once, as plain values; `spoton study analyse` prints it.

The report draws and tabulates it, and computes nothing itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from spoton.errors import DataError
from spoton.evaluation.intervals import ROUNDING
from spoton.study.analysis.correlation import Correlation, correlate
from spoton.study.analysis.gain import Change, adjusted, chance_beyond_noise, changes, error_reduction, matrix
from spoton.study.analysis.held_out import HeldOut, Option, leave_one_target_out, metric_for_k, smallest_k
from spoton.study.analysis.replay import Replay, replays
from spoton.study.analysis.similarities import KeySimilarities, Measure, TaskSimilarities, untuned_losses
from spoton.study.analysis.source_choices import MethodResult, SourceChoices, aligned, ndcg, regret
from spoton.study.analysis.start_groups import StartGroup, start_groups
from spoton.study.results.score_arrays import Array, Mean, ScoreArrays
from spoton.study.results.study_results import MODEL_TUNING, WEIGHTED_AVERAGE, StudyResults
from spoton.transfer.similarity import SIMILARITIES


@dataclass(frozen=True)
class RankingQuality:
    """How well one similarity (None: chance) ranks sources.

    Attributes:
        metric: The similarity.
        ndcg: nDCG of the whole ranking, 1 at best.
        regret: Percent of the best source's score lost with the k most similar sources, by k.
    """

    metric: Measure | None
    ndcg: Mean
    regret: Mapping[int, Mean]

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "metric": self.metric or "random", "ndcg": self.ndcg.to_json(),
            "regret": {str(k): found.to_json() for k, found in self.regret.items()},
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Analysis:
    """The analysis of a study.

    Attributes:
        results: The measurements.
        validation: Validation scores as arrays.
        reported: Scores of the reported split as arrays.
        changes: Every pair that has a score and a run from scratch, on the reported split.
        p_adjusted: P-value of each tested change, adjusted for the number of these tests; NaN for the others.
        similarities: Similarity matrix by metric; empty without keys.
        correlations: One for each target, by metric; empty without keys.
        rows: Baseline, oracle and every method, as in Table 3.
        rankings: nDCG and regret by metric, and for a random order.
        held_out: Choices made without the target they are used for.
        choices: The sources to choose from.
        replays: What successive halving would have saved and changed, where intermediate evaluations are known.
        starts: Gains by the kind of start; empty where families are not known.
    """

    results: StudyResults
    validation: ScoreArrays
    reported: ScoreArrays
    changes: tuple[Change, ...]
    p_adjusted: tuple[float, ...]
    similarities: Mapping[Measure, TaskSimilarities]
    correlations: Mapping[Measure, tuple[Correlation, ...]]
    rows: tuple[MethodResult, ...]
    rankings: tuple[RankingQuality, ...]
    held_out: tuple[HeldOut, ...]
    choices: SourceChoices
    replays: tuple[Replay, ...] = ()
    starts: tuple[StartGroup, ...] = ()

    @property
    def metric(self) -> Measure | None:
        """The first similarity, for places that show only one; None without keys."""
        return next(iter(self.similarities), None)

    def reductions(self) -> Array:
        """Returns `[S, T]` relative error reductions on the reported split."""
        return matrix(self.reported, list(self.changes), "error_reduction")

    def change(self, source: str, target: str) -> Change | None:
        """Returns the change of a pair, if known."""
        return self._by_pair.get((source, target))

    @cached_property
    def _by_pair(self) -> dict[tuple[str, str], Change]:
        return {(one.source, one.target): one for one in self.changes}

    def row(self, method: str, metric: Measure | None = None, k: int | None = None) -> MethodResult | None:
        """Returns a row of Table 3, if it exists."""
        return next(
            (one for one in self.rows if (one.method, one.metric, one.k) == (method, metric, k)), None
        )

    def by_mean_reduction(self) -> list[tuple[str, float, float, int]]:
        """Returns source, mean and median error reduction, and number of targets; the best mean first."""
        found = []
        for source, row in zip(self.results.sources, self.reductions(), strict=True):
            there = row[np.isfinite(row)]
            if there.size:
                found.append((source, float(there.mean()), float(np.median(there)), int(there.size)))
        return sorted(found, key=lambda one: -one[1])

    def ranked_targets(self) -> list[str]:
        """Returns the targets that retrieval averages over; others lack a key, a source or a score from scratch."""
        return [self.results.targets[t] for t in self.choices.retrievable]

    def above(self, least: float) -> list[Change]:
        """Returns pairs with a larger error reduction, the largest first, as in Table 7 of SPoT."""
        return sorted(
            (one for one in self.changes if one.error_reduction > least), key=lambda one: -one.error_reduction
        )


def analyse(results: StudyResults) -> Analysis:
    """Analyses a study, which may be incomplete.

    Raises:
        DataError: There is nothing to compare yet, or keys belong to different models.
    """
    validation, reported = (
        ScoreArrays.of(scores, results.sources, results.targets)
        for scores in (results.validation, results.reported)
    )
    found = changes(reported)
    if not found:
        raise DataError(
            f"The study has {len(results.reported)} scores, but no target with both a run from scratch and one from a "
            "source prompt. Let it run until there is one."
        )
    keys = _keys(results)
    measured: dict[Measure, Array] = {measure: one.by_seed(reported) for measure, one in keys.items()}
    losses = untuned_losses(results.runs, reported)
    if np.isfinite(losses).any():
        measured["untuned_loss"] = losses
    choices = SourceChoices.of(validation, reported, measured, _losses(results))
    baseline = aligned(validation, reported, validation.scratch_or_mean)
    ranked = [measure for measure in measured if choices.has_keys(measure)]
    return Analysis(
        results, validation, reported, tuple(found),
        p_adjusted=tuple(
            adjusted(np.array([one.p_value if one.is_tested else np.nan for one in found])).tolist()
        ),
        similarities={metric: one.matrix() for metric, one in keys.items()},
        correlations={
            measure: _correlations(keys.get(measure), measured[measure], reported) for measure in ranked
        },
        rows=_rows(results, choices, ranked, reported),
        rankings=tuple(_ranking(choices, metric) for metric in (*ranked, None)),
        held_out=_held_out(results, choices, baseline, reported), choices=choices,
        replays=replays(results), starts=start_groups(results, reported),
    )  # fmt: skip


def _losses(results: StudyResults) -> dict[tuple[str, str, int], float]:
    """Returns the validation loss of each transfer's prompt, where known."""
    losses = {place: run.kept_loss for place, run in results.runs.items()}
    return {place: loss for place, loss in losses.items() if math.isfinite(loss)}


def _keys(results: StudyResults) -> dict[Measure, KeySimilarities]:
    """Returns the similarities of keys by measure; none without keys."""
    found: dict[Measure, KeySimilarities] = {}
    if results.source_keys:
        found |= {metric: KeySimilarities(results, metric) for metric in SIMILARITIES}
    if results.source_displacements and results.target_displacements:
        found["displacement"] = KeySimilarities(results, "displacement")
    return found


def _correlations(
    keys: KeySimilarities | None, measured: Array, grid: ScoreArrays
) -> tuple[Correlation, ...]:
    """Returns correlations over the points of SPoT's figure 5: transfer runs, against the mean score from scratch.

    Args:
        keys: Gives the similarity of a source prompt; None: it is taken from `measured`.
        measured: `[S, T, N]` similarities.
        grid: The reported scores.
    """
    points: dict[int, list[tuple[str, int | None, float, float]]] = {t: [] for t in range(len(grid.targets))}
    bases = [grid.cell(None, target).mean for target in grid.targets]
    for s, t in grid.pairs():
        source, target = grid.sources[s], grid.targets[t]
        reductions = error_reduction(grid.transfer[s, t], bases[t]).tolist()
        for n, (seed, y) in enumerate(zip(grid.seeds, reductions, strict=True)):
            x = keys.to_target(source, seed, target) if keys else float(measured[s, t, n])
            points[t].append((source, seed, x, y))
    return tuple(correlate(target, points[t]) for t, target in enumerate(grid.targets))


def _rows(
    results: StudyResults, choices: SourceChoices, ranked: list[Measure], grid: ScoreArrays
) -> tuple[MethodResult, ...]:
    rows = [
        choices.row("baseline", None, None, choices.scratch),
        choices.row("oracle", None, None, choices.oracle()),
        choices.row("best-by-validation", None, None, choices.best_by_validation()),
    ]
    of_other_seeds = choices.oracle_of_other_seeds()
    if np.isfinite(of_other_seeds).any():
        rows.insert(2, choices.row("oracle-of-other-seeds", None, None, of_other_seeds))
    for metric in ranked:
        rows += [
            choices.row("best-of-top-k", metric, k, choices.best_of_top(metric, k), choices.retrievable)
            for k in choices.ranked_sizes(metric)
        ]
    rows += [choices.row("random", None, k, choices.random(k), choices.retrievable) for k in choices.sizes]
    for name, (_, reported) in _extra(results, grid).items():
        row = choices.row(*name, reported)
        if row.targets:
            rows.append(row)
    return tuple(rows)


def _ranking(choices: SourceChoices, metric: Measure | None) -> RankingQuality:
    return RankingQuality(
        metric, ndcg(choices, metric), {k: regret(choices, metric, k) for k in choices.sizes}
    )


def _held_out(
    results: StudyResults, choices: SourceChoices, baseline: Array, grid: ScoreArrays
) -> tuple[HeldOut, ...]:
    averages = {
        name: found for name, found in _extra(results, grid).items() if name[0] not in (MODEL_TUNING, "") and name[2]
    }  # fmt: skip
    found = [smallest_k(choices, baseline)]
    found += [metric_for_k(choices, baseline, k) for k in choices.sizes]
    for method in dict.fromkeys(name[0] for name in averages):
        options = {name: arrays for name, arrays in averages.items() if name[0] == method}
        found.append(leave_one_target_out(choices, f"k and similarity of {method}", options, baseline))
    return tuple(one for one in found if one is not None)


def _extra(results: StudyResults, grid: ScoreArrays) -> dict[Option, tuple[Array, Array]]:
    """Returns validation and reported scores `[T, N]` of other methods, in the order of the reported grid's seeds."""
    found = {}
    for name, scores in results.extra.items():
        validation = ScoreArrays.of(scores, results.sources, results.targets)
        reported = validation
        if results.reported_split == "test":
            reported = ScoreArrays.of(results.extra_test.get(name, ()), results.sources, results.targets)
        found[method_of(name)] = (
            aligned(validation, grid, validation.scratch), aligned(reported, grid, reported.scratch)
        )  # fmt: skip
    return found


def method_of(name: str) -> Option:
    """Returns method, similarity metric and k of a name such as `weighted-average:average_tokens@3`.

    Raises:
        DataError: k is not a number, or the metric is unknown.
    """
    before, _, k = name.partition("@")
    method, _, metric = before.partition(":")
    known_metric = next((one for one in SIMILARITIES if one == metric), None)
    if (k and not k.isdecimal()) or (metric and known_metric is None):
        raise DataError(
            f"The method {name!r} cannot be read; expected NAME, NAME@k or NAME:SIMILARITY@k, such as "
            f"{WEIGHTED_AVERAGE}:{SIMILARITIES[0]}@3. Similarities: {', '.join(SIMILARITIES)}."
        )
    return method, known_metric, int(k) if k else None


def chance(analysis: Analysis) -> float:
    """Returns the share of pairs beyond noise if nothing differed, for the most frequent number of seeds."""
    sizes = [one.seeds for one in analysis.changes if one.beyond_noise is not None]
    return chance_beyond_noise(max(set(sizes), key=sizes.count)) if sizes else math.nan


def saturated(analysis: Analysis) -> list[str]:
    """Returns targets without any error from scratch, for which error reduction is undefined."""
    return [target for target in analysis.results.targets if analysis.reported.cell(None, target).mean >= 100]


def learned(results: StudyResults, task: str, scratch: Mean) -> bool | None:
    """Returns whether tuning from scratch beats majority and zero-shot by more than its deviation over seeds.

    None: not known, also if it does with one seed, or with the same score on every seed, which shows no noise instead
    of none.
    """
    floors = [found[task] for found in (results.majority, results.zero_shot) if task in found]
    if not floors or math.isnan(scratch.mean):
        return None
    excess = scratch.mean - max(floors)
    if excess <= ROUNDING:
        return False
    return excess > scratch.std if scratch.std > ROUNDING else None
