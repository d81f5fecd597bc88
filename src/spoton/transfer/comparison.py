"""The gain of transfer over starting from scratch: means, deviations over seeds, and a sentence that claims no more.

This file computes numbers and words from numbers; it tunes nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spoton.evaluation.baseline import Classical


@dataclass(frozen=True)
class Scores:
    """One arm's main metric over seeds, 0 to 100.

    Attributes:
        validation: Best validation score of each seed.
        test: Test score of each seed; empty if there is no test split.
    """

    validation: tuple[float, ...]
    test: tuple[float, ...]

    def means(self) -> dict[str, float | None]:
        """Returns the mean over seeds, by split; None where there are no scores."""
        return {split: statistics.mean(found) if found else None for split, found in self._splits()}

    def seeds(self) -> dict[str, Any]:
        """Returns every seed's score, their mean and sample standard deviation (None for one seed), by split."""
        return {
            split: {"scores": list(found), "mean": statistics.mean(found), "std": deviation(found)}
            for split, found in self._splits()
            if found
        }

    def _splits(self) -> list[tuple[str, tuple[float, ...]]]:
        return [("validation", self.validation), ("test", self.test)]


def worth(prompt: Scores, neighbour: Classical, metric: str) -> str:
    """Says whether the prompt is worth its cost next to TF-IDF and logistic regression on the same rows.

    A difference within the standard deviation over seeds, or within a point, counts as none.

    Args:
        prompt: The chosen arm.
        neighbour: The classical method that a user would try first.
        metric: Name of the main metric.
    """
    split = "test" if prompt.test and neighbour.score("test") is not None else "validation"
    own: tuple[float, ...] = getattr(prompt, split)
    theirs = neighbour.score(split)
    assert theirs is not None  # a task has validation rows
    gain = statistics.mean(own) - theirs
    noise = max(1.0, deviation(own) or 0.0)
    says = (
        "the prompt is ahead"
        if gain > noise
        else "the prompt is not worth its cost here"
        if gain < -noise
        else "no difference that counts, so the prompt is hardly worth its cost here"
    )
    return (
        f"TF-IDF with logistic regression: {split} {metric} {theirs:.1f} in {neighbour.seconds:.1f} seconds "
        f"({gain:+.1f} for the prompt): {says}."
    )


def deviation(found: Sequence[float]) -> float | None:
    """Returns the sample standard deviation; None for fewer than two numbers."""
    return statistics.stdev(found) if len(found) > 1 else None


def verdict(scratch: Scores, transfer: Scores, metric: str) -> str:
    """Says in one sentence whether transfer helped, from the test split if there is one, else from validation.

    A difference counts if it is larger than the standard deviation over seeds of either arm; one seed decides nothing.
    """
    split = "test" if scratch.test and transfer.test else "validation"
    before, after = getattr(scratch, split), getattr(transfer, split)
    gain = statistics.mean(after) - statistics.mean(before)
    told = f"{split} {metric} {statistics.mean(after):.1f} with transfer, {statistics.mean(before):.1f} from scratch"
    if len(before) < 2 or len(after) < 2:
        return f"{told} ({gain:+.1f}): one seed, so this may be chance; --seeds 3 tells more."
    noise = max(statistics.stdev(before), statistics.stdev(after))
    if abs(gain) <= noise:
        return f"{told} ({gain:+.1f}): within noise (standard deviation over {len(before)} seeds up to {noise:.1f})."
    which = "transfer helped" if gain > 0 else "transfer hurt"
    return f"{told} ({gain:+.1f}): {which}, beyond the standard deviation over {len(before)} seeds ({noise:.1f})."
