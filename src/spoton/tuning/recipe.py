"""The recipe: everything that decides how a prompt is tuned, and the named presets.

It holds and checks values; `prompt_run.py`, `optimizer.py`, `parameterization.py` and `initial_prompt.py` use them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from spoton.arguments import require_kind
from spoton.errors import RecipeError
from spoton.evaluation.encoding import MAX_INPUT_TOKENS
from spoton.evaluation.score import LabelScore
from spoton.fields import sentence

Schedule = Literal["constant", "linear", "cosine"]
Reparameterization = Literal["none", "residual", "superposition", "low_rank"]
Loss = Literal["tokens", "examples", "labels"]
Calibrate = Literal["none", "end", "every"]


class TuningRecipe(BaseModel):
    """The fields that prompt tuning and model tuning share: optimizer, schedule, budget, validation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    presets: ClassVar[dict[str, Any]] = {}
    """Named recipes of this kind."""
    subject: ClassVar[str] = "recipe"
    """Name of this kind in error messages."""

    optimizer: Literal["adamw", "adafactor"] = "adamw"
    """For prompts, `adafactor` is the reference's variant: no factoring, no parameter scaling, clipped by RMS. For
    model tuning it scales the learning rate by the size of each weight matrix, as in fine-tuning T5."""
    schedule: Schedule = "constant"
    """The rate after the warm-up: `constant`, or falling to zero at the last step."""
    warmup: int = Field(default=0, ge=0)
    """Steps in which the rate rises linearly from zero."""
    loss: Loss = "examples"
    """`examples`: mean over the examples of the mean over an example's target tokens, so that long labels weigh no
    more than short ones. `tokens`: mean over all target tokens of a batch, as in T5X. `labels`: cross-entropy over the
    label words alone."""
    clip: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Largest norm of the gradient; a longer one is scaled down. 0: no clipping."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """Per step, not multiplied by the learning rate."""
    steps: int = Field(default=60, ge=1, le=10**9)
    """Largest number of optimizer steps; `patience` may end the run earlier."""
    batch_size: int = Field(default=8, ge=1, le=100_000)
    """Examples per step."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides every random choice of a run: the start, the order of examples, the rows of a calibration or a trial."""
    evaluate_every: int = Field(default=20, ge=1)
    """Steps between two evaluations on the validation split."""
    patience: int | None = Field(default=None, ge=0)
    """Evaluations without an improvement after which the run ends, once it has its key. None or 0: no limit."""
    select: Literal["loss", "score"] = "score"
    """Criterion between checkpoints: validation loss, or the score with ties broken by loss. Open targets have no
    validation loss and are always chosen by score, with ties broken by their other metrics."""
    label_score: LabelScore = "sum"
    """How the log-probabilities of a label's tokens make its score: their `sum` or their `mean`."""
    max_input_tokens: int = Field(default=MAX_INPUT_TOKENS, ge=8)
    """Longer inputs lose their middle; the run reports how many."""

    if not TYPE_CHECKING:  # type checkers know the fields

        def __init__(self, **values: Any) -> None:
            """Checks the values.

            Raises:
                RecipeError: One does not fit; the message names it, what was found and what was expected.
            """
            try:
                super().__init__(**values)
            except ValidationError as error:
                told = sentence(error.errors(), type(self).model_fields)
                raise RecipeError(f"The recipe does not hold together: {told}") from error

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """Returns a named preset with some values changed.

        Raises:
            RecipeError: There is no such preset, or a value does not fit.
        """
        if name not in cls.presets:
            raise RecipeError(
                f"Unknown preset {name!r} of a {cls.subject}; choose from: {', '.join(cls.presets)}."
            )
        preset: Self = cls.presets[name]
        return preset.changed(**changes)

    def changed(self, **changes: Any) -> Self:
        """Returns this recipe with some values changed, checked again; None means unchanged.

        Raises:
            RecipeError: A value does not fit.
        """
        return type(self)(
            **self.model_dump() | {key: value for key, value in changes.items() if value is not None}
        )


class Recipe(TuningRecipe):
    """How a prompt is tuned.

    A bare recipe is plain prompt tuning (Lester et al. 2021); presets hold the recommendations for a kind of model.

    Examples:
        >>> Recipe.preset("decoder", steps=100, seed=1).steps
        100
    """

    presets: ClassVar[dict[str, Any]] = {}
    subject: ClassVar[str] = "prompt's recipe"

    length: int = Field(default=20, ge=1, le=1000)
    """P, the number of virtual tokens."""
    init: str = "vocabulary"
    """Where it starts: `vocabulary`, `labels`, `task` (the task's instruction), `uniform`, `text:...` or the path of a
    prompt."""
    learning_rate: float | Literal["auto"] = 0.05
    """A number, or `auto`: three rates start together, and the worse two end at the first evaluation."""
    rate_unit: Literal["absolute", "embedding_rms"] = "absolute"
    """`embedding_rms`: the learning rate is in root mean squares of the model's embedding rows, so one rate suits
    different models."""
    reparameterization: Reparameterization = "none"
    """What is tuned in place of the prompt itself; see `parameterization.py`. Collapsed into a prompt when kept."""
    average: float = Field(default=0.0, ge=0, lt=1)
    """Decay of an exponential moving average of the prompt, evaluated next to the prompt; 0: no average."""
    calibrate: Calibrate = "none"
    """When a bias for each label and a temperature are fitted on training rows: never (`none`), for the kept prompt at
    the `end`, or at `every` evaluation, so that calibrated candidates are compared."""
    key_step: int = Field(default=20, ge=1)
    """The step whose prompt is kept as key (task embedding), whatever the task or batch size (SPoT, section 3)."""

    def chosen_rate(self) -> float:
        """Returns the learning rate as a number.

        Raises:
            RecipeError: The rate is not chosen yet; `spoton.tuning.tune` chooses it.
        """
        if self.learning_rate == "auto":
            raise RecipeError(
                "learning_rate is auto, which is chosen where one prompt is tuned alone. Give a number here."
            )
        return self.learning_rate

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.init == "text:":
            raise ValueError("init 'text:' needs the text behind the colon")
        rate = self.learning_rate
        if rate != "auto" and not 0 < rate < float("inf"):
            raise ValueError(f"learning_rate has to be above zero and finite, or auto; found {rate}")
        return self


PRESETS: dict[str, Recipe] = Recipe.presets
PRESETS |= {
    # Measured on SmolLM2-135M: docs/experiments.md, "The default recipe".
    "decoder": Recipe(
        length=100,
        init="task",
        learning_rate=0.01,
        schedule="linear",
        warmup=10,
        clip=1.0,
        average=0.95,
        calibrate="end",
        select="loss",
    ),
    # Vu et al. 2022, sections 2.1.4 and 3.1, and the optimizer of the reference code (docs/reference/recipes.md).
    "paper-t5": Recipe(
        length=100,
        init="labels",
        optimizer="adafactor",
        learning_rate=0.3,
        weight_decay=1e-5,
        steps=262_144,
        batch_size=32,
        loss="tokens",
        select="score",
        key_step=10_000,
        evaluate_every=500,
        max_input_tokens=512,
    ),
}
# A source prompt starts from sampled vocabulary instead (section 2.1.4).
PRESETS["paper-t5-source"] = PRESETS["paper-t5"].changed(init="vocabulary")


def require_recipe(recipe: object) -> None:
    """Refuses the name of a preset, or plain values, in place of a recipe.

    Raises:
        RecipeError: It is not a recipe.
    """
    require_kind(
        recipe, Recipe, "recipe", RecipeError,
        "a recipe. Make one: spoton.PRESETS['decoder'].changed(...), or spoton.Recipe(...)",
    )  # fmt: skip
