"""The recipe of model tuning: everything that decides how all weights of a model are tuned, and its presets.

It has no length, start or key, since there is no prompt.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from spoton.tuning.recipe import TuningRecipe


class ModelRecipe(TuningRecipe):
    """How all weights of a model are tuned.

    Examples:
        >>> ModelRecipe(steps=100, learning_rate=2e-5).steps
        100
    """

    presets: ClassVar[dict[str, Any]] = {}
    subject: ClassVar[str] = "recipe of model tuning"

    learning_rate: float = Field(default=3e-5, gt=0, allow_inf_nan=False)
    """The middle one of BERT's three fine-tuning rates (Devlin et al. 2019, appendix A.3)."""


MODEL_PRESETS: dict[str, ModelRecipe] = ModelRecipe.presets
MODEL_PRESETS |= {
    "decoder": ModelRecipe(),
    # Vu et al. 2022, appendix C, and Lester et al. 2021, section 3.1: T5's defaults with 2**16 tokens per batch, which
    # are 128 inputs of 512 tokens; steps and evaluations are those of prompt tuning.
    "paper-t5": ModelRecipe(
        optimizer="adafactor",
        learning_rate=1e-3,
        loss="tokens",
        steps=262_144,
        batch_size=128,
        evaluate_every=500,
        max_input_tokens=512,
    ),
}
