"""One start in all: the average of the sources, weighted by what speaks for them (SPoT, section 3.3)."""

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
    """Returns the sources that are similar at all, and weights in proportion to similarity that sum to 1.

    Similarities of zero or below, of which SPoT does not speak, get no weight.

    Raises:
        LibraryError: There is none.
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
    """Returns sources in words."""
    return " + ".join(one.name for one in sources)


def parents_of(sources: Sequence[Retrieved], weights: Sequence[float]) -> tuple[Parent, ...]:
    """Returns sources as parents with their weights."""
    return tuple(
        parent for one, weight in zip(sources, weights, strict=True) for parent in one.parents(weight)
    )
