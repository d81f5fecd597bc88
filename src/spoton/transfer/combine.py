"""From retrieved prompts to starting points: the ways of SPoT to use several sources (section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from spoton.errors import LibraryError, RecipeError
from spoton.prompts.card import Parent
from spoton.prompts.initial import from_combination, from_prompt
from spoton.transfer.rank_sources import Retrieved

Method = Literal["best-of-top-k", "weighted-average"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class Start:
    """One place to start a target prompt from.

    Attributes:
        name: The sources in words.
        value: ``[P, D]``.
        parents: The sources, with their weights.
    """

    name: str
    value: Tensor
    parents: tuple[Parent, ...]


def starts(retrieved: Sequence[Retrieved], method: Method, length: int) -> list[Start]:
    """The starting points a method makes of retrieved prompts.

    - ``best-of-top-k``: one a prompt; all are tuned and the best by validation is kept.
    - ``weighted-average``: one in all, the values weighted by similarity. Sources that are not similar at all
      (similarity zero or below, of which SPoT does not speak) get no weight.

    Args:
        retrieved: Most similar first.
        method: Which way.
        length: P of the target prompt; sources of another length are resized.

    Raises:
        LibraryError: ``weighted-average`` and no source has a positive similarity.
        RecipeError: There is no such method.
    """
    if method not in METHODS:
        raise RecipeError(f"Unknown transfer method {method!r}; there is: {', '.join(METHODS)}.")
    if method == "best-of-top-k":
        return [
            Start(one.name, from_prompt(one.prompt.value, length), (_parent(one, 1.0),)) for one in retrieved
        ]
    similar = [one for one in retrieved if one.similarity > 0]
    if not similar:
        raise LibraryError(
            "None of the retrieved prompts has a positive similarity to the task, so there is nothing to average. "
            "Use --method best-of-top-k."
        )
    total = sum(one.similarity for one in similar)
    weights = [one.similarity / total for one in similar]
    value = from_combination([one.prompt.value for one in similar], weights, length)
    parents = tuple(_parent(one, weight) for one, weight in zip(similar, weights, strict=True))
    return [Start(" + ".join(one.name for one in similar), value, parents)]


def _parent(source: Retrieved, weight: float) -> Parent:
    return Parent(
        name=source.name, weight=weight, similarity=source.similarity, hash=source.prompt.content_hash()
    )
