"""One start per source, all tuned in the same passes; the worse end at rungs, and the best gets most of the steps.

Successive halving (Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943; `spoton.tuning.halving`).
"""

from __future__ import annotations

from spoton.errors import RecipeError
from spoton.tuning.halving import Halving
from spoton.tuning.recipe import Recipe


def halving_within(budget: int, prompts: int, recipe: Recipe) -> tuple[Recipe, Halving]:
    """Returns how to tune a number of prompts with a total number of steps, and the rungs at which half of them end.

    Each of the first evaluations is a rung, until one prompt is left.

    Args:
        budget: Steps of all prompts together.
        prompts: Number of prompts, at least two.
        recipe: A recipe whose evaluations are the rungs; its steps are replaced.

    Raises:
        RecipeError: The budget ends before the last rung, or the learning rate is not chosen yet.
    """
    recipe.chosen_rate()
    every, rungs = recipe.evaluate_every, max(1, (prompts - 1).bit_length())
    halving = Halving(rungs=[every * (i + 1) for i in range(rungs)], select=recipe.select)
    inside = [prompts, *(halving.left(prompts, rung) for rung in range(rungs - 1))]
    steps = every * rungs + (budget - every * sum(inside)) // halving.left(prompts, rungs - 1)
    if steps <= every * rungs:
        raise RecipeError(
            f"{budget} steps do not reach the last of {rungs} rungs at which {prompts} candidates are compared: "
            f"expected more than {every * sum(inside)}. Raise --steps or --minutes, or lower --k or --evaluate-every."
        )
    return recipe.changed(steps=steps), halving
