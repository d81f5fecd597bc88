"""The entries of the study file for model tuning and multi-task model tuning, baselines that tune all weights."""

from __future__ import annotations

from pydantic import BaseModel, Field, model_validator

from spoton.study.plan.task_groups import CHECKED, RecipeChanges, TaskEntry
from spoton.tuning.full_model.recipe import ModelRecipe
from spoton.tuning.recipe import Recipe


class MixtureEntry(TaskEntry):
    """What multi-task model tuning tunes all weights on first, once for each seed: a mixture of tasks, or one task.

    Its `recipe` has `preset` and changes, as for `ModelRecipe`.
    """

    train_size: int | None = Field(default=None, ge=1)
    """At most this many training examples of the mixture; null: all."""
    validation_size: int = Field(default=200, ge=1)
    """At most this many examples to choose the checkpoint by."""
    seeds: list[int] | None = None
    """Which of the seeds of model tuning; null: all."""

    def recipe_of(self, seed: int) -> ModelRecipe:
        """Returns how the weights are tuned on the mixture with a seed.

        Raises:
            RecipeError: A value is not valid, or there is no such preset.
        """
        changes = dict(self.recipe) | {"seed": seed}
        return ModelRecipe.preset(str(changes.pop("preset", "decoder")), **changes)


class ModelTuningBaseline(BaseModel):
    """Model tuning of every target, the baseline of a study: all weights of a copy of the model."""

    model_config = CHECKED

    recipe: RecipeChanges = {}
    """`preset` and changes, as for `ModelRecipe`; steps, batch size, evaluations and input length default to the
    target's."""
    seeds: list[int] | None = None
    """Which of the study's seeds; null: all."""
    targets: list[str] | None = None
    """Which of the study's targets; null: all."""
    learning_rates: list[float] = []
    """Rates to try on every target and seed, each in a cell of its own; the analysis takes the one that is best by
    validation. Empty: that of the recipe."""

    mixture: MixtureEntry | None = None
    """Multi-task model tuning, as another baseline: every run of model tuning is repeated from the weights that were
    tuned on this mixture before; null: none."""

    @model_validator(mode="after")
    def _one_way_to_name_rates(self) -> ModelTuningBaseline:
        if len(set(self.learning_rates)) != len(self.learning_rates):
            raise ValueError("learning_rates has to be different numbers")
        if self.learning_rates and "learning_rate" in self.recipe:
            raise ValueError("give either learning_rates or the learning_rate of recipe, not both")
        return self

    @property
    def named_seeds(self) -> list[int]:
        """The seeds that these entries name, which the study has to have."""
        return [*(self.seeds or ()), *((self.mixture and self.mixture.seeds) or ())]

    def recipes_of(self, target: Recipe) -> list[ModelRecipe]:
        """Returns how the model is tuned on a target, on the same data as its prompts, once for every learning rate.

        Args:
            target: The recipe of the target's prompts.

        Raises:
            RecipeError: A value is not valid, or there is no such preset.
        """
        recipe = self._recipe_of(target)
        return [recipe.changed(learning_rate=rate) for rate in self.learning_rates] or [recipe]

    def _recipe_of(self, target: Recipe) -> ModelRecipe:
        shared = ("steps", "batch_size", "seed", "evaluate_every", "patience", "max_input_tokens")
        changes = {name: getattr(target, name) for name in shared} | self.recipe | {"seed": target.seed}
        return ModelRecipe.preset(str(changes.pop("preset", "decoder")), **changes)
