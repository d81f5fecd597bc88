"""The methods by name, and the starts that each makes from ranked sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from torch import Tensor

from spoton.errors import RecipeError
from spoton.transfer.combining.best_of_top_k import best_of_top_k
from spoton.transfer.combining.learned_mix import learned_mix
from spoton.transfer.combining.multiplicative import multiplicative
from spoton.transfer.combining.start import Start
from spoton.transfer.combining.task_vectors import task_vectors
from spoton.transfer.combining.weighted_average import weighted_average
from spoton.transfer.sources import Retrieved

Method = Literal[
    "best-of-top-k", "weighted-average", "halving", "task-vectors", "learned-mix", "multiplicative", "mixture"
]
METHODS: tuple[Method, ...] = get_args(Method)
SEVERAL: tuple[Method, ...] = ("best-of-top-k", "halving")
"""Methods that make one start per source; the others make a single start."""


def starts(
    retrieved: Sequence[Retrieved],
    method: Method,
    length: int,
    own: Callable[[], Tensor] | None = None,
) -> list[Start]:
    """Returns the starts that a method makes from retrieved prompts.

    Args:
        retrieved: Best first.
        method: The method. `mixture` begins with the average, and is first tuned on the sources' rows.
        length: P of the target prompt; sources of another length are resized.
        own: Returns the target's own start `[P, D]`, to which task vectors are added.

    Raises:
        LibraryError: The sources lack what the method needs; the message names it and an alternative.
        RecipeError: There is no such method, or it needs the target's own start.
    """
    if method not in METHODS:
        raise RecipeError(f"Unknown transfer method {method!r}; there is: {', '.join(METHODS)}.")
    if method in SEVERAL:
        return best_of_top_k(retrieved, length)
    if method == "task-vectors":
        if own is None:
            raise RecipeError("task-vectors needs the target's own start. Pass own=.")
        return task_vectors(retrieved, own())
    if method == "learned-mix":
        return learned_mix(retrieved, length)
    if method == "multiplicative":
        return multiplicative(retrieved, length)
    return weighted_average(retrieved, length)
