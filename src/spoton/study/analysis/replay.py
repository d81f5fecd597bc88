"""Replays successive halving on a study that ran without it: applies its rungs to the recorded evaluations.

Nothing is recomputed: a prompt's run stays the same, only shorter. So the records give which prompts would have been
dropped, how many steps that saves and whose test score would have been reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spoton.study.analysis.source_choices import validation_order
from spoton.study.results.score_arrays import Mean, known
from spoton.study.results.study_results import StudyResults, TransferRun
from spoton.tuning.halving import Halving

_KEEP = 0.5  # successive halving proper

_FRACTIONS = ((1 / 2,), (1 / 4,), (1 / 4, 1 / 2), (1 / 8, 1 / 4, 1 / 2))
"""Rungs to replay, as shares of the steps."""


@dataclass(frozen=True)
class Replay:
    """A replayed halving.

    Attributes:
        halving: Its rungs and share.
        groups: Number of targets and seeds with at least two sources whose evaluations are known.
        dropped: Number of transfer cells that would have been dropped.
        cells: Number of transfer cells in these groups.
        saved: Share of their steps that would have been saved.
        same: Number of groups in which validation would have chosen the same source.
        change: Change of the reported score, in points, from choosing by validation among the remaining sources instead
            of all; averaged over targets, then over seeds.
    """

    halving: Halving
    groups: int
    dropped: int
    cells: int
    saved: float
    same: int
    change: Mean

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "rungs": self.halving.rungs, "keep": self.halving.keep, "groups": self.groups, "cells": self.cells,
            "dropped": self.dropped, "steps_saved": known(self.saved), "same_choice": self.same,
            "change": self.change.to_json(),
        }  # fmt: skip


def replays(results: StudyResults) -> tuple[Replay, ...]:
    """Returns several halvings replayed on the transfer cells of a study that ran without halving."""
    groups = _groups(results)
    found: dict[tuple[int, ...], Replay] = {}
    for fractions in _FRACTIONS:
        rungs = sorted({_rung(list(groups.values()), fraction) for fraction in fractions} - {0})
        if len(rungs) == len(fractions) and tuple(rungs) not in found:
            found[tuple(rungs)] = replay(results, Halving(rungs=rungs, keep=_KEEP))
    return tuple(found.values())


def replay(results: StudyResults, halving: Halving) -> Replay:
    """Replays one halving."""
    dropped = cells = same = 0
    taken = everything = 0.0
    changes: dict[int, list[float]] = {}
    groups = _groups(results)
    scores, chosen_by = (
        {(one.source, one.target, one.seed): one.score for one in split}
        for split in (results.reported, results.validation)
    )
    for (target, seed), runs in groups.items():
        ended, _ = halving.decide([run.looks for run in runs.values()], [True] * len(runs))
        ended = [
            None if rung is None or rung >= run.steps else rung
            for rung, run in zip(ended, runs.values(), strict=True)
        ]
        sources = list(runs)
        left = [source for source, rung in zip(sources, ended, strict=True) if rung is None]
        validation = {source: chosen_by.get((source, target, seed), -math.inf) for source in sources}
        before, after = _best(runs, validation, sources), _best(runs, validation, left)
        cells, dropped, same = cells + len(runs), dropped + len(runs) - len(left), same + (before == after)
        everything += sum(run.steps for run in runs.values())
        taken += sum(
            run.steps if rung is None else rung for rung, run in zip(ended, runs.values(), strict=True)
        )
        left_score, all_score = (
            float(np.mean([scores.get((source, target, seed), math.nan) for source in chosen]))
            for chosen in (after, before)
        )
        changes.setdefault(seed, []).append(left_score - all_score)
    means = [
        np.mean([one for one in found if math.isfinite(one)] or [math.nan]) for found in changes.values()
    ]
    saved = 1 - taken / everything if everything else math.nan
    return Replay(halving, len(groups), dropped, cells, saved, same, Mean.of(np.array(means, dtype=float)))


def _groups(results: StudyResults) -> dict[tuple[str, int], dict[str, TransferRun]]:
    """Returns runs by source for each target and seed with more than one; groups with dropped runs are unusable."""
    found: dict[tuple[str, int], dict[str, TransferRun]] = {}
    for (source, target, seed), run in results.runs.items():
        found.setdefault((target, seed), {})[source] = run
    return {
        place: runs
        for place, runs in found.items()
        if len(runs) > 1 and all(run.looks and run.dropped is None for run in runs.values())
    }


def _rung(groups: Sequence[Mapping[str, TransferRun]], fraction: float) -> int:
    """Returns the common evaluation step nearest to a share of all steps, before the last one; 0: none."""
    runs = [run for group in groups for run in group.values()]
    if not runs:
        return 0
    most = max(run.steps for run in runs)
    shared = set.intersection(
        *({int(look["step"]) for look in run.looks} for run in runs if run.steps == most)
    )
    steps = [step for step in shared if 0 < step < most]
    return min(steps, key=lambda step: (abs(step - fraction * most), step), default=0)


def _best(
    runs: Mapping[str, TransferRun], validation: Mapping[str, float], sources: Sequence[str]
) -> set[str]:
    """Returns the sources that validation chooses, by score, then by loss; all ties, as in `SourceChoices`."""
    orders = {source: validation_order(validation[source], runs[source].kept_loss) for source in sources}
    return {source for source in sources if orders[source] == max(orders.values())}
