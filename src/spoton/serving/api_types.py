"""Request bodies, with the bounds that hold for every server."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictInt

_Name = Annotated[str, Field(min_length=1, max_length=300)]
_Text = Annotated[str, Field(min_length=1)]
_Tokens = Annotated[list[Annotated[StrictInt, Field(ge=0, lt=2**31)]], Field(min_length=1)]

_T = TypeVar("_T")
_Several = Annotated[list[_T], Field(min_length=1)]


class _Request(BaseModel):
    # An unknown field is an error: ignoring part of a request would give a wrong answer.
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassifyRequest(_Request):
    """Rows to classify or answer."""

    prompt: _Name | list[_Name]
    """Name of one prompt for all inputs, or of one prompt per input."""
    inputs: list[str | dict[str, Any]] = Field(min_length=1)
    """Texts, or objects with the columns of the prompt's template."""
    max_tokens: int = Field(default=32, ge=1, le=2048)
    """Most tokens of a generated answer, for prompts without labels."""


class StreamOptions(_Request):
    """Options of a stream."""

    include_usage: bool = False
    """Whether a last chunk reports the usage."""


class CompletionRequest(_Request):
    """Texts to continue, as in OpenAI's API."""

    model: _Name
    """A prompt's name, or the model's own name for no prompt."""
    prompt: _Text | _Tokens | _Several[_Text] | _Several[_Tokens]
    """One text, several texts, or their tokens. The prompt's template is not applied."""
    max_tokens: int = Field(default=16, ge=0, le=4096)
    """Most tokens of a continuation; 0 with `echo` only scores the text."""
    temperature: float = Field(default=1.0, ge=0, le=2, allow_inf_nan=False)
    """0 always picks the most likely token."""
    top_p: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)
    """Tokens are sampled from the most likely ones that together have this probability."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """Seed of the sampling."""
    stop: _Text | Annotated[list[_Text], Field(max_length=16)] | None = None
    """Strings that end a text."""
    logprobs: int | None = Field(default=None, ge=0, le=20)
    """How many of the most likely tokens to report at each position."""
    echo: bool = False
    """Whether the answer repeats the text."""
    stream: bool = False
    """Whether tokens are sent as they are generated."""
    stream_options: StreamOptions | None = None
    """Options of the stream."""
    user: str | None = None
    """Ignored; OpenAI's clients may send it."""
    # Accepted with the value that has no effect, since some clients always send them.
    n: Literal[1] | None = None
    best_of: Literal[1] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    suffix: None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])
