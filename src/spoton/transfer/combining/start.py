"""The starting point of a target prompt."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from spoton.prompts.card import Parent
from spoton.shapes import Float
from spoton.tuning.parameterization import Collapsible


@dataclass(frozen=True)
class Start:
    """A starting point of a target prompt.

    Attributes:
        name: The names of the sources.
        value: `[P, D]`.
        parents: The sources, with their weights.
        tuned_as: What is tuned in place of the prompt, and collapses into it; None: decided by the recipe.
    """

    name: str
    value: Float[Tensor, "P D"]
    parents: tuple[Parent, ...]
    tuned_as: Collapsible | None = None
