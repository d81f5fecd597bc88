"""Jobs that wait for the model, each with one input of a request. Plain values; `batcher.py` runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from torch import Tensor

from spoton.models.token_scores import TokenScores

_Awaited = TypeVar("_Awaited")


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 always picks the most likely token.
        top_p: Samples only from the most likely tokens that together have this probability.
        seed: Seed of the sampling; None: no fixed seed.
        top: How many of the most likely tokens to report at each position.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    top: int = 0


@dataclass(frozen=True)
class ChosenToken:
    """A generated token.

    Attributes:
        token: Its id.
        log_likelihood: Under the model itself, at any temperature.
        top: The most likely tokens at its position and their log-likelihoods.
    """

    token: int
    log_likelihood: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(kw_only=True, eq=False)
class ServingJob:
    """One input behind one prompt.

    Attributes:
        key: Identifies the prompt in the cache.
        value: `[P, D]` the prompt; P may be 0.
        text: Tokens of the input.
        deadline: When its client stops waiting, by `time.monotonic`.
    """

    key: str
    value: Tensor
    text: Sequence[int]
    deadline: float

    @property
    def tokens(self) -> int:
        """Number of tokens that it adds to a pass."""
        return len(self.text)

    def claim(self) -> bool:
        """Claims the job to run it, once; returns False if its client no longer waits."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """Passes an error to the waiting client."""
        raise NotImplementedError


@dataclass(kw_only=True, eq=False)
class AwaitedJob(ServingJob, Generic[_Awaited]):
    """A job with one answer, for which its client waits.

    Attributes:
        done: The answer, or the error.
    """

    done: Future[_Awaited] = field(default_factory=Future)

    def claim(self) -> bool:
        """See `ServingJob`."""
        return self.done.set_running_or_notify_cancel()

    def fail(self, error: Exception) -> None:
        """See `ServingJob`."""
        if not self.done.done():  # its own result may have come before the error
            self.done.set_exception(error)


@dataclass(kw_only=True, eq=False)
class LabelJob(AwaitedJob[Tensor]):
    """Requests the log-likelihoods of some labels: `[C]`."""

    labels: Sequence[Sequence[int]]

    @property
    def tokens(self) -> int:
        """Number of tokens of the input and the labels' stems."""
        return len(self.text) + sum(len(label) - 1 for label in self.labels)


@dataclass(kw_only=True, eq=False)
class TextJob(AwaitedJob[TokenScores]):
    """Requests the log-likelihoods of the input's own tokens."""

    top: int


@dataclass(kw_only=True, eq=False)
class GenerateJob(ServingJob):
    """Requests a continuation, token by token.

    Attributes:
        on_token: Called with every token but the end token, in the thread that runs the model.
        on_end: Called once, with `stop` (the end token), `length`, or an error.
    """

    max_tokens: int
    sampling: Sampling
    on_token: Callable[[ChosenToken], None]
    on_end: Callable[[str | Exception], None]
    cancelled: bool = False

    def claim(self) -> bool:
        """See `ServingJob`."""
        return not self.cancelled

    def fail(self, error: Exception) -> None:
        """See `ServingJob`."""
        self.on_end(error)
