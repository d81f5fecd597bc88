"""The recipe of model tuning: everything that decides how all weights of a model are tuned, and its presets.

It has no length, start or key, since there is no prompt; what it shares with `Recipe` has the same name and meaning.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from spoton.errors import RecipeError
from spoton.evaluation.encoding import MAX_INPUT_TOKENS
from spoton.tuning.recipe import with_changes


class ModelRecipe(BaseModel):
    """How all weights of a model are tuned.

    Example:
        >>> ModelRecipe(steps=100, learning_rate=2e-5).steps
        100
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimizer: Literal["adamw", "adafactor"] = "adamw"
    """``adafactor`` scales the learning rate by the size of each weight matrix, as T5 is fine-tuned; not factored."""
    learning_rate: float = Field(default=3e-5, gt=0, allow_inf_nan=False)
    """Constant over the run. The middle of the three of BERT's fine-tuning (Devlin et al. 2019, appendix A.3)."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """Per step, not multiplied by the learning rate."""
    steps: int = Field(default=60, ge=1)
    """Optimizer steps; as many as the default recipe of a prompt, for equal data."""
    batch_size: int = Field(default=8, ge=1)
    """Examples a step."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides the order of examples: that of a prompt tuned with this seed and batch size."""
    evaluate_every: int = Field(default=20, ge=1)
    """Steps between two looks at the validation split."""
    patience: int | None = Field(default=None, ge=1)
    """Looks without anything better after which the run ends; None: it takes all its steps."""
    max_input_tokens: int = Field(default=MAX_INPUT_TOKENS, ge=8)
    """Longer inputs lose their middle; how many did is counted and said."""

    @classmethod
    def preset(cls, name: str, **changes: Any) -> ModelRecipe:
        """A named preset with some values changed.

        Raises:
            RecipeError: There is no such preset, or a value does not fit.
        """
        if name not in MODEL_PRESETS:
            raise RecipeError(
                f"Unknown preset {name!r}; for model tuning there is: {', '.join(MODEL_PRESETS)}."
            )
        return MODEL_PRESETS[name].changed(**changes)

    def changed(self, **changes: Any) -> ModelRecipe:
        """This recipe with some values changed, checked again; None means unchanged.

        Raises:
            RecipeError: A value does not fit; says which, what was found and what was expected.
        """
        return with_changes(self, changes)


MODEL_PRESETS: dict[str, ModelRecipe] = {
    "decoder": ModelRecipe(),
    # Vu et al. 2022, appendix C, and Lester et al. 2021, section 3.1: T5's defaults with 2**16 tokens a batch, which
    # are 128 inputs of 512 tokens; steps and looks are those of prompt tuning.
    "paper-t5": ModelRecipe(
        optimizer="adafactor",
        learning_rate=1e-3,
        steps=262_144,
        batch_size=128,
        evaluate_every=500,
        max_input_tokens=512,
    ),
}
