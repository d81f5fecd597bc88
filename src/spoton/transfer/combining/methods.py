"""The methods by name, and the starts that each makes of ranked sources."""

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
"""Methods that make one start of every source; the others make one in all."""


def starts(
    retrieved: Sequence[Retrieved],
    method: Method,
    length: int,
    own: Callable[[], Tensor] | None = None,
) -> list[Start]:
    """The starting points a method makes of retrieved prompts.

    Args:
        retrieved: Best first.
        method: Which way. `mixture` begins with the average, and is tuned on the sources' rows before.
        length: P of the target prompt; sources of another length are resized.
        own: Gives the target's own start `[P, D]`, which task vectors are added to.

    Raises:
        LibraryError: The sources do not give what the method needs; says what and what else to do.
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
