"""One prompt while it is tuned: what is learned in its place, its average, its best and its key."""

from __future__ import annotations

import torch
from torch import Tensor

from spoton.models.frozen import FrozenModel
from spoton.tuning.initial_prompt import embedding_rms
from spoton.tuning.parameterization import Collapsible, Parameterization, Parameterized
from spoton.tuning.recipe import Recipe


class PromptLearner:
    """One prompt while it is tuned; see `Learner`.

    Args:
        model: The frozen model.
        recipe: How to tune.
        start: `[P, D]` before the first step.
        tuned_as: What is tuned in place of the prompt; None: decided by the recipe.

    Attributes:
        start: The given start, on the CPU.
        average: `[P, D]` moving average of the prompt; None if the recipe has none.
        best: `[P, D]` the best candidate by validation so far; None before the first evaluation.
        key: `[P, D]` the prompt at the key step; None before it.
        moved: Whether a step was taken.
    """

    def __init__(
        self, model: FrozenModel, recipe: Recipe, start: Tensor, tuned_as: Collapsible | None = None
    ) -> None:
        self.model, self.start, self.scaled = model, start, False
        self.rate = learning_rate(model, recipe)
        self._decay, self._key_step = recipe.average, recipe.key_step
        self.parameterization: Parameterized
        if tuned_as is not None:
            self.parameterization = tuned_as.begin(model.device)
        else:
            self.parameterization = Parameterization(
                recipe.reparameterization, start.to(model.device), model.embeddings, recipe.seed
            )
        self.parameters = list(self.parameterization.tensors.values())
        self.average = start.to(model.device).clone() if recipe.average else None
        self.moved = False
        self.best: Tensor | None = None
        self.key: Tensor | None = None

    def prompt(self) -> Tensor:
        """Returns the prompt `[P, D]`; see `Learner.prompt`."""
        return self.parameterization.prompt()

    @torch.no_grad()
    def candidates(self) -> dict[str, Tensor]:
        """See `Learner.candidates`: the last prompt `[P, D]`, and the average of all so far."""
        last = {"last": self.prompt().detach()}
        # Before the first step the two are the same, and an evaluation takes time.
        return last if self.average is None or not self.moved else last | {"average": self.average}

    @torch.no_grad()
    def stepped(self, step: int) -> None:
        """See `Learner.stepped`. The average forgets its start quickly: decay `min(d, (1 + step) / (10 + step))`."""
        self.moved = True
        if self.average is not None:
            decay = min(self._decay, (1 + step) / (10 + step))
            self.average.mul_(decay).add_(self.prompt(), alpha=1 - decay)
        if step == self._key_step:
            self.key = self.prompt().detach().clone()

    def keep(self, candidate: str) -> None:
        """See `Learner.keep`."""
        self.best = self.candidates()[candidate].clone()


def learning_rate(model: FrozenModel, recipe: Recipe) -> float:
    """Returns the highest learning rate of a recipe's schedule as a plain number.

    Raises:
        RecipeError: The rate is not chosen yet (`auto`); `tune` chooses it.
    """
    rate = recipe.chosen_rate()
    return rate * embedding_rms(model) if recipe.rate_unit == "embedding_rms" else rate
