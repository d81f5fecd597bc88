"""The recipe: everything that decides how a prompt is tuned, and the named presets.

It holds values and checks them; what they do is in ``tune.py``, ``optimizer.py`` and ``initial_prompt.py``.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from spoton.errors import RecipeError
from spoton.evaluation.encoding import MAX_INPUT_TOKENS

Values = TypeVar("Values", bound=BaseModel)


def with_changes(recipe: Values, changes: dict[str, Any]) -> Values:
    """A recipe of any kind with some values changed, checked again; None means unchanged.

    Raises:
        RecipeError: A value does not fit; says which, what was found and what was expected.
    """
    wanted = {key: value for key, value in changes.items() if value is not None}
    try:
        return type(recipe).model_validate(recipe.model_dump() | wanted)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']} (found {e.get('input')!r})"
            for e in error.errors()
        )
        raise RecipeError(f"The recipe does not hold together: {problems}.") from error


class Recipe(BaseModel):
    """How a prompt is tuned. The defaults are the ``decoder`` preset, measured in docs/experiments.md.

    Example:
        >>> Recipe(steps=100, seed=1).steps
        100
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    length: int = Field(default=20, ge=1, le=1000)
    """P, how many virtual tokens the prompt has."""
    init: str = "vocabulary"
    """Where it starts: ``vocabulary``, ``labels``, ``uniform``, ``text:...`` or the path of a prompt."""
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    """``adafactor`` is the reference's variant: no factoring, no parameter scaling, clipped by RMS."""
    learning_rate: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    """Constant over the run (Lester et al. 2021, section 3.1)."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """Per step, not multiplied by the learning rate."""
    steps: int = Field(default=60, ge=1)
    """Optimizer steps."""
    batch_size: int = Field(default=8, ge=1)
    """Examples a step."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides the start, the order of examples and nothing else."""
    key_step: int = Field(default=20, ge=1)
    """The step whose prompt is kept as key (task embedding), whatever the task or batch size (SPoT, section 3)."""
    evaluate_every: int = Field(default=20, ge=1)
    """Steps between two looks at the validation split."""
    patience: int | None = Field(default=None, ge=1)
    """Looks without anything better after which the run ends, once it has its key; None: it takes all its steps."""
    max_input_tokens: int = Field(default=MAX_INPUT_TOKENS, ge=8)
    """Longer inputs lose their middle; how many did is counted and said."""

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Recipe:
        """A named preset with some values changed.

        Raises:
            RecipeError: There is no such preset, or a value does not fit.
        """
        if name not in PRESETS:
            raise RecipeError(f"Unknown preset {name!r}; there is: {', '.join(PRESETS)}.")
        return PRESETS[name].changed(**changes)

    def changed(self, **changes: Any) -> Recipe:
        """This recipe with some values changed, checked again; None means unchanged.

        Raises:
            RecipeError: A value does not fit; says which, what was found and what was expected.
        """
        return with_changes(self, changes)

    @model_validator(mode="after")
    def _text_is_given(self) -> Recipe:
        if self.init == "text:":
            raise ValueError("init 'text:' needs the text behind the colon")
        return self


PRESETS: dict[str, Recipe] = {
    # Measured on SmolLM2-135M: docs/experiments.md, "The default recipe".
    "decoder": Recipe(),
    # Vu et al. 2022, sections 2.1.4 and 3.1, and the optimizer of the reference code (docs/reference/recipes.md).
    "paper-t5": Recipe(
        length=100,
        init="labels",
        optimizer="adafactor",
        learning_rate=0.3,
        weight_decay=1e-5,
        steps=262_144,
        batch_size=32,
        key_step=10_000,
        evaluate_every=500,
        max_input_tokens=512,
    ),
}
# A source prompt starts from sampled vocabulary instead (section 2.1.4).
PRESETS["paper-t5-source"] = PRESETS["paper-t5"].changed(init="vocabulary")
