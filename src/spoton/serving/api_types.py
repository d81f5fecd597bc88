"""The bodies of requests, with the bounds that hold for every server."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictInt

_Name = Annotated[str, Field(min_length=1, max_length=300)]
_Text = Annotated[str, Field(min_length=1)]
_Tokens = Annotated[list[Annotated[StrictInt, Field(ge=0, lt=2**31)]], Field(min_length=1)]

_T = TypeVar("_T")
_Several = Annotated[list[_T], Field(min_length=1)]


class _Request(BaseModel):
    # A field that is not known is an error: to leave out what was asked for would be a wrong answer.
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassifyRequest(_Request):
    """Rows to answer."""

    prompt: _Name | list[_Name]
    """Name of the prompt of all inputs, or of each."""
    inputs: list[str | dict[str, Any]] = Field(min_length=1)
    """Texts, or objects of the columns of the prompt's template."""
    max_tokens: int = Field(default=32, ge=1, le=2048)
    """The longest generated answer, for prompts without labels."""


class StreamOptions(_Request):
    """What a stream says besides."""

    include_usage: bool = False
    """Whether a last chunk holds the usage."""


class CompletionRequest(_Request):
    """Texts to continue, as OpenAI's interface has it."""

    model: _Name
    """A prompt's name, or the model's own for none."""
    prompt: _Text | _Tokens | _Several[_Text] | _Several[_Tokens]
    """A text, several, or their tokens. The prompt's template is not applied."""
    max_tokens: int = Field(default=16, ge=0, le=4096)
    """The most tokens of a continuation; 0 with `echo` scores the text alone."""
    temperature: float = Field(default=1.0, ge=0, le=2, allow_inf_nan=False)
    """0: always the likeliest token."""
    top_p: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)
    """Tokens are drawn from the likeliest that together have this probability."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """Of the random numbers."""
    stop: _Text | Annotated[list[_Text], Field(max_length=16)] | None = None
    """Where a text ends."""
    logprobs: int | None = Field(default=None, ge=0, le=20)
    """How many of the likeliest tokens to report at every place."""
    echo: bool = False
    """Whether the text is part of the answer."""
    stream: bool = False
    """Whether tokens are sent as they come."""
    stream_options: StreamOptions | None = None
    """What a stream says besides."""
    user: str | None = None
    """Ignored, as OpenAI's clients may send it."""
    # Accepted with the value that changes nothing, since some clients always send them.
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
