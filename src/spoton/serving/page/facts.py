"""Facts about a prompt for the pages, from its card and its neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from spoton.prompts.card import Card
from spoton.serving.roster import ServedPrompt

# Metrics that are shares of correct answers, whose uncertainty follows from the number of answers alone.
_SHARES = ("accuracy", "exact_match")
_Z = 1.959964  # 95 %


@dataclass(frozen=True)
class ShownScore:
    """The main score of a prompt.

    Attributes:
        split: Split that was scored.
        metric: Name of the metric.
        value: 0 to 100, or -100 to 100.
        interval: 95 % interval; None where the card does not say enough.
    """

    split: str
    metric: str
    value: float
    interval: tuple[float, float] | None


def score_of(card: Card) -> ShownScore | None:
    """Returns the score on the test split, else on the validation split; None if the card has none."""
    for split in ("test", "validation"):
        scores = card.scores.get(split, {})
        metric = card.metric if card.metric in scores else next(iter(scores), None)
        if metric is not None:
            value, count = scores[metric], card.splits.get(split, 0)
            interval = wilson_interval(value, count) if metric in _SHARES and count else None
            return ShownScore(split, metric, value, interval)
    return None


def wilson_interval(percent: float, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share (Wilson 1927), in percent.

    Args:
        percent: The observed share.
        count: Number of observations.
    """
    share = percent / 100
    centre = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def facts_of(prompt: ServedPrompt) -> list[tuple[str, str]]:
    """Returns the names and values of the card that a reader wants first."""
    card = prompt.card
    recipe = ", ".join(f"{name} {value}" for name, value in card.recipe.items() if value is not None)
    facts = [
        ("Task", card.task),
        ("Family", card.family),
        ("Labels", ", ".join(card.labels) if card.labels else "open: answers are generated"),
        ("Length", f"{len(prompt.value)} virtual tokens"),
        ("Ensemble of", ", ".join(member.name for member in card.members)),
        ("Model", f"{card.model} ({card.model_fingerprint})"),
        ("Examples", ", ".join(f"{count} {split}" for split, count in card.splits.items())),
        ("Steps", "" if card.steps is None else f"{card.steps}, the best after {card.best_step}"),
        ("Recipe", recipe),
        ("Data hash", card.data_hash),
        ("Created", card.created),
        ("License", card.license),
        ("Source", card.source),
        ("Notes", card.notes),
    ]
    return [(name, value) for name, value in facts if value]


def nearest(prompt: ServedPrompt, others: Sequence[ServedPrompt], count: int = 8) -> list[tuple[str, float]]:
    """Returns the prompts with the most similar mean tokens (SPoT, section 3.2), most similar first."""
    cosines = [
        (other.name, float(prompt.direction @ other.direction))
        for other in others
        if other.name != prompt.name
    ]
    return sorted(cosines, key=lambda pair: (-pair[1], pair[0]))[:count]
