"""Were k and the similarity picked on the answer? Leave one target out and see.

A study that reports its best k and metric has looked at every target to find them. Here each target gets the k and
metric that the *other* targets would have chosen, by validation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from spoton.study.analysis.retrieval_evaluation import Candidates, Row
from spoton.study.results.scores import Array
from spoton.transfer.similarity import Metric

# SPoT, section 3.4: k = 9 of 48 kept 80 % of the oracle's gain.
KEEP = 0.8
Option: TypeAlias = tuple[str, Metric | None, int | None]
"""Method, metric, k."""


@dataclass(frozen=True)
class HeldOut:
    """A choice made without the target it is used for.

    Attributes:
        question: What was chosen.
        chosen: How many targets each option was chosen for.
        honest: The result where every target's option was chosen on the others, by validation.
        picked: The result of the one option that looks best on all targets, by what is reported.
        picked_option: That option.
    """

    question: str
    chosen: Mapping[str, int]
    honest: Row
    picked: Row
    picked_option: str

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "question": self.question, "chosen": dict(self.chosen), "honest": self.honest.to_json(),
            "picked_on_the_answer": self.picked.to_json(), "picked_option": self.picked_option,
            "difference": round(self.picked.absolute.mean - self.honest.absolute.mean, 6),
        }  # fmt: skip


def metric_for_k(candidates: Candidates, baseline: Array, k: int) -> HeldOut | None:
    """The similarity for best-of-top-k, chosen on the other targets; None with fewer than two targets or metrics.

    Args:
        candidates: The study.
        baseline: ``[T, N]`` validation scores from scratch.
        k: How many sources are tried.
    """
    return leave_one_target_out(
        candidates, f"similarity for k = {k}", _best_of_top(candidates, [k]), baseline
    )


def smallest_k(candidates: Candidates, baseline: Array) -> HeldOut | None:
    """The smallest k, with its similarity, that keeps `KEEP` of the largest k's gain; chosen on the other targets."""
    question = f"smallest k, and its similarity, that keeps {KEEP:.0%} of the gain of trying all"
    options = _best_of_top(candidates, candidates.sizes)
    return leave_one_target_out(candidates, question, options, baseline, frugal=True)


def leave_one_target_out(
    candidates: Candidates,
    question: str,
    options: Mapping[Option, tuple[Array, Array]],
    baseline: Array,
    *,
    frugal: bool = False,
) -> HeldOut | None:
    """Chooses one of several options for each target by the validation scores of the others.

    Args:
        candidates: The study.
        question: What is chosen.
        options: ``[T, N]`` validation and reported scores of every option.
        baseline: ``[T, N]`` validation scores from scratch.
        frugal: Choose the smallest k that keeps `KEEP` of the gain of the largest k, instead of the largest gain.

    Returns:
        None if there are fewer than two targets or options.
    """
    targets = candidates.targets
    if len(targets) < 2 or len(options) < 2:
        return None
    choose = _smallest if frugal else _largest
    scores = np.full(candidates.scratch.shape, np.nan)
    chosen: Counter[str] = Counter()
    for held in targets:
        others = [t for t in targets if t != held]
        option = choose({name: _gain(found[0], baseline, others) for name, found in options.items()})
        scores[held] = options[option][1][held]
        chosen[_name(option)] += 1
    best = choose(
        {name: _gain(found[1], candidates.scratch, list(targets)) for name, found in options.items()}
    )
    return HeldOut(
        question, dict(chosen.most_common()),
        honest=candidates.row("chosen on the other targets", None, None, scores),
        picked=candidates.row("picked on the answer", best[1], best[2], options[best][1]),
        picked_option=_name(best),
    )  # fmt: skip


def _best_of_top(candidates: Candidates, sizes: Iterable[int]) -> dict[Option, tuple[Array, Array]]:
    metrics = [metric for metric in candidates.similarity if candidates.has_keys(metric)]
    return {
        ("best-of-top-k", metric, k): (
            candidates.best_of_top(metric, k, on_validation=True),
            candidates.best_of_top(metric, k),
        )
        for k in sizes
        for metric in metrics
    }


def _gain(scores: Array, baseline: Array, targets: list[int]) -> float:
    """Mean change over targets and seeds; the worst there is where nothing is known."""
    change = (scores - baseline)[targets]
    return float(change[np.isfinite(change)].mean()) if np.isfinite(change).any() else -np.inf


def _largest(gains: Mapping[Option, float]) -> Option:
    return max(gains, key=lambda option: gains[option])


def _smallest(gains: Mapping[Option, float]) -> Option:
    """Smallest k with enough gain, the better similarity of those."""
    everything = max(gains, key=lambda option: (option[2] or 0, gains[option]))
    enough = [option for option in gains if gains[option] >= KEEP * gains[everything]] or [everything]
    return min(enough, key=lambda option: (option[2] or 0, -gains[option]))


def _name(option: Option) -> str:
    method, metric, k = option
    return method + (f", {metric}" if metric else "") + (f", k = {k}" if k else "")
