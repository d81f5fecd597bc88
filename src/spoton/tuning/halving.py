"""Successive halving: of several prompts tuned together, those that fall behind at a rung end there.

Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943, with given rungs and a given share to keep. A rung's
decision follows from the evaluations up to it alone, so a resumed run drops what the killed one dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from spoton.errors import RecipeError

Look = dict[str, float]


class Halving(BaseModel):
    """The steps at which prompts tuned together are compared, and the share that continues.

    Examples:
        >>> Halving(rungs=[20, 40]).left(8, rung=1)
        2
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rungs: list[int] = Field(min_length=1)
    """Steps after which prompts are compared; each must be a step with an evaluation on the validation split."""
    keep: float = Field(default=0.5, gt=0, lt=1)
    """Share of the prompts that continues, rounded up; at least one continues."""
    select: Literal["score", "loss"] = "score"
    """The criterion at a rung: the best validation score so far, or the lowest validation loss."""

    @field_validator("rungs")
    @classmethod
    def _in_order(cls, rungs: list[int]) -> list[int]:
        if min(rungs) < 1 or sorted(set(rungs)) != rungs:
            raise ValueError("rungs have to be different steps in rising order")
        return rungs

    def left(self, prompts: int, rung: int) -> int:
        """Returns how many of `prompts` continue after the rung of that index."""
        return max(1, math.ceil(prompts * self.keep ** (rung + 1) - 1e-9))

    def require_evaluations(self, steps: int, evaluate_every: int) -> None:
        """Refuses rungs at steps without an evaluation.

        Raises:
            RecipeError: A rung is not a multiple of `evaluate_every`, or not before the last step.
        """
        strange = [rung for rung in self.rungs if rung % evaluate_every or rung >= steps]
        if strange:
            raise RecipeError(
                f"Prompts cannot be compared after {', '.join(map(str, strange))} steps: rungs have to be multiples of "
                f"evaluate_every ({evaluate_every}) below steps ({steps})."
            )

    def share(self, prompts: int, steps: int) -> float:
        """Returns the share of steps that are taken, relative to the same prompts without halving."""
        return self.taken(prompts, steps) / (prompts * steps)

    def taken(self, prompts: int, steps: int) -> int:
        """Returns the steps that all prompts together have taken once those that continue have taken `steps`."""
        edges = [0, *(min(rung, steps) for rung in self.rungs), steps]
        inside = [prompts, *(self.left(prompts, rung) for rung in range(len(self.rungs)))]
        return sum(n * (end - start) for n, start, end in zip(inside, edges, edges[1:], strict=False))

    def decide(
        self, histories: Sequence[Sequence[Look]], over: Sequence[bool] | None = None
    ) -> tuple[list[int | None], int | None]:
        """Decides which prompts are dropped, and finds the first rung that is still open.

        Args:
            histories: Evaluations of all prompts that were started together (`step`, `validation`,
                `validation_loss`), dropped ones included. A history may be empty.
            over: Which prompts have ended by themselves; these are compared by their evaluations so far. None: none.

        Returns:
            One entry per prompt, in order: the step of the rung at which it is dropped, or None. Then the first rung
            that some prompt has yet to reach, before which no prompt may go further, or None.
        """
        over = over or [False] * len(histories)
        ended: list[int | None] = [None] * len(histories)
        for index, rung in enumerate(self.rungs):
            inside = [i for i, end in enumerate(ended) if end is None]
            if not all(over[i] or _reached(histories[i], rung) for i in inside):
                return ended, rung
            best_first = sorted(
                inside, key=lambda i: (_rank(histories[i], rung, self.select), -i), reverse=True
            )
            for i in best_first[self.left(len(histories), index) :]:
                ended[i] = rung
        return ended, None


def _reached(history: Sequence[Look], rung: int) -> bool:
    return any("validation" in entry and entry["step"] >= rung for entry in history)


def _rank(history: Sequence[Look], rung: int, select: Literal["score", "loss"]) -> tuple[float, float]:
    """Returns the best evaluation up to a rung: score and negative loss, or the reverse."""
    pairs = [
        (entry["validation"], -entry.get("validation_loss", math.inf))
        for entry in history
        if "validation" in entry and entry["step"] <= rung
    ]
    if select == "loss":
        pairs = [(loss, score) for score, loss in pairs]
    return max(pairs, default=(-math.inf, -math.inf))
