"""Were k and the similarity chosen on the reported targets? Checks by leaving one target out.

A study that reports its best k and metric has used every target to find them. Here each target gets the k and metric
that the *other* targets choose by validation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from spoton.study.analysis.similarities import Measure
from spoton.study.analysis.source_choices import MethodResult, SourceChoices
from spoton.study.results.score_arrays import Array, known

# SPoT, section 3.4: k = 9 of 48 kept 80 % of the oracle's gain.
KEEP = 0.8
Option: TypeAlias = tuple[str, Measure | None, int | None]
"""Method, metric, k."""


@dataclass(frozen=True)
class HeldOut:
    """A choice made without the target it is used for.

    Attributes:
        question: What is chosen.
        chosen: Number of targets that each option was chosen for.
        honest: The result where every target's option was chosen on the others, by validation.
        picked: The result of the single option with the best reported scores on all targets.
        picked_option: That option.
    """

    question: str
    chosen: Mapping[str, int]
    honest: MethodResult
    picked: MethodResult
    picked_option: str

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "question": self.question, "chosen": dict(self.chosen), "honest": self.honest.to_json(),
            "picked_on_the_answer": self.picked.to_json(), "picked_option": self.picked_option,
            "difference": known(self.picked.absolute.mean - self.honest.absolute.mean),
        }  # fmt: skip


def metric_for_k(choices: SourceChoices, baseline: Array, k: int) -> HeldOut | None:
    """Chooses the similarity for best-of-top-k on the other targets; None with fewer than two targets or metrics.

    Args:
        choices: The study's choices.
        baseline: `[T, N]` validation scores from scratch.
        k: Number of sources to try.
    """
    return leave_one_target_out(choices, f"similarity for k = {k}", _best_of_top(choices, [k]), baseline)


def smallest_k(choices: SourceChoices, baseline: Array) -> HeldOut | None:
    """Chooses, on the other targets, the smallest k and its similarity that keep `KEEP` of the largest k's gain."""
    question = f"smallest k, and its similarity, that keeps {KEEP:.0%} of the gain of trying all"
    options = _best_of_top(choices, choices.sizes)
    return leave_one_target_out(choices, question, options, baseline, frugal=True)


def leave_one_target_out(
    choices: SourceChoices,
    question: str,
    options: Mapping[Option, tuple[Array, Array]],
    baseline: Array,
    *,
    frugal: bool = False,
) -> HeldOut | None:
    """Chooses an option for each target by the validation scores of the others.

    Args:
        choices: The study's choices.
        question: What is chosen.
        options: `[T, N]` validation and reported scores of every option.
        baseline: `[T, N]` validation scores from scratch.
        frugal: Whether to choose the smallest k that keeps `KEEP` of the largest k's gain, instead of the largest gain.

    Returns:
        The choice; None if there are fewer than two targets or options.
    """
    targets = choices.retrievable
    if len(targets) < 2 or len(options) < 2:
        return None
    choose = _smallest if frugal else _largest
    places = list(targets)
    by_validation = {name: _changes(scores[0], baseline, places) for name, scores in options.items()}
    by_reported = {name: _changes(scores[1], choices.scratch, places) for name, scores in options.items()}
    whole = {name: each.sum(axis=0) for name, each in by_validation.items()}
    result = np.full(choices.scratch.shape, np.nan)
    chosen: Counter[str] = Counter()
    for i, held in enumerate(targets):
        option = choose({name: _mean(whole[name] - each[i]) for name, each in by_validation.items()})
        result[held] = options[option][1][held]
        chosen[_name(option)] += 1
    best = choose({name: _mean(each.sum(axis=0)) for name, each in by_reported.items()})
    return HeldOut(
        question, dict(chosen.most_common()),
        honest=choices.row("chosen on the other targets", None, None, result, targets),
        picked=choices.row("picked on the answer", best[1], best[2], options[best][1], targets),
        picked_option=_name(best),
    )  # fmt: skip


def _best_of_top(choices: SourceChoices, sizes: Iterable[int]) -> dict[Option, tuple[Array, Array]]:
    metrics = [metric for metric in choices.similarity if choices.has_keys(metric)]
    return {
        ("best-of-top-k", metric, k): (
            choices.best_of_top(metric, k, on_validation=True),
            choices.best_of_top(metric, k),
        )
        for k in sizes
        for metric in metrics
    }


def _changes(scores: Array, baseline: Array, targets: list[int]) -> Array:
    """Returns `[T, 2]` sum and count of each target's changes, so that leaving one out is a subtraction."""
    change = (scores - baseline)[targets]
    return np.stack([np.nansum(change, axis=1), np.isfinite(change).sum(axis=1)], axis=1)


def _mean(sum_and_number: Array) -> float:
    """Returns the mean change; minus infinity where nothing is known."""
    total, number = sum_and_number.tolist()
    return total / number if number else -np.inf


def _largest(gains: Mapping[Option, float]) -> Option:
    return max(gains, key=lambda option: gains[option])


def _smallest(gains: Mapping[Option, float]) -> Option:
    """Returns the option with the smallest k that has enough gain, with the better similarity on a tie."""
    everything = max(gains, key=lambda option: (option[2] or 0, gains[option]))
    enough = [option for option in gains if gains[option] >= KEEP * gains[everything]] or [everything]
    return min(enough, key=lambda option: (option[2] or 0, -gains[option]))


def _name(option: Option) -> str:
    method, metric, k = option
    return method + (f", {metric}" if metric else "") + (f", k = {k}" if k else "")
