"""What waits for the model: one input of a request each. Plain values; who runs them is `batcher.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from torch import Tensor

from spoton.models.token_scores import TokenScores


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0: always the likeliest.
        top_p: Only the likeliest tokens that together have this probability.
        seed: Of the random numbers; None: none in particular.
        top: How many of the likeliest tokens to report at every place.
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
        log_likelihood: By the model itself, whatever the temperature.
        top: The likeliest tokens at its place and their log-likelihoods.
    """

    token: int
    log_likelihood: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(kw_only=True, eq=False)
class Job:
    """One input behind one prompt.

    Attributes:
        key: What the prompt is, for the cache.
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
        """What it adds to a pass."""
        return len(self.text)

    def claim(self) -> bool:
        """Takes the job to run it, once; False if its client no longer waits."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """Tells who waits."""
        raise NotImplementedError


@dataclass(kw_only=True, eq=False)
class LabelJob(Job):
    """Asks for the log-likelihood of some labels: `[C]`."""

    labels: Sequence[Sequence[int]]
    done: Future[Tensor] = field(default_factory=Future)

    @property
    def tokens(self) -> int:
        """Input and the labels' stems."""
        return len(self.text) + sum(len(label) - 1 for label in self.labels)

    def claim(self) -> bool:
        """See `Job`."""
        return self.done.set_running_or_notify_cancel()

    def fail(self, error: Exception) -> None:
        """See `Job`."""
        self.done.set_exception(error)


@dataclass(kw_only=True, eq=False)
class TextJob(Job):
    """Asks for the log-likelihood of the input's own tokens."""

    top: int
    done: Future[TokenScores] = field(default_factory=Future)

    def claim(self) -> bool:
        """See `Job`."""
        return self.done.set_running_or_notify_cancel()

    def fail(self, error: Exception) -> None:
        """See `Job`."""
        self.done.set_exception(error)


@dataclass(kw_only=True, eq=False)
class GenerateJob(Job):
    """Asks for a continuation, token by token.

    Attributes:
        on_token: Told every token but the end token, in the thread that runs the model.
        on_end: Told once: `stop` (the end token), `length`, or an error.
    """

    max_tokens: int
    sampling: Sampling
    on_token: Callable[[ChosenToken], None]
    on_end: Callable[[str | Exception], None]
    cancelled: bool = False

    def claim(self) -> bool:
        """See `Job`."""
        return not self.cancelled

    def fail(self, error: Exception) -> None:
        """See `Job`."""
        self.on_end(error)
