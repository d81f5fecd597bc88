"""A single start: the average of the sources, weighted by similarity (SPoT, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from spoton.errors import LibraryError
from spoton.prompts.card import Parent
from spoton.prompts.initial import from_combination
from spoton.transfer.combining.start import Start
from spoton.transfer.sources import Retrieved


def weighted_average(retrieved: Sequence[Retrieved], length: int) -> list[Start]:
    """Returns the average, as one start.

    Raises:
        LibraryError: No source has a positive similarity.
    """
    similar, weights = by_similarity(retrieved)
    value = from_combination([one.prompt.value for one in similar], weights, length)
    return [Start(names_of(similar), value, parents_of(similar, weights))]


def by_similarity(retrieved: Sequence[Retrieved]) -> tuple[list[Retrieved], list[float]]:
    """Returns the sources with a positive similarity, and weights in proportion to it that sum to 1.

    SPoT does not cover similarities of zero or below; here they get no weight.

    Raises:
        LibraryError: There is no such source.
    """
    similar = [one for one in retrieved if one.similarity > 0]
    if not similar:
        raise LibraryError(
            "None of the retrieved prompts has a positive similarity to the task, so there is nothing to average. "
            "Use --method best-of-top-k."
        )
    total = sum(one.similarity for one in similar)
    return similar, [one.similarity / total for one in similar]


def names_of(sources: Sequence[Retrieved]) -> str:
    """Returns the names of sources as text."""
    return " + ".join(one.name for one in sources)


def parents_of(sources: Sequence[Retrieved], weights: Sequence[float]) -> tuple[Parent, ...]:
    """Returns sources as parents with their weights."""
    return tuple(
        parent for one, weight in zip(sources, weights, strict=True) for parent in one.parents(weight)
    )
