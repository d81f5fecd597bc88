"""The card of a soft prompt: its origin, its purpose and its scores.

A card holds provenance only. It has no tensors and runs nothing; scores, hashes and fingerprints are computed elsewhere
and recorded here.
"""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, model_validator

Text = Annotated[str, Field(min_length=1)]
Percent = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Parent(BaseModel):
    """One source prompt that a transferred prompt was initialized from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    """Name of the source prompt in its library."""
    weight: FiniteFloat
    """Its share in the initialization; 1 if it was the only source."""
    similarity: FiniteFloat | None = None
    """Similarity of its key to the target's key; None if the source was chosen by hand or by a trial."""
    hash: str
    """`SoftPrompt.content_hash()` of the source prompt."""


class Calibration(BaseModel):
    """The numbers that calibrate a prompt's label scores: `scores / temperature + bias`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bias: list[FiniteFloat]
    """One per label, in the order of the card's labels; they sum to zero."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Above 1 if the prompt is overconfident."""
    rows: int = Field(ge=1)
    """Training rows it was fitted on."""


class Member(BaseModel):
    """One prompt of an ensemble."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    """Name of the prompt."""
    length: int = Field(ge=1)
    """P, the number of rows of the ensemble's value that belong to this prompt."""
    hash: Text
    """`SoftPrompt.content_hash()` of the prompt."""
    calibration: Calibration | None = None
    """Calibration of its own label scores."""


class Card(BaseModel):
    """Provenance of one soft prompt. Every field but the first four has a default.

    Examples:
        >>> card = Card(name="news", task="news_sentiment", model="smollm2-135m", model_fingerprint="9f2c")
        >>> card.scores
        {}
    """

    # `model` and `model_fingerprint` are field names here; pydantic otherwise reserves the prefix.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: Text
    """Name of the prompt; in a library, the name of its file."""
    task: Text
    """The task it was tuned on."""
    model: Text
    """Name of the frozen model it was tuned with."""
    model_fingerprint: Text
    """Fingerprint of that model: a prompt is meaningless to any other."""
    dtype: str = ""
    """Type of the model's weights during tuning: `bfloat16`, `float32`, ..."""
    family: str = ""
    """The task's family, such as sentiment."""
    data_hash: str = ""
    """Hash of all rows of the task."""
    template: str = ""
    """The template that turned rows into inputs."""
    form: str = ""
    """Form of a catalog task: `t5` or `natural`, with `+chat` in a chat template (`chat` alone for a user's own rows).
    Empty for other rows and in cards older than the field."""
    target: str = ""
    """Target column of the data file, if there was one; `evaluate` reads it."""
    labels: list[str] | None = None
    """Label words in their fixed order; None for open targets."""
    recipe: dict[str, JsonValue] = {}
    """The resolved recipe."""
    seed: int | None = None
    """Seed of the tuning run."""
    scores: dict[str, dict[str, Percent]] = {}
    """Split, metric, value in percent: `{"validation": {"accuracy": 81.0}}`; correlations -100 to 100. For a calibrated
    prompt, `validation_uncalibrated` and `test_uncalibrated` hold the scores without calibration."""
    majority: dict[str, Percent] = {}
    """Score of always giving the most frequent training target, by split, under the main metric; empty: unknown."""
    calibration: Calibration | None = None
    """Calibration of the label scores, fitted on training rows; None: scores are used unchanged."""
    evaluation: str = ""
    """How the scores were obtained: `rank` or `generate`."""
    metric: str = ""
    """The main metric, by which the value was chosen."""
    splits: dict[str, int] = {}
    """Number of examples per split."""
    steps: int | None = None
    """Tuning steps taken."""
    best_step: int | None = None
    """The step whose checkpoint is the value."""
    key_step: int | None = None
    """The step whose checkpoint is the key."""
    parents: list[Parent] = []
    """The source prompts it was initialized from, if any."""
    members: list[Member] = []
    """The prompts of an ensemble, whose rows follow each other in the value; empty for a single prompt."""
    versions: dict[str, str] = {}
    """Package name to version, as installed during tuning."""
    created: str = Field(default_factory=_now)
    """Time of creation, as ISO 8601 in UTC."""
    license: str = ""
    """Licence of the task's data."""
    source: str = ""
    """Origin of the task's rows, or of an imported or converted prompt."""
    notes: str = ""
    """Anything else a reader should know."""

    @model_validator(mode="after")
    def _one_bias_per_label(self) -> "Card":
        for calibration in (self.calibration, *(member.calibration for member in self.members)):
            if calibration and self.labels is not None and len(calibration.bias) != len(self.labels):
                raise ValueError(
                    f"{len(calibration.bias)} biases of a calibration for {len(self.labels)} labels"
                )
        return self
