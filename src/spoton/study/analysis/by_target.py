"""Gains of each way to choose a start, target by target: for whom does transfer help?

Every gain is paired with tuning from scratch of the same target and seed. A mean over all targets hides two things, so
means over the targets that tuning from scratch had learned stand next to it: where scratch learned nothing, any other
start can seem to help.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spoton.study.analysis.analyse import Analysis, learned
from spoton.study.analysis.start_groups import GROUPS, Effect
from spoton.study.results.score_arrays import Array, Mean

NEAREST = "nearest key"
TOP_3 = "3 nearest, by validation"
BY_VALIDATION = "all, by validation"
ORACLE = "oracle"
OTHER_SEEDS = "oracle of other seeds"


@dataclass(frozen=True)
class Ways:
    """Gains of every way to choose a start.

    Attributes:
        targets: Names of the T targets.
        scratch: Reported score of tuning from scratch, by target.
        learned: Whether tuning from scratch had learned the target; None: not known.
        gains: Gain in points over the seeds for each target, by way.
        overall: Mean over all targets, by way.
        where_learned: Mean over the targets that tuning from scratch had learned, by way.
        arrived: Share of runs from related sources that reach the highest validation score from scratch, by target.
        steps: Steps until then, as a share of those from scratch until that score, by target.
    """

    targets: tuple[str, ...]
    scratch: tuple[Mean, ...]
    learned: tuple[bool | None, ...]
    gains: Mapping[str, tuple[Mean, ...]]
    overall: Mapping[str, Effect]
    where_learned: Mapping[str, Effect]
    arrived: tuple[Mean, ...]
    steps: tuple[Mean, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "targets": [
                {
                    "target": target, "from_scratch": self.scratch[t].to_json(), "learned": self.learned[t],
                    "gains": {name: gains[t].to_json() for name, gains in self.gains.items()},
                    "related_arrived": self.arrived[t].to_json(), "related_steps": self.steps[t].to_json(),
                }
                for t, target in enumerate(self.targets)
            ],
            "mean": {name: effect.to_json() for name, effect in self.overall.items()},
            "mean_where_learned": {name: effect.to_json() for name, effect in self.where_learned.items()},
        }  # fmt: skip


def ways_by_target(analysis: Analysis) -> Ways:
    """Returns the gains of every way that the study has measured."""
    results, grid, choices = analysis.results, analysis.reported, analysis.choices
    found: dict[str, Array] = {}
    if analysis.metric is not None:
        found[NEAREST] = choices.best_of_top(analysis.metric, 1) - choices.scratch
        found[TOP_3] = choices.best_of_top(analysis.metric, 3) - choices.scratch
    found[BY_VALIDATION] = choices.best_by_validation() - choices.scratch
    groups = {group.name: group.values for group in analysis.starts if group.name in GROUPS}
    found |= {name: values["gain"] for name, values in groups.items()}
    found[ORACLE] = choices.oracle() - choices.scratch
    found[OTHER_SEEDS] = choices.oracle_of_other_seeds() - choices.scratch
    found = {name: values for name, values in found.items() if np.isfinite(values).any()}
    scratch = tuple(grid.cell(None, target) for target in grid.targets)
    knows = tuple(learned(results, target, one) for target, one in zip(grid.targets, scratch, strict=True))
    where = np.array([one is True for one in knows], dtype=bool)
    nothing = np.full(choices.scratch.shape, np.nan)
    related = groups.get("related sources", {"arrived": nothing, "steps": nothing})
    return Ways(
        grid.targets, scratch, knows,
        gains={name: _means(values) for name, values in found.items()},
        overall={name: Effect.of(values) for name, values in found.items()},
        where_learned={name: Effect.of(values[where]) for name, values in found.items()} if where.any() else {},
        arrived=_means(related["arrived"]), steps=_means(related["steps"]),
    )  # fmt: skip


def _means(values: Array) -> tuple[Mean, ...]:
    """Returns the mean over seeds of `[T, N]` values, by target."""
    return tuple(Mean.of(row) for row in values)
