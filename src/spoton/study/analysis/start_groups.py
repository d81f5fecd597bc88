"""Does the relation between tasks help? Compares gains in score and speed by a run's kind of start.

Starts are grouped: sources of the target's own family, sources of other families, and noise. Any start from a tuned
prompt could gain for reasons other than the prompt's knowledge, such as a different scale or more training. If only
related sources gain, the knowledge is the reason.

Everything is paired: each run is compared with the run from scratch of its target and seed. A group has one value per
target and seed, the mean over its sources; intervals resample targets, and seeds within them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from spoton.evaluation.intervals import Interval, hierarchical, over_targets
from spoton.study.analysis.source_choices import aligned
from spoton.study.results.score_arrays import Array, ScoreArrays, is_pair, known
from spoton.study.results.study_results import NOISE, SCRATCH, StudyResults, TransferRun
from spoton.transfer.speed import speed

StartKind = Literal["related sources", "unrelated sources", "noise"]
DIFFERENCE = "related minus unrelated"
GROUPS: tuple[StartKind, ...] = ("related sources", "unrelated sources", "noise")


@dataclass(frozen=True)
class Effect:
    """A mean over targets of means over seeds.

    Attributes:
        mean: The mean; NaN if there are no values.
        interval: 95 % interval, by a bootstrap over targets and seeds; too narrow with few targets.
        by_target: 95 % interval by Student's t over the targets' means.
        targets: Number of targets.
        runs: Number of pairs of target and seed.
    """

    mean: float
    interval: Interval
    by_target: Interval
    targets: int
    runs: int

    @classmethod
    def of(cls, values: Array) -> Effect:
        """Returns the effect of `[T, N]` values, NaN where there is none."""
        rows = [row[np.isfinite(row)] for row in values if np.isfinite(row).any()]
        mean = float(np.mean([row.mean() for row in rows])) if rows else np.nan
        runs = sum(row.size for row in rows)
        return cls(mean, hierarchical(values), over_targets(values), len(rows), runs)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "mean": known(self.mean), "interval": self.interval.to_json(), "by_target": self.by_target.to_json(),
            "targets": self.targets, "runs": self.runs,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class StartGroup:
    """Results of a group's runs relative to tuning from scratch.

    Attributes:
        name: Name of the group, or `DIFFERENCE`.
        gain: Gain in points of the reported score.
        area: Mean height of the learning curve above the one from scratch, on the validation split.
        arrived: Share of runs that reach the highest validation score of tuning from scratch.
        steps: Steps until then, as a share of those from scratch until that score; only over runs that reach it.
        values: What these effects are means of: `[T, N]` by their names.
    """

    name: str
    gain: Effect
    area: Effect
    arrived: Effect
    steps: Effect
    values: Mapping[str, Array]

    @classmethod
    def of(cls, name: str, values: Mapping[str, Array]) -> StartGroup:
        """Returns the group of `[T, N]` values, NaN where there is none."""
        return cls(name, **{what: Effect.of(array) for what, array in values.items()}, values=values)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "name": self.name, "gain": self.gain.to_json(), "area": self.area.to_json(),
            "arrived": self.arrived.to_json(), "steps": self.steps.to_json(),
        }  # fmt: skip


def start_groups(results: StudyResults, grid: ScoreArrays) -> tuple[StartGroup, ...]:
    """Returns the study's groups, and the difference of related and unrelated sources on targets with both.

    Sources that had not learned their own task are left out.

    Args:
        results: The measurements.
        grid: The reported scores.
    """
    values = {group: _values(results, grid, group) for group in GROUPS}
    found = [StartGroup.of(group, one) for group, one in values.items() if np.isfinite(one["gain"]).any()]
    related, unrelated = values["related sources"], values["unrelated sources"]
    difference = {name: related[name] - unrelated[name] for name in related}
    if np.isfinite(difference["gain"]).any():
        found.append(StartGroup.of(DIFFERENCE, difference))
    return tuple(found)


def _values(results: StudyResults, grid: ScoreArrays, group: StartKind) -> dict[str, Array]:
    """Returns `gain`, `area`, `arrived` and `steps`, each `[T, N]` and the mean over a group's sources."""
    shape = (len(grid.targets), len(grid.seeds))
    found = {name: np.full(shape, np.nan) for name in ("gain", "area", "arrived", "steps")}
    scores = _noise(results, grid) if group == "noise" else None
    for t, target in enumerate(grid.targets):
        sources = [] if group == "noise" else members(results, group, target)
        for n, seed in enumerate(grid.seeds):
            after = [grid.transfer[grid.row[s], t, n] for s in sources] if scores is None else [scores[t, n]]
            found["gain"][t, n] = _mean([score - grid.scratch[t, n] for score in after])
            runs = [results.runs.get((s, target, seed or 0)) for s in sources]
            if group == "noise":
                runs = [results.other_runs.get((NOISE, target, seed or 0))]
            for name, value in _speeds(results.other_runs.get((SCRATCH, target, seed or 0)), runs).items():
                found[name][t, n] = value
    return found


def members(results: StudyResults, group: StartKind, target: str) -> list[str]:
    """Returns the sources of a group for a target; none if the target's family is unknown."""
    family = results.families.get(target)
    if not family or group == "noise":
        return []
    return [
        source
        for source in results.sources
        if is_pair(source, target)
        and results.families.get(source)
        and (results.families[source] == family) == (group == "related sources")
        and results.learned_sources.get(source) is not False
    ]


def _noise(results: StudyResults, grid: ScoreArrays) -> Array:
    """Returns `[T, N]` reported scores of runs from noise."""
    scores = ScoreArrays.of(results.reported_extra.get(NOISE, ()), grid.sources, grid.targets)
    return aligned(scores, grid, scores.scratch)


def _speeds(scratch: TransferRun | None, runs: Sequence[TransferRun | None]) -> dict[str, float]:
    """Returns means over the runs of one target and seed whose evaluations are known."""
    found = [
        one
        for run in runs
        if scratch is not None and run is not None and (one := speed([scratch.looks], [run.looks], [0]))
    ]
    arrivals = [one for one in found if one.transfer_steps is not None and one.scratch_steps > 0]
    return {
        "area": _mean([one.area.mean for one in found]),
        "arrived": _mean([float(one.reached) for one in found]),
        "steps": _mean(
            [one.transfer_steps.mean / one.scratch_steps for one in arrivals if one.transfer_steps]
        ),
    }


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else np.nan
